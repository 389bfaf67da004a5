"""Keeps tokens and keys out of core files."""

import contextlib
import resource
from pathlib import Path

COREDUMP_FILTER = Path("/proc/self/coredump_filter")


def keep_memory_out_of_core_files() -> None:
    """Let this process, and its children, leave no core file, or one without memory in it.

    The limit alone does not bind a core_pattern(5) that is a program; the empty filter of core(5)
    does. PR_SET_DUMPABLE would do it too, but gives /proc/PID to root, which hides a user's own
    daemon from the user, and from profilers and debuggers.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # kernels that write no core files have no filter
        COREDUMP_FILTER.write_text("0")
