"""`stsfs rules`: what may happen where, and why not."""

from typing import Any

import click
import trio

from stsfs.cli import output, rules_view
from stsfs.cli.asking import ask_about, locate
from stsfs.cli.location_options import location_options
from stsfs.daemon import locks
from stsfs.location.look import look
from stsfs.location.parse import S3Target, parse_target
from stsfs.location.resolve import ResolveOptions, SynapseAccess
from stsfs.location.rules_place import place_record
from stsfs.rules.question import Place
from stsfs.rules.table import ROWS


@click.command()
@click.argument("location", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--markdown", is_flag=True, help="The table as it stands in the README.")
@location_options
def rules(location: str | None, as_json: bool, markdown: bool, **who: Any) -> None:
    """Print the rules: what they forbid, how the kernel says it, and what to do instead.

    With LOCATION (a path in a mount, syn12345 or s3://bucket/prefix), print those that can be met
    there, and what is known of it. The first rule that applies is the answer.
    """
    place = None if location is None else _place(location, ResolveOptions(**who))
    told = [rule for rule in ROWS if place is None or rule.name in place["rules"]]
    if markdown:
        output.tell_text(rules_view.markdown(told))
        return
    if as_json:
        rows = [rules_view.record(rule) for rule in told]
        output.tell_json({"place": place, "rules": rows})
        return
    output.tell_parts([rules_view.table(place, told)])


def _place(location: str, options: ResolveOptions) -> dict[str, Any]:
    """What is known of a location: what its mount knows, or what Synapse tells everybody."""
    if not locks.is_location(location):
        return ask_about(locate(location), "rules")
    target = parse_target(location)

    async def ask() -> Place:
        if isinstance(target, S3Target):
            return await look(target, options=options)
        synapse = SynapseAccess(options)
        try:
            return await look(target, options=options, synapse=synapse)
        finally:
            await synapse.aclose()

    # Whether it is mounted for writing is for whoever mounts it to say.
    return place_record(trio.run(ask)) | {"writable": None}
