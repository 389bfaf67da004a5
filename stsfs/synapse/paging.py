"""Detects a listing in pages that a server continues for ever."""

from stsfs.errors import SynapseUnavailable
from stsfs.synapse import answers

EMPTY_PAGES_MAX = 100
"""In a row. A page can be empty where the server leaves out what a user may not see."""

PAGES_MAX = 20_000
ENTRIES_MAX = 300_000
"""Of one listing: thirty times what Synapse allows in a folder. They are kept in memory."""


class Paging:
    """Watches one listing, page by page."""

    def __init__(self, what: str) -> None:
        """`what` is the request, as errors call it."""
        self._what = what
        self._seen: set[int] = set()
        self._empty = self._entries = 0

    def turn(self, token: str, *, new: int) -> None:
        """Note that a page named the token of the next one, and how many new entries it brought.

        Raises SynapseUnavailable for a token that was there before, for too many pages without
        anything new, and for too many pages or entries.
        """
        mark = hash(token)  # tokens can be long
        self._empty = 0 if new else self._empty + 1
        self._entries += new
        is_long = len(self._seen) >= PAGES_MAX or self._entries > ENTRIES_MAX
        if mark in self._seen or self._empty > EMPTY_PAGES_MAX or is_long:
            raise endless(self._what)
        self._seen.add(mark)


def endless(what: str) -> SynapseUnavailable:
    """The error for a listing that does not come to an end."""
    error = answers.not_understood(what)
    return SynapseUnavailable(f"The answers to {what} do not come to an end.", remedy=error.remedy)
