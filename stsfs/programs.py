"""Other programs that are started: where they are looked for, and what they are told.

Never by PATH, which may name anything, and never with our own environment, which may have tokens
and keys. Programs that the AWS configuration of the user names (`credential_process`) are not
started from here: botocore does it, with the user's environment, as AWS documents it.
"""

import os
from pathlib import Path

SYSTEM_DIRECTORIES = (
    Path("/usr/bin"), Path("/bin"), Path("/usr/local/bin"), Path("/run/wrappers/bin")
)  # fmt: skip
"""Where an administrator installs what runs as root (the last one: NixOS)."""

SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of every program that is started."""

_FOR_THE_LOADER = "LD_LIBRARY_PATH"
"""Without it some interpreters do not find their own library. Set-user-ID programs ignore it."""


def fusermount3() -> Path:
    """The program that mounts for ordinary users: where it is, or would be."""
    places = [directory / "fusermount3" for directory in SYSTEM_DIRECTORIES]
    return next((each for each in places if os.access(each, os.X_OK)), places[0])


def environment(**variables: str) -> dict[str, str]:
    """All variables of a program that is started: these, and next to nothing else."""
    made = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
    if _FOR_THE_LOADER in os.environ:
        made[_FOR_THE_LOADER] = os.environ[_FOR_THE_LOADER]
    return made | variables
