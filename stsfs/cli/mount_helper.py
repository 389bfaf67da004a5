"""`mount.stsfs`: what mount(8) calls for the type `stsfs`, in fstab or after `-t`."""

import getopt
import sys

from stsfs.cli import output
from stsfs.cli.main import main as stsfs
from stsfs.cli.mount_options import from_mount

_SHORT_OPTIONS = "fnsvN:o:t:"
"""As mount(8) says under EXTERNAL HELPERS."""

USAGE = "usage: mount.stsfs LOCATION DIR [-fnsv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]"


def main() -> None:
    """Run `stsfs mount LOCATION DIR -o OPTIONS`; exit codes are those of that command.

    The mount is read-only unless OPTIONS have the word `write`. With -f nothing is mounted. The
    other words of mount(8) have no meaning here.
    """
    try:
        options, places = getopt.gnu_getopt(sys.argv[1:], _SHORT_OPTIONS)
    except getopt.GetoptError as exc:
        sys.exit(_usage(str(exc)))
    if len(places) != 2:
        sys.exit(_usage("two arguments are needed"))
    text = ",".join(value for name, value in options if name == "-o")
    given = ["-o", words] if (words := from_mount(text)) else []
    if ("-f", "") in options:
        return
    stsfs(["mount", *given, "--", *places], prog_name="stsfs")


def _usage(reason: str) -> int:
    output.warn(f"mount.stsfs: {reason}")
    output.warn(USAGE)
    return 2
