"""Paths on the command line: those that may lie in a mount whose daemon does not answer, and those
of directories of ours."""

import os
from pathlib import Path
from typing import Any

import click

from stsfs.owned_dir import resolved


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


class OwnPath(click.Path):
    """A file or a directory that may have to be made, as a Path without symbolic links.

    Links of other users are not followed: raises ForeignPath.
    """

    def __init__(self, *, is_directory: bool) -> None:
        super().__init__(file_okay=not is_directory, dir_okay=is_directory, path_type=Path)

    def convert(
        self,
        value: "str | os.PathLike[str]",
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """The path."""
        return resolved(Path(os.fsdecode(super().convert(value, param, ctx))))
