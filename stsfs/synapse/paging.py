"""Detects a listing in pages that a server continues for ever."""

from stsfs.errors import SynapseUnavailable
from stsfs.synapse import answers

EMPTY_PAGES_MAX = 100
"""In a row. A page can be empty where the server leaves out what a user may not see."""

PAGES_MAX = 20_000
"""Of one listing: a million children, which a folder of Synapse does not have."""


class Paging:
    """Watches one listing, page by page."""

    def __init__(self, what: str) -> None:
        """`what` is the request, as errors call it."""
        self._what = what
        self._seen: set[int] = set()
        self._empty = 0

    def turn(self, token: str, *, has_more: bool) -> None:
        """Note that a page named the token of the next one, and whether it brought anything new.

        Raises SynapseUnavailable for a token that was there before, for too many pages without
        anything new, and for too many pages.
        """
        mark = hash(token)  # tokens can be long
        self._empty = 0 if has_more else self._empty + 1
        is_endless = self._empty > EMPTY_PAGES_MAX or len(self._seen) >= PAGES_MAX
        if mark in self._seen or is_endless:
            raise endless(self._what)
        self._seen.add(mark)


def endless(what: str) -> SynapseUnavailable:
    """The error for a listing that does not come to an end."""
    error = answers.not_understood(what)
    return SynapseUnavailable(f"The answers to {what} do not come to an end.", remedy=error.remedy)
