"""Options in the manner of mount(8): `-o uid=1000,allow_other,_netdev`, as fstab has them."""

import re
from collections.abc import Iterable, Mapping

from stsfs.errors import BadArgument

_GENERIC = re.compile(
    r"ro|defaults|auto|noauto|nofail|_netdev|user|users|nouser|owner|group"
    r"|(no)?(dev|suid|exec|atime|diratime|relatime|lazytime)|strictatime|a?sync"
    r"|[xX]-.*|comment"
)
"""What mount(8), systemd and init scripts say to each other; fusermount3 mounts nodev, nosuid."""


def parse_mount_options(texts: Iterable[str], takes_value: Mapping[str, bool]) -> dict[str, str]:
    """Read `-o` texts into values by the names of `takes_value` (`allow_other`, `umask`).

    Names are those of the long options, with `_` or `-`; a flag has the value `true`; the last
    of several wins, generic options are dropped. Raises BadArgument for an unknown option, a
    missing value and a value too many.
    """
    values: dict[str, str] = {}
    for option in (part for text in texts for part in text.split(",") if part):
        name, equals, value = option.partition("=")
        key = name.strip().replace("-", "_")
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
