"""What is asked of Synapse, in which order, and what errors of one file do to all the others."""

from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stsfs.entities.bulk import COLUMNS, EntityViewSource
from stsfs.entities.filler import AHEAD_FILES, CRAWL_PAUSE_S, REFUSAL_BELIEVED_S, Filler
from stsfs.entities.records import FileRecord, key_of
from stsfs.errors import EntityNotFound, SynapseRefusal, SynapseUnavailable
from stsfs.synapse.pace import Pace
from stsfs.synapse.records import TableRows
from tests.entities_fakes import BUCKET, PREFIX, DirectIndex, FakeApi, Shown, wall_clock
from tests.fakes import Fault, MemoryStore


@pytest.fixture
def clock(autojump_clock, monkeypatch):
    wall_clock(monkeypatch, autojump_clock)
    return autojump_clock


@pytest.fixture
def api():
    return FakeApi(MemoryStore())


@pytest.fixture
def index():
    return DirectIndex(None)


@pytest.fixture
def filler(api, index):
    return Filler(api, index)


def files(api, count, parent_id=None):
    parent_id = parent_id or api.root_id
    return [api.header(api.file(parent_id, f"f{number:03d}", b"x")) for number in range(count)]


async def begin(api, filler):
    """As a mount does when somebody has listed its root."""
    await filler.index.ask(filler.index.save_listed, api.root_id, "/", [])
    headers = [each.header for each in api.entities.values() if each.parent_id == api.root_id]
    await filler.index.ask(filler.index.save_listed, api.root_id, "/", headers)
    filler.more()


async def test_several_who_want_one_file_share_one_request(api, filler, clock):
    (header,) = files(api, 1)
    api.delay_s = 1
    found = []

    async def want():
        found.append(await filler.want(header))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(want)
    assert api.calls == {"bundle": 1}
    assert len({each.object_key for each in found}) == 1


async def test_who_waits_does_not_wait_for_the_background(api, filler, clock):
    (header,) = files(api, 1)
    api.script("bundle", Fault(delay_s=1000))
    async with trio.open_nursery() as nursery:

        async def slowly():
            await filler.want(header, background=True)

        nursery.start_soon(slowly)
        await wait_all_tasks_blocked()
        with trio.fail_after(1):
            await filler.want(header)
    assert (await filler.want(header)).size_bytes == 1
    assert api.calls == {"bundle": 2}


async def test_when_the_one_who_asks_is_cancelled_the_next_one_asks(api, filler, clock):
    (header,) = files(api, 1)
    api.script("bundle", Fault(delay_s=10))
    found = []

    async def follow():
        found.append(await filler.want(header))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(follow)
            await filler.want(header)
    assert found[0].size_bytes == 1


async def test_a_failure_is_shared_for_a_moment_and_keeps_no_frame_alive(api, filler, clock):
    (header,) = files(api, 1)
    api.script("bundle", Fault(SynapseUnavailable("down", remedy="Wait.")))
    errors = []
    for _ in range(3):
        with pytest.raises(SynapseUnavailable) as caught:
            await filler.want(header)
        errors.append(caught.value)
    assert api.calls == {"bundle": 1}
    assert len({id(each) for each in errors}) == 3
    assert {each.remedy for each in errors} == {"Wait."}
    await trio.sleep(6)
    assert (await filler.want(header)).size_bytes == 1


async def test_who_reads_a_folder_in_order_finds_the_next_files_asked_for(api, clock, nursery):
    files(api, 200)
    shown = Shown(api, api.store)
    await shown.names()
    api.delay_s = 0.1
    for _ in range(2):
        nursery.start_soon(shown.filler._fetch_ahead)
    await wait_all_tasks_blocked()
    await shown.stat("f000")
    await trio.sleep(30)
    asked = [entity_id for method, entity_id, _ in api.log if method == "bundle"]
    assert len(asked) == 1 + AHEAD_FILES
    for number in range(1, 20):  # two at a time, so nearly in order
        entity_id = (await shown.find(f"f{number:03d}")).listed_id
        assert abs(asked.index(entity_id) - number) <= 2


async def test_two_files_at_a_time_are_asked_for_ahead_also_the_second_time(
    api, filler, clock, nursery
):
    headers = files(api, 40)
    api.delay_s = 1
    await nursery.start(filler.run)
    await wait_all_tasks_blocked()
    for some in (headers[:20], headers[20:]):
        began_s = trio.current_time()
        filler.ahead(some)
        while not all(filler.known(key_of(each)) for each in some):
            await trio.sleep(0.5)
        assert trio.current_time() - began_s <= 11
    assert {background for _, _, background in api.log} == {False}


async def test_what_is_to_be_asked_ahead_is_limited(api, filler, clock, monkeypatch):
    monkeypatch.setattr("stsfs.entities.filler.AHEAD_MAX", 10)
    headers = files(api, 60)
    filler.ahead(headers[:30])
    filler.ahead(headers[30:])
    assert len(filler._ahead) == 10
    assert list(filler._ahead.values())[-1] == headers[-1]


async def test_the_background_lists_all_folders_and_then_asks_about_all_files(
    api, filler, clock, nursery
):
    folders = [api.folder(api.root_id, f"d{number}") for number in range(3)]
    folders.append(api.folder(folders[0], "below"))
    for folder_id in folders:
        files(api, 5, folder_id)
    await nursery.start(filler.run)
    await begin(api, filler)
    await trio.sleep(10)
    assert filler.is_complete
    methods = [method for method, _, background in api.log if background]
    assert methods == ["children"] * 4 + ["bundle"] * 20
    extent = await filler.index.ask(filler.index.extent)
    assert (extent.folders_listed, extent.files_known) == (5, 20)
    late = api.folder(api.root_id, "late")
    files(api, 2, late)
    await begin(api, filler)
    assert not filler.is_complete
    await trio.sleep(10)
    assert filler.is_complete
    assert api.background_ids().count(late) == 1


async def test_refusals_do_not_stop_the_background(api, filler, clock, nursery):
    headers = files(api, 10)
    closed, gone = api.folder(api.root_id, "closed"), api.folder(api.root_id, "gone")
    await begin(api, filler)
    api.invisible |= {closed, headers[0].entity_id}
    api.denied.add(headers[1].entity_id)
    api.delete(gone)
    api.delete(headers[2].entity_id)
    await nursery.start(filler.run)
    await trio.sleep(10)
    assert filler.is_complete
    assert filler.last_error == ""
    found = await filler.remembered(headers)
    assert sum(bool(each.unreadable) for each in found.values()) == 3
    calls = api.calls.total()
    await trio.sleep(1000)
    assert api.calls.total() == calls


async def test_an_outage_pauses_the_background_and_it_goes_on(api, filler, clock, nursery):
    headers = files(api, 10)
    await begin(api, filler)
    api.script("bundle", *[Fault(SynapseUnavailable("down"))] * 4)
    await nursery.start(filler.run)
    await trio.sleep(1)
    assert "down" in filler.last_error
    calls = api.calls.total()
    await trio.sleep(CRAWL_PAUSE_S - 2)
    assert api.calls.total() == calls
    await trio.sleep(5 * CRAWL_PAUSE_S)
    assert filler.is_complete
    assert filler.last_error == ""
    assert len(await filler.remembered(headers)) == 10


@pytest.mark.parametrize("error", [SynapseUnavailable("not understood"), RuntimeError("a bug")])
async def test_a_file_and_a_folder_that_always_fail_cost_the_others_nothing(
    api, filler, clock, nursery, caplog, error
):
    folders = [api.folder(api.root_id, f"d{number}") for number in range(3)]
    headers = [each for folder_id in folders for each in files(api, 50, folder_id)]
    bad = [headers[0].entity_id, folders[1]]
    api.broken = dict.fromkeys(bad, error)
    await nursery.start(filler.run)
    await begin(api, filler)
    await trio.sleep(20 * CRAWL_PAUSE_S)
    known = await filler.remembered(headers)
    assert len(known) == 99
    assert api.calls.total() < 300
    is_bug = isinstance(error, RuntimeError)
    assert sum(each.levelname == "CRITICAL" for each in caplog.records) == 2 * is_bug
    api.broken = {}
    await trio.sleep(20 * CRAWL_PAUSE_S)
    assert len(await filler.remembered(headers)) == (99 if is_bug else 150)


async def test_a_bug_met_while_asking_ahead_does_not_end_that(api, filler, clock, nursery, caplog):
    headers = files(api, 10)
    api.broken = {headers[number].entity_id: RuntimeError("a bug") for number in (0, 1, 2)}
    await nursery.start(filler.run)
    filler.ahead(headers)
    await trio.sleep(1)
    assert sum(filler.known(key_of(each)) is not None for each in headers) == 7
    assert {each.levelname for each in caplog.records} == {"CRITICAL"}


async def test_a_file_that_may_not_be_read_has_its_size_and_is_asked_for_again(api, filler, clock):
    (header,) = files(api, 1)
    api.denied.add(header.entity_id)
    refused = await filler.want(header)
    assert (refused.size_bytes, bool(refused.unreadable)) == (1, True)
    api.denied.clear()
    await trio.sleep(REFUSAL_BELIEVED_S - 1)
    assert (await filler.want(header)).unreadable
    await trio.sleep(2)
    assert (await filler.want(header)).unreadable == ""
    assert api.calls == {"bundle": 2, "versions": 1}


async def test_a_refusal_of_an_earlier_mount_is_not_believed(api, index, filler, clock):
    (header,) = files(api, 1)
    index.save_files([FileRecord(key_of(header), unreadable="no")])
    assert (await filler.want(header)).unreadable == ""


def rows(headers, **changes):
    cells = {"dataFileHandleId": "h", "dataFileBucket": BUCKET, "dataFileSizeBytes": "1"} | changes
    return TableRows(
        COLUMNS,
        tuple(
            tuple(
                {
                    "id": each.entity_id,
                    "currentVersion": str(each.version),
                    "modifiedOn": str(round(each.modified_unix_s * 1000)),
                    "dataFileKey": f"{PREFIX}{each.name}",
                    **cells,
                }.get(column)
                for column in COLUMNS
            )
            for each in headers
        ),
    )


async def test_a_view_tells_of_many_files_at_once(api, index, clock, nursery):
    headers = files(api, 100)
    api.rows = rows(headers[:98])
    source = EntityViewSource(api, index, "syn900")
    filler = Filler(api, index, in_bulk=source.fill)
    await begin(api, filler)
    await nursery.start(filler.run)
    await trio.sleep(10)
    assert filler.is_complete
    assert api.calls == {"query": 1, "bundle": 2}
    assert source.files_told == 98
    assert (await filler.want(headers[0])).object_key == f"{PREFIX}f000"


@pytest.mark.parametrize("trouble", ["refused", "odd"])
async def test_a_view_that_is_of_no_use_is_asked_once(api, index, clock, nursery, trouble):
    headers = files(api, 30)
    if trouble == "refused":
        api.script("query", Fault(SynapseRefusal("no such column")))
    api.rows = rows(headers, dataFileSizeBytes="many")
    source = EntityViewSource(api, index, "syn900")
    filler = Filler(api, index, in_bulk=source.fill)
    await begin(api, filler)
    await nursery.start(filler.run)
    await trio.sleep(1000)
    assert filler.is_complete
    assert source.trouble
    assert api.calls == {"query": 1, "bundle": 30}


async def test_one_row_of_a_view_that_makes_no_sense_costs_nobody_the_others(
    api, index, clock, nursery
):
    headers = files(api, 30)
    told = rows(headers)
    odd = list(told.rows[0])
    odd[COLUMNS.index("dataFileSizeBytes")] = "-5"
    api.rows = replace(told, rows=(tuple(odd), *told.rows[1:]))
    source = EntityViewSource(api, index, "syn900")
    filler = Filler(api, index, in_bulk=source.fill)
    await begin(api, filler)
    await nursery.start(filler.run)
    await trio.sleep(10)
    assert (source.files_told, source.left_out[:13]) == (29, "1 of its rows")
    assert api.calls == {"query": 1, "bundle": 1}


async def test_an_absent_file_is_an_error_for_who_wants_it(api, filler, clock):
    (header,) = files(api, 1)
    api.delete(header.entity_id)
    with pytest.raises(EntityNotFound):
        await filler.want(header)


async def test_twenty_thousand_files_are_filled_at_the_pace_allowed_and_nobody_waits_for_that(
    clock, nursery
):
    api = FakeApi(MemoryStore(), pace=Pace(), delay_s=0.1)
    for number in range(200):
        files(api, 100, api.folder(api.root_id, f"d{number}"))
    headers = [each.header for each in api.entities.values() if each.header.kind == "FileEntity"]
    filler = Filler(api, DirectIndex(None))
    await nursery.start(filler.run)
    await begin(api, filler)
    began_s = trio.current_time()
    await trio.sleep(600)
    for header in headers[-5:]:
        asked_s = trio.current_time()
        await filler.want(header)
        assert trio.current_time() - asked_s < 1
        await trio.sleep(10)
    while not filler.is_complete:
        await trio.sleep(10)
    minutes = (trio.current_time() - began_s) / 60
    requests = api.calls.total()
    assert requests == 20_000 + 2 * 200
    assert minutes < requests / 540 * 1.05
