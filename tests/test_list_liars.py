"""Whatever pages a server sends: an answer or an error, never an endless listing, and no name lost.

The store asks over HTTP; the server's answers are written here.
"""

from time import tzset

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
        (page(*(f"p/{n:05}" for n in range(2001))), "Asked for 1000 keys, it lists 2001"),
        (page(*(f"p/{n:05}" for n in range(8000))), "more than 2000 rows"),
        (page(*"x" * 20_000), "more XML elements"),
        (with_length(NO_KEYS.format("<a/>" * 11_000).encode()), "more than 2000 rows"),
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
        with pytest.raises(StoreFailure, match=r"20 pages .* in a row had nothing"):
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


BAD_ROWS = [
    (ROW.format("p/%FF"), "p/\ufffd", "its key is not UTF-8"),
    (ROW.format("p/%80").replace("<ETag>e", "<ETag>f"), "p/\ufffd", "its key is not UTF-8"),
    (ROW.format("p/a" + "x" * 1022), "p/a" + "x" * 1021, "more than 1024 bytes"),
    (ROW.format("p/a").replace("1</S", "-1</S"), "p/a", "its size is no number"),
    (ROW.format("p/a").replace("1</S", "1_0</S"), "p/a", "its size is no number"),
    (ROW.format("p/a").replace("1</S", "\u0661</S"), "p/a", "its size is no number"),
    (ROW.format("p/a").replace("1</S", "</S"), "p/a", "its size is no number"),
    (ROW.format("p/a").replace("1</S", f"{2**63}</S"), "p/a", "out of range"),
    (ROW.format("p/a").replace("1</S", "9" * 5000 + "</S"), "p/a", "digits"),
    (ROW.format("p/a").replace("<ETag>e", "<ETag>&#10;a&#10;X-Evil: 1"), "p/a", "ETag"),
    (ROW.format("p/a").replace("<ETag>e", '<ETag>"e", "f"'), "p/a", "ETag"),
    (ROW.format("p/a") .replace("</ETag>", "</ETag><StorageClass>a&#10;b</StorageClass>"), "p/a",
     "sent in a header"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "key", "why"), BAD_ROWS)
async def test_a_row_that_makes_no_sense_is_told_as_such_and_the_others_are_listed(row, key, why):
    rows = ROW.format("p/0") + row + ROW.format("p/b%20c")
    said = "<EncodingType>url</EncodingType>" + rows
    async with Asked(with_length(NO_KEYS.format(said).encode())) as asked:
        found = await asked.store.list_page("p/")
        assert [each.key for each in found.objects] == ["p/0", "p/b c"]
        assert list(found.unusable) == [key]
        assert why in found.unusable[key]


TIME = "<LastModified>2024-01-01T00:00:00.000Z</LastModified>"
TIMES = [
    ("", 0), ("<LastModified/>", 0), ("yesterday", 0), ("99999-01-01T00:00:00Z", 0),
    ("Mon, 01 Jan 99999 00:00:00 GMT", 0), ("2024-01-01T00:00:00.000Z", 1_704_067_200),
    ("2024-01-01T01:00:00+01:00", 1_704_067_200), ("2024-01-01T00:00:00", 1_704_067_200),
    (" 2024-01-01T00:00:00Z\n", 1_704_067_200), ("Mon, 01 Jan 2024 00:00:00 GMT", 1_704_067_200),
    ("Mon, 01 Jan 2024 00:00:00 -0000", 1_704_067_200), ("01 Jan 2024 00:00:00", 1_704_067_200),
    ("0001-01-01T00:00:00+23:59", list_page.UNIX_S_MIN),
    ("9999-12-31T23:59:59-23:59", list_page.UNIX_S_MAX),
]  # fmt: skip


@pytest.fixture
def east(monkeypatch):
    """A machine whose own time is not UTC."""
    monkeypatch.setenv("TZ", "IST-5:30")
    tzset()
    yield
    monkeypatch.undo()
    tzset()


@pytest.mark.parametrize(("time", "unix_s"), TIMES)
async def test_an_object_is_listed_whatever_its_time_says(time, unix_s, east):
    """RFC 1123, as other answers of servers have it, and without a zone it is UTC; else 1970."""
    element = time if time[:1] in {"", "<"} else f"<LastModified>{time}</LastModified>"
    rows = ROW.format("p/a").replace(TIME, element) + ROW.format("p/b")
    async with Asked(with_length(NO_KEYS.format(rows).encode())) as asked:
        found = await asked.store.list_page("p/")
    assert [each.key for each in found.objects] == ["p/a", "p/b"]
    assert [each.modified_unix_s for each in found.objects] == [unix_s, 1_704_067_200]
    assert found.unusable == {}


async def test_common_prefixes_that_no_path_can_name_are_told_as_such():
    shared = ["p/%FF/", "p/a/", "p/" + "x" * 1023 + "/"]
    async with Asked(page(prefixes=shared, token="")) as asked:
        found = await asked.store.list_page("p/")
    assert found.prefixes == ["p/%FF/", "p/a/"]  # not encoded: it is what it says
    assert list(found.unusable.values()) == ["its key has more than 1024 bytes"]


async def test_a_key_that_a_server_could_not_write_down_is_told_as_such():
    async with Asked(page("p/a\ufffd", "p/a\ufffd", "p/b")) as asked:
        found = await asked.store.list_page("p/")
    assert [each.key for each in found.objects] == ["p/b"]
    assert list(found.unusable) == ["p/a\ufffd"]


async def test_what_is_unusable_on_pages_without_anything_else_is_not_forgotten():
    async with Asked(
        page("p/\ufffd", token="1"), page("p/\ufffd2", token="2"), page("p/z")
    ) as asked:
        found = await asked.store.list_page("p/")
        assert [each.key for each in found.objects] == ["p/z"]
        assert list(found.unusable) == ["p/\ufffd", "p/\ufffd2"]
        assert asked.count == 3


async def test_whoever_must_know_all_that_is_there_hears_of_what_is_unusable():
    bad = ROW.format("p/a").replace("1</S", "-1</S")
    async with Asked(with_length(NO_KEYS.format(bad).encode())) as asked:
        for ask in (first_keys(asked.store, "p/", 2), object_at(asked.store, "p/a"),
                    all_keys(asked.store, "p/")):  # fmt: skip
            with pytest.raises(StoreFailure, match=r"What is at 'p/a' cannot be told: .* size"):
                await ask
        assert await object_at(asked.store, "p/") is None


async def test_keys_with_line_breaks_are_keys_like_others():
    said = "<EncodingType>url</EncodingType>"
    rows = "".join(ROW.format(key) for key in ("p/%0A", "p/a%0Ab+c", "p/b"))
    async with Asked(with_length(NO_KEYS.format(said + rows).encode())) as asked:
        found = await asked.store.list_page("p/")
    assert [each.key for each in found.objects] == ["p/\n", "p/a\nb c", "p/b"]


async def test_a_continuation_that_cannot_be_sent_is_refused():
    async with Asked(page("p/a", token="x" * 20_000)) as asked:
        with pytest.raises(StoreFailure, match="too long to be sent"):
            await asked.store.list_page("p/")


async def test_a_page_that_was_compressed_is_refused_in_words():
    async with Asked(with_length(b"\x1f\x8b\x08\0", b"Content-Encoding: gzip")) as asked:
        with pytest.raises(StoreFailure, match="compresses what it was asked for"):
            await asked.store.list_page("p/")
        assert asked.count == 1


async def test_a_page_whose_length_is_too_much_is_not_read():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    async with Asked(head) as asked:
        with pytest.raises(StoreFailure, match="more than 8388608 bytes"):
            await asked.store.list_page("p/")
        assert asked.count == 1


FULL_ROW = (
    "<Contents><Key>p/{:04}%26</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>1</Size>"
    "<ChecksumAlgorithm>CRC32C</ChecksumAlgorithm><ChecksumAlgorithm>SHA256</ChecksumAlgorithm>"
    "<ChecksumType>FULL_OBJECT</ChecksumType><StorageClass>GLACIER</StorageClass>"
    '<Owner xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
    "<ID>0123456789abcdef0123456789abcdef</ID><DisplayName>O&apos;Neill</DisplayName></Owner>"
    "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
    "<RestoreExpiryDate>2024-01-01T00:00:00.000Z</RestoreExpiryDate></RestoreStatus></Contents>"
)


async def test_a_page_of_as_many_rows_as_may_be_is_read_with_all_that_a_server_tells():
    parser = list_page.ListPageParser()
    rows = "".join(FULL_ROW.format(number) for number in range(list_page.ROWS_MAX))
    parser.feed(NO_KEYS.format(rows).encode())
    found = await parser.page()
    assert len(found.objects) == list_page.ROWS_MAX
    assert list_page.ROWS_MAX >= 1000 + paging.ROWS_SLACK
