"""Pages of Synapse that do not come to an end, and the addresses of servers that are none."""

import json

import httpx
import pytest
import trio
from hypothesis import assume, example, given
from hypothesis import strategies as st

from stsfs.entities.filler import all_children
from stsfs.entities.index import EntityIndex
from stsfs.entities.location import EntityLocation
from stsfs.entities.moment import PastMoment
from stsfs.errors import BadArgument, StsfsError, SynapseRefusal, SynapseUnavailable
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.endpoints import Endpoints
from stsfs.synapse.records import MODEL, ChildHeader
from stsfs.vfs.listing import is_file_name
from tests.fakes import MemoryStore
from tests.fuzz.mutations import ODD_TEXTS, bounded, fuzz, mutated
from tests.fuzz.synapse_documents import BUNDLE, HEADER, ROWS, VERSION, a_token

ENDLESS = [
    lambda number: {"page": [], "nextPageToken": "same"},
    lambda number: {"page": [HEADER], "nextPageToken": "same"},
    lambda number: {"page": [HEADER], "nextPageToken": str(number)},
    lambda number: {"page": [], "nextPageToken": str(number)},
    lambda number: {"page": [HEADER | {"id": f"syn{number}"}], "nextPageToken": str(number % 2)},
]


def asked_of(reply, call):
    """What a call raises when Synapse answers with reply(1), reply(2) …; and how often it asked."""
    count = 0

    def handle(request):
        nonlocal count
        count += 1
        assert count < 5000
        return httpx.Response(200, json=reply(count))

    async def run():
        transport = httpx.MockTransport(handle)
        async with SynapseClient(token=a_token, transport=transport) as client:
            await call(client.entities)

    with bounded(), pytest.raises((SynapseUnavailable, SynapseRefusal)) as caught:
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    return caught.value


@pytest.mark.parametrize("reply", ENDLESS)
def test_children_without_end_are_an_error(reply):
    error = asked_of(reply, lambda api: all_children(api, "syn1"))
    assert "do not come to an end" in error.sentence


@pytest.mark.parametrize("reply", ENDLESS)
def test_a_directory_without_end_is_an_error(reply):
    async def shown(api):
        index = EntityIndex(None)
        store = MemoryStore()
        folder = ChildHeader("syn1", "n", "Folder", 1, 0.0, 0.0, "", "")
        location = EntityLocation(
            api, index, folder, location_id=1, bucket="b", prefix="", store=store, metadata_ttl_s=1
        )
        listing = location.view.begin(location.root(), None)
        while not listing.complete:
            await location.view.next_page(listing)

    assert "do not come to an end" in asked_of(reply, shown).sentence


@pytest.mark.parametrize("limit", ["PAGES_MAX", "ENTRIES_MAX"])
def test_a_listing_of_ever_new_children_is_an_error(monkeypatch, limit):
    monkeypatch.setattr(f"stsfs.synapse.paging.{limit}", 100)

    def reply(number):
        return {"page": [HEADER | {"id": f"syn{number}"}], "nextPageToken": str(number)}

    asked_of(reply, lambda api: all_children(api, "syn1"))


@pytest.mark.parametrize("rows", [[], [{"values": ["1", "2"]}]])
@pytest.mark.parametrize("token", [lambda number: "same", str])
def test_rows_without_end_are_an_error(monkeypatch, rows, token):
    monkeypatch.setattr("stsfs.synapse.entities.ROWS_MAX", 50)

    def reply(number):
        page = {"queryResults": ROWS | {"rows": rows}, "nextPageToken": {"token": token(number)}}
        return {"token": "5", "queryResult": page, **page}

    asked_of(reply, lambda api: api.query("syn9", "SELECT 1"))


def test_wide_rows_without_end_are_an_error(monkeypatch):
    monkeypatch.setattr("stsfs.synapse.entities.ROWS_CHARS_MAX", 1000)
    rows = ROWS | {"rows": [{"values": ["x" * 100, None]}]}

    def reply(number):
        page = {"queryResults": rows, "nextPageToken": {"token": str(number)}}
        return {"token": "5", "queryResult": page, **page}

    asked_of(reply, lambda api: api.query("syn9", "SELECT 1"))


def test_versions_without_end_are_an_error(monkeypatch):
    monkeypatch.setattr("stsfs.entities.moment.VERSIONS_MAX", 200)
    header = ChildHeader("syn1", "n", "FileEntity", 3, 0.0, 9e9, "", "")
    new = {"results": [VERSION | {"modifiedOn": "2200-01-01T00:00:00Z"}] * 50}
    asked_of(lambda number: new, lambda api: PastMoment(api, 5.0).at([header]))


# Folders in which some of what Synapse says makes no sense.

GOOD = [HEADER | {"id": f"syn{n}", "name": f"good{n}"} for n in (101, 102, 103)]
LINK = HEADER | {"type": f"{MODEL}Link", "id": "syn50", "name": "link"}
ODD_CHILDREN = mutated(st.sampled_from([HEADER, LINK, HEADER | {"type": f"{MODEL}Folder"}]))


def shown_of(documents, *, as_of_unix_s=None):
    """A folder as the view shows it, first from pages and then from the index; and the index."""

    def handle(request):
        call = request.url.path.rpartition("/")[2]
        return httpx.Response(200, content=json.dumps(documents[call]).encode())

    async def run():
        transport = httpx.MockTransport(handle)
        async with SynapseClient(token=a_token, deadline_s=1.0, transport=transport) as client:
            folder = ChildHeader("syn1", "n", "Folder", 1, 0.0, 0.0, "", "")
            location = EntityLocation(
                client.entities, EntityIndex(None), folder, location_id=1, bucket="b", prefix="",
                store=MemoryStore(), metadata_ttl_s=60, as_of_unix_s=as_of_unix_s,
            )  # fmt: skip
            try:
                found = []
                for _ in range(2):
                    listing = location.view.begin(location.root(), None)
                    while not listing.complete:
                        await location.view.next_page(listing)
                    found.append(listing)
                return found
            finally:
                location.close()

    with bounded():
        return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@fuzz
@given(st.lists(ODD_CHILDREN, max_size=4), mutated(st.just(BUNDLE)), st.randoms())
def test_a_folder_shows_what_makes_sense_and_counts_the_rest(odd, bundle, random):
    page = [*odd, *GOOD]
    random.shuffle(page)
    text = json.dumps(page)
    assume("NaN" not in text)
    assume("Infinity" not in text)
    listings = shown_of({"children": {"page": page}, "bundle2": bundle})
    for listing in listings:
        names = [each.name for each in listing.entries]
        assert {b"good101", b"good102", b"good103"} <= set(names)
        assert len(set(names)) == len(names)
        assert len(names) + listing.hidden.count == len(listing.headers) or len(odd) > 1
        assert all(listing.hidden.reasons.values())
        for name in names:
            assert is_file_name(name)
    assert {each.name for each in listings[0].entries} == {
        each.name for each in listings[1].entries
    }
    assert listings[0].hidden.count == listings[1].hidden.count


@fuzz
@given(mutated(st.just([VERSION | {"versionNumber": n} for n in (3, 2, 1)])))
def test_a_file_whose_versions_make_no_sense_is_hidden_and_no_other(versions):
    assume("NaN" not in json.dumps(versions))
    assume("Infinity" not in json.dumps(versions))
    changed = HEADER | {"id": "syn50", "name": "changed", "modifiedOn": "2021-01-01T00:00:00Z"}
    documents = {"children": {"page": [*GOOD, changed]}, "version": {"results": versions}}
    for listing in shown_of(documents, as_of_unix_s=1_577_999_999.0):
        names = {each.name for each in listing.entries}
        assert {b"good101", b"good102", b"good103"} <= names
        assert len(names) + listing.hidden.count <= 4


# Where Synapse is.


@fuzz
@given(ODD_TEXTS | ODD_TEXTS.map(lambda text: f"https://{text}"))
@example("https://ho\nst")
@example("https://" + "a" * 64 + ".example")
@example("https://xn--a")
@example("http://[::1")
@example("http://h:99999")
@example("http://\ud800")
def test_an_endpoint_is_asked_or_refused(url):
    try:
        endpoints = Endpoints.single(url)
    except StsfsError:
        return

    async def run():
        reply = httpx.MockTransport(lambda _: httpx.Response(503))
        async with SynapseClient(
            endpoints, token=a_token, deadline_s=1.0, transport=reply
        ) as client:
            await client.user_profile()

    with bounded(), pytest.raises(StsfsError):
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "xn--a", "a..b", "*"])
def test_a_host_that_cannot_be_one_is_an_error_of_ours(host):
    async def run():
        async with SynapseClient(
            Endpoints.single(f"https://{host}"), token=a_token, deadline_s=0.05
        ) as client:
            await client.user_profile()

    with bounded(), pytest.raises((BadArgument, SynapseUnavailable)):
        trio.run(run)
