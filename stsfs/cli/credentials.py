"""`stsfs credentials`: the credentials of a location, for other programs."""

import logging
import re
from typing import Any

import click

from stsfs.cli import output
from stsfs.cli.credential_formats import FORMATS
from stsfs.cli.location_options import location_options
from stsfs.credentials.credential_cache import CredentialCache
from stsfs.daemon import runtime_dir
from stsfs.daemon.core_dumps import keep_memory_out_of_core_files
from stsfs.errors import BadArgument
from stsfs.location.broker import obtain
from stsfs.location.parse import parse_target
from stsfs.location.resolve import ResolveOptions

log = logging.getLogger(__name__)

_SECTION = re.compile(r"[^\[\]\x00-\x1f\x7f]+")


@click.command()
@click.argument("location", required=False)
@click.option(
    "--format",
    "form",
    envvar="STSFS_CREDENTIALS_FORMAT",
    type=click.Choice(list(FORMATS)),
    help="What to print.",
)
@click.option(
    "--section",
    metavar="NAME",
    default="default",
    show_default=True,
    help="Name of the section, for ini.",
)
@click.option("--no-cache", is_flag=True, help="Fetch, and keep nothing.")
@click.option("--forget", is_flag=True, help="Print nothing: remove what is kept of LOCATION.")
@location_options
def credentials(
    location: str | None, form: str | None, section: str, no_cache: bool, forget: bool, **who: Any
) -> None:
    """Print credentials that read LOCATION (syn12345 or s3://bucket/prefix).

    json has everything; env is for `eval "$(...)"` in a shell; ini is a section of an AWS
    credentials file; boto are arguments for boto3.client; process is for `credential_process` in
    an AWS profile.

    Credentials from Synapse are kept, for you alone, until they are renewed a little before
    their end, so that many calls make one request to Synapse. --forget without LOCATION removes
    all that are kept. Credentials for s3:// come from the AWS chain and are never kept.
    """
    if forget:
        _forget(location)
        return
    if location is None:
        raise BadArgument("The location is missing.", remedy="Name a syn id or s3://bucket.")
    if form is None:
        raise BadArgument(
            "Secrets are printed only in a format that was asked for.",
            remedy=f"Add --format with one of: {', '.join(FORMATS)}.",
        )
    if not _SECTION.fullmatch(section):
        raise BadArgument(f"{section!r} cannot be the name of a section.")
    keep_memory_out_of_core_files()
    target, cache = parse_target(location), None if no_cache else _open_cache()
    access = obtain(target, ResolveOptions(**who), cache)
    output.tell_text(FORMATS[form](access.location, access.credentials, section))


def _open_cache() -> CredentialCache | None:
    """What is kept, on tmpfs where the machine has one for us; None, with a warning, if nowhere."""
    try:
        return CredentialCache(runtime_dir.runtime_dir() / "credentials")
    except (OSError, BadArgument) as exc:
        log.warning("credentials are not kept: %s", exc)
        return None


def _forget(location: str | None) -> None:
    target = None if location is None else str(parse_target(location))
    cache = _open_cache()
    count = 0 if cache is None else cache.forget(target)
    output.tell(f"Forgotten: {count} {'set' if count == 1 else 'sets'} of credentials.")
