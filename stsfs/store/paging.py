"""What pages of a LIST must be like, and how they are read one after the other.

What a server sends decides which names exist, and drives loops. A page that contradicts the
request, or the page before it, is therefore an error that says what the server did: never an
endless loop, never a name that is silently missing.

Names have to come in byte order. A page in another order is refused and not sorted: a directory
listing, the first page of a long directory and the answer about a single name all conclude from
the last name of a page that every smaller one has been told.
"""

import operator
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise

import trio

from stsfs.errors import StoreFailure
from stsfs.store.object_store import ListedObject, ListPage, ObjectStore

EMPTY_PAGES_MAX, EMPTY_S_MAX = 1000, 600.0
"""So many pages in a row may be empty although the server says that more follows, for so long."""

UNUSABLE_MAX = 10_000
"""Of what cannot be shown, so much may come in a row without anything that can."""

ROWS_SLACK = 1000
"""Rows that a server may send beyond those asked for: some ignore small limits."""

SENTENCE_CHARS_MAX = 3000
"""Of an error: two keys of the greatest length, and a few words."""

_REMEDY = "Tell the maker of the server; stsfs cannot show what is there."


def check_page(
    page: ListPage, prefix: str, *, token: str | None, keys_max: int, delimiter: str
) -> None:
    """Raise StoreFailure for a page that cannot be the answer to this request. Not a checkpoint."""
    keys = [listed.key for listed in page.objects]
    for names in (keys, page.prefixes):
        _check_order(names)
        for name in (*names[:1], *names[-1:]):  # whatever lies between two such keys is such a key
            if not name.startswith(prefix):
                raise _liar(f"Asked for keys that begin with {prefix!r}, it lists {name!r}.")
    for shared in page.prefixes:
        if not delimiter or not shared.endswith(delimiter) or len(shared) <= len(prefix):
            raise _liar(f"It lists {shared!r} as a common prefix below {prefix!r}.")
    if len(keys) + len(page.prefixes) > keys_max + ROWS_SLACK:
        raise _liar(f"Asked for {keys_max} keys, it lists {len(keys) + len(page.prefixes)}.")
    if token is not None and page.next_token == token:
        raise _liar(f"It repeats a continuation token: the listing of {prefix!r} has no end.")


def check_follows(last: str, first: str) -> None:
    """Raise StoreFailure where a page does not begin after the end of the one before it."""
    if first <= last:
        raise _liar(f"A page begins with {first!r}, and the one before it ended with {last!r}.")


def bounds(page: ListPage) -> tuple[str, str] | None:
    """The first and the last name of a page; None if it has none."""
    ends = [names for names in ([each.key for each in page.objects], page.prefixes) if names]
    return (min(x[0] for x in ends), max(x[-1] for x in ends)) if ends else None


async def filled(
    ask: Callable[[str | None], Awaitable[ListPage]], token: str | None, prefix: str
) -> ListPage:
    """The next page that has a row, or the last one. ask gets the page of a continuation token.

    Servers may answer with an empty page and say that more follows, as AWS does where many
    versions were deleted. Whoever looks at one page to learn whether something exists would
    conclude that it does not. Raises StoreFailure where no end is in sight.
    """
    unusable: Mapping[str, str] = {}
    until_s = trio.current_time() + EMPTY_S_MAX
    count = 0
    while count < EMPTY_PAGES_MAX:
        page, count = await ask(token), count + 1
        if unusable:
            page = page._replace(unusable={**unusable, **page.unusable})
        if page.objects or page.prefixes or page.next_token is None:
            return page
        unusable, token = page.unusable, page.next_token
        if trio.current_time() > until_s or len(unusable) > UNUSABLE_MAX:
            break
    raise _liar(f"{count} pages of the listing of {prefix!r} in a row had nothing to be shown.")


class Pages:
    """The pages of the keys below a prefix, one after the other, and in order.

    For those who must know everything that is there: what is unusable is an error, unless it is to
    be skipped.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        *,
        keys_max: int = 1000,
        delimiter: str = "",
        skips_unusable: bool = False,
    ) -> None:
        self._store, self._prefix = store, prefix
        self._keys_max, self._delimiter = keys_max, delimiter
        self._skips_unusable = skips_unusable
        self._token: str | None = None
        self._last: str | None = None
        self._is_over = False

    async def next(self) -> ListPage | None:
        """The next page; None after the last.

        Raises what ObjectStore.list_page raises, and StoreFailure for what is unusable.
        """
        if self._is_over:
            return None
        page = await self._store.list_page(
            self._prefix, token=self._token, keys_max=self._keys_max, delimiter=self._delimiter
        )
        if not self._skips_unusable:
            for key, why in page.unusable.items():
                raise StoreFailure(f"What is at {key!r} cannot be told: {why}.", remedy=_REMEDY)
        if (ends := bounds(page)) is not None:
            if self._last is not None:
                check_follows(self._last, ends[0])
            self._last = ends[1]
        self._token, self._is_over = page.next_token, page.next_token is None
        return page


async def first_keys(store: ObjectStore, prefix: str, count: int) -> list[ListedObject]:
    """The first objects below prefix, in order of their keys: count, or all if there are fewer.

    One request, as far as the server puts so many on a page. Raises as ObjectStore.list_page.
    """
    pages, found = Pages(store, prefix, keys_max=count), list[ListedObject]()
    while len(found) < count and (page := await pages.next()) is not None:
        found += page.objects
    return found[:count]


async def object_at(store: ObjectStore, key: str) -> ListedObject | None:
    """The object of just this key, if there is one: it is the first of all that begin so.

    Raises StoreFailure where there is one that is unusable.
    """
    page = await store.list_page(key, keys_max=1, delimiter="")
    if (why := page.unusable.get(key)) is not None:
        raise StoreFailure(f"What is at {key!r} cannot be told: {why}.", remedy=_REMEDY)
    return page.objects[0] if page.objects and page.objects[0].key == key else None


def _check_order(names: Sequence[str]) -> None:
    # Strings compare by code point, which is the order of their UTF-8 bytes.
    if not any(map(operator.ge, names, names[1:])):
        return
    for earlier, later in pairwise(names):
        if later <= earlier:
            raise _liar(f"It lists {later!r} after {earlier!r}, which is not in byte order.")


def _liar(what: str) -> StoreFailure:
    sentence = f"The server's listing makes no sense. {what[:SENTENCE_CHARS_MAX]}"
    return StoreFailure(sentence, remedy=_REMEDY)
