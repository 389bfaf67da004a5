"""The command `stsfs`: finds the sub-command, and reports how it ended.

Sub-commands are imported when they are called, so that `stsfs --version` and the start of a mount
do not wait for tables, SDKs or event loops they never use.
"""

import importlib
from typing import Any

import click

from stsfs import __version__
from stsfs.cli.output import presentable
from stsfs.cli.reporting import remember_debug, reports_errors

_COMMANDS = {
    "mount": "stsfs.cli.mount:mount",
    "unmount": "stsfs.cli.unmount:unmount",
    "status": "stsfs.cli.status:status",
    "list": "stsfs.cli.list:list_mounts",
    "explain": "stsfs.cli.explain:explain",
    "rules": "stsfs.cli.rules:rules",
    "info": "stsfs.cli.info:info",
    "find": "stsfs.cli.find:find",
    "pin": "stsfs.cli.pin:pin",
    "verify": "stsfs.cli.verify:verify",
    "refresh": "stsfs.cli.refresh:refresh",
    "recover": "stsfs.cli.recover:recover",
    "credentials": "stsfs.cli.credentials:credentials",
    "cache": "stsfs.cli.cache:cache",
    "demo": "stsfs.cli.demo:demo",
}


class LazyGroup(click.Group):
    """A group whose commands are imported by name, and whose errors are reported in one place."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None for one that does not exist."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the words before the command."""
        try:
            return super().make_context(*args, **kwargs)
        except click.ClickException as exc:
            raise presentable(exc) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, its options' conversion included."""
        with reports_errors(ctx):
            return super().invoke(ctx)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STSFS"},
)
@click.version_option(__version__, prog_name="stsfs", message="%(prog)s %(version)s")
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=remember_debug,
    help="Show tracebacks of errors.",
)
def main() -> None:
    """Mount a Synapse STS storage location, or any S3 prefix, as a local directory."""
