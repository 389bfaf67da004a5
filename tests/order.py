"""Which tests come first: those that end soon and fail soon, then those that mount.

Among both, long files come before short ones: workers take whole files in this order, and the short
ones at the end leave no worker alone with minutes of work.
"""

MOUNTS = ("mount", "strict", "systemd")
"""Markers of tests that need more than Python."""

LONG = "long"


def in_order(items):
    """The items, file by file; files of the same kind in the order they had."""
    marked = {}
    for item in items:
        marked.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    return sorted(items, key=lambda item: _turn(marked[item.path]))


def _turn(names):
    return not names.isdisjoint(MOUNTS), LONG not in names
