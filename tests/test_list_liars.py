"""Whatever pages a server sends: an answer or an error, never an endless listing, and no name lost.

The store asks over HTTP; the server's answers are written here.
"""

import pytest

from stsfs.errors import StoreFailure
from stsfs.store import list_page, paging
from stsfs.store.paging import Pages, first_keys, object_at
from tests.scripted_server import with_length
from tests.test_s3_store_liars import NO_KEYS, Asked

ROW = (
    "<Contents><Key>{}</Key><ETag>e</ETag><Size>1</Size>"
    "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
)


def page(*keys, token="", prefixes=()):
    """What a server answers."""
    rows = "".join(ROW.format(key) for key in keys)
    rows += "".join(f"<CommonPrefixes><Prefix>{x}</Prefix></CommonPrefixes>" for x in prefixes)
    if token:
        rows += "<IsTruncated>true</IsTruncated>"
        rows += f"<NextContinuationToken>{token}</NextContinuationToken>"
    return with_length(NO_KEYS.format(rows).encode())


async def all_keys(store, prefix):
    pages, found = Pages(store, prefix), []
    while (one := await pages.next()) is not None:
        found += [each.key for each in one.objects]
    return found


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (page("p/b", "p/a"), "'p/a' after 'p/b', which is not in byte order"),
        (page("p/a", "p/a"), "'p/a' after 'p/a', which is not in byte order"),
        (page(prefixes=["p/b/", "p/a/"]), "'p/a/' after 'p/b/'"),
        (page("q/a"), "begin with 'p/', it lists 'q/a'"),
        (page("p/a", prefixes=["x/"]), "begin with 'p/', it lists 'x/'"),
        (page(prefixes=["p/a"]), "'p/a' as a common prefix"),
        (page(prefixes=["p/"]), "'p/' as a common prefix"),
        (page(*(f"p/{n:05}" for n in range(3000))), "Asked for 1000 keys, it lists 3000"),
        (page(*"x" * 20_000), "more than 10000 rows"),
        (with_length(NO_KEYS.format(ROW.replace("1</S", "-1</S")).encode()), "size or date"),
    ],
)
async def test_a_page_that_contradicts_the_request_is_an_error_that_says_so(answer, reason):
    async with Asked(answer) as asked:
        with pytest.raises(StoreFailure, match=reason):
            await asked.store.list_page("p/")
        assert asked.count == 1


async def test_a_page_without_end_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(list_page, "PAGE_BYTES_MAX", 100_000)
    async with Asked(page("p/" + "x" * 200_000)) as asked:
        with pytest.raises(StoreFailure, match="more than 100000 bytes"):
            await asked.store.list_page("p/")


async def test_an_empty_page_that_more_follows_is_read_past():
    async with Asked(page(token="t1"), page(token="t2"), page("p/a")) as asked:
        found = await asked.store.list_page("p/", keys_max=1)
        assert [each.key for each in found.objects] == ["p/a"]
        assert asked.count == 3


async def test_whoever_looks_for_one_key_finds_it_behind_empty_pages():
    answers = page(token="t1"), page("p/a")
    async with Asked(*answers) as asked:
        assert (await object_at(asked.store, "p/a")).key == "p/a"
    async with Asked(*answers) as asked:
        assert await object_at(asked.store, "p/") is None
    async with Asked(page(token="t1"), page()) as asked:
        assert await object_at(asked.store, "p/a") is None


async def test_the_first_keys_are_gathered_from_pages_of_one():
    async with Asked(page("p/", token="t1"), page(token="t2"), page("p/b", token="t3")) as asked:
        assert [each.key for each in await first_keys(asked.store, "p/", 2)] == ["p/", "p/b"]
        assert asked.count == 3


async def test_empty_pages_without_end_are_an_error(monkeypatch):
    monkeypatch.setattr(paging, "EMPTY_PAGES_MAX", 20)
    async with Asked(*(page(token=f"t{number}") for number in range(30))) as asked:
        with pytest.raises(StoreFailure, match=r"20 pages .* in a row were empty"):
            await asked.store.list_page("p/")


async def test_a_token_that_repeats_is_an_error_and_no_endless_listing():
    async with Asked(page("p/a", token="again"), page("p/b", token="again")) as asked:
        with pytest.raises(StoreFailure, match="repeats a continuation token"):
            await all_keys(asked.store, "p/")
        assert asked.count == 2


async def test_tokens_that_go_round_in_a_circle_are_an_error():
    answers = page("p/a", token="1"), page("p/b", token="2"), page("p/a", token="1")
    async with Asked(*answers) as asked:
        with pytest.raises(StoreFailure, match="begins with 'p/a', and the one before it ended"):
            await all_keys(asked.store, "p/")


async def test_keys_that_are_not_utf8_make_no_listing_unreadable():
    said = "<EncodingType>url</EncodingType>"
    rows = "".join(ROW.format(key) for key in ("p/%FF", "p/%FF1", "p/%80", "p/b"))
    async with Asked(with_length(NO_KEYS.format(said + rows).encode())) as asked:
        assert len((await asked.store.list_page("p/")).objects) == 4
