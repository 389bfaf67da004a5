"""`stsfs demo`: the whole program shown on servers that run on this machine."""

import click

from stsfs.cli.exit_codes import ExtraMissing


@click.command()
@click.option("--keep", is_flag=True, help="Leave the mount and its servers for a look around.")
@click.pass_context
def demo(ctx: click.Context, keep: bool) -> None:
    """Mount a storage location of a fake Synapse and work with it; needs no account."""
    try:
        from stsfs.demo import story
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "stsfs":
            raise
        raise ExtraMissing(
            f"The demonstration needs the package {exc.name}, which is not installed.",
            remedy="Install the extra: pip install '.[demo]' in a checkout, or `make demo` there.",
        ) from exc
    ctx.exit(story.run(keep))
