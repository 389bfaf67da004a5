"""Options in the manner of mount(8): `-o uid=1000,allow_other,_netdev`, as fstab has them.

A mount is read-only unless somebody asks for more. mount(8) passes `rw` to its helpers wherever
nobody has said `ro`, so that from there the word says nothing, and `write` asks for more.
"""

import re
from collections.abc import Iterable, Mapping

from stsfs.daemon.config import NEEDS
from stsfs.errors import BadArgument

WRITE = "write"
"""Mount for writing, as `--rw` does."""

_GENERIC = re.compile(
    r"defaults|auto|noauto|nofail|_netdev|user|users|nouser|owner|group"
    r"|(no)?(dev|suid|exec|atime|diratime|relatime|lazytime)|strictatime|a?sync"
    r"|[xX]-.*|comment"
)
"""What mount(8), systemd and init scripts say to each other; fusermount3 mounts nodev, nosuid."""


def parse_mount_options(texts: Iterable[str], takes_value: Mapping[str, bool]) -> dict[str, str]:
    """Read `-o` texts into values by the names of `takes_value` (`allow_other`, `umask`).

    Names are those of the long options, with `_` or `-`; a flag has the value `true`; the last
    of several wins, generic options are dropped. `ro` is `rw` with the value `false`, `write` is
    `rw`. Raises BadArgument for an unknown option, a missing value and a value too many, and for
    `ro` beside `rw` or `write`.
    """
    values: dict[str, str] = {}
    for option in _parts(*texts):
        name, equals, value = option.partition("=")
        key = name.strip().replace("-", "_")
        if option in ("ro", "rw", WRITE):
            word = "false" if option == "ro" else "true"
            if values.setdefault("rw", word) != word:
                raise contradiction()
            continue
        if key in takes_value:
            if takes_value[key] and not value:
                raise BadArgument(f"The mount option {name} needs a value: {name}=...")
            if equals and not takes_value[key]:
                raise BadArgument(f"The mount option {name} takes no value.")
            values[key] = value or "true"
        elif not _GENERIC.fullmatch(name):
            raise BadArgument(
                f"The mount option {name!r} is not known.", remedy="See `stsfs mount --help`."
            )
    return values


def from_mount(text: str) -> str:
    """What mount(8) has passed to its helper, in the words of `stsfs mount -o`.

    `rw` is dropped, because it is always there; `ro` wins over `write`, as for `mount -o ro` of a
    line in fstab that says `write`, and then what is for writing alone means nothing.
    """
    options = [option for option in _parts(text) if option != "rw"]
    if "ro" in options:
        for_writing = {WRITE, *(need.field for need in NEEDS if need.of == "--rw")}
        options = [o for o in options if o.partition("=")[0].replace("-", "_") not in for_writing]
    return ",".join(options)


def contradiction() -> BadArgument:
    """The error for a mount that is to be read-only, and for writing."""
    return BadArgument("`ro` and `--rw` contradict each other.", remedy="Leave one of them out.")


def _parts(*texts: str) -> list[str]:
    return [part for text in texts for part in text.split(",") if part]
