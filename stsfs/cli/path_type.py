"""Paths on the command line that may lie in a mount whose daemon does not answer."""

import os
from typing import Any

import click


class MountedPath(click.Path):
    """A path as it was typed, with the completion of file names that click has for paths.

    click.Path itself calls stat(2), which waits for ever where a daemon hangs.
    """

    def convert(
        self,
        value: "str | os.PathLike[str]",
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """The text, or a Path where path_type says so. Does not touch the file system."""
        return self.coerce_path_result(value)
