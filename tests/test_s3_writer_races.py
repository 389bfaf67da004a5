"""Two writers of one object, on servers that look for them and on servers that do not."""

import pytest
import trio

from stsfs.demo.file_server.answers import EVERY_CONDITION, Habits
from stsfs.errors import StaleVersion, WriteConflict
from stsfs.staging.directory import StagingDirectory
from stsfs.store import retry
from stsfs.store.object_store import Expected, ObjectVersion, Traits
from stsfs.store.probing import probe_capabilities
from stsfs.store.s3_writer import RECHECK_S_MAX, RECHECK_S_MIN
from stsfs.writer import moves
from stsfs.writer.moves import Mover
from stsfs.writer.wire import LocationName
from tests.fakes import BytesBody, read_all
from tests.s3_place import Place

ACL = "bucket-owner-full-control"
KEY = "base/log"
LINES = 20
NOTHING = Traits()


@pytest.fixture(params=["with conditions", "without conditions"])
def server(request, tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.01)
    ignored = frozenset() if request.param == "with conditions" else EVERY_CONDITION
    options = {"habits": Habits(ignored), "part_bytes_min": 1}
    with Place(tmp_path / "s3", permission="read_write", **options) as place:
        place.stores = []
        yield place
        for store in place.stores:
            store.close()


async def client(place):
    """A store and a writer of it that has found out what the server does."""
    place.stores.append(place.store())
    writer = place.stores[-1].writer(acl=ACL, conditions=False)
    await probe_capabilities(writer, "base/")
    return place.stores[-1], writer


class Appender:
    """Reads what is there, adds a line, and writes it back; `kept` are the lines it was told of."""

    def __init__(self, name, store, writer, how):
        self.name, self._store, self._writer, self._how = name, store, writer, how
        writer._pause_since = self.pause
        self.kept, self.refused = [], 0
        self.other, self.outside = None, trio.Event()

    async def run(self):
        for number in range(LINES):
            line = b"%s %d\n" % (self.name, number)
            while True:
                self.outside = trio.Event()
                try:
                    await self._append(line)
                except WriteConflict:
                    self.refused += 1
                else:
                    self.kept.append(line)
                    break
                finally:
                    self.outside.set()

    async def pause(self, change):
        """Until the other is not between its look and its change: what the real pause aims at."""
        self.outside.set()
        await self.other.outside.wait()

    async def _append(self, line):
        found = (await self._store.list_page(KEY)).objects
        expected, data = Expected(None), b""
        if found:
            version = ObjectVersion(1, KEY, found[0].etag, found[0].size_bytes)
            expected = Expected(version.etag)
            try:
                data = await read_all(self._store, version)
            except StaleVersion as exc:  # replaced since it was listed
                raise WriteConflict("replaced") from exc
        write_id = line.decode().strip().replace(" ", "-") + f"-{self.refused}"
        body = BytesBody(data + line)
        if self._how == "put":
            await self._writer.put(KEY, body, NOTHING, expected=expected, write_id=write_id)
            return
        upload_id = await self._writer.begin_upload(KEY, NOTHING, write_id=write_id)
        part = await self._writer.upload_part(KEY, upload_id, 1, body)
        try:
            await self._writer.complete_upload(
                KEY, upload_id, [part], expected=expected, write_id=write_id
            )
        except WriteConflict:
            await self._writer.abort_upload(KEY, upload_id)
            raise


@pytest.mark.parametrize("how", ["put", "upload"])
async def test_each_line_that_two_writers_were_told_of_is_there(server, how):
    writers = [Appender(name, *await client(server), how) for name in (b"a", b"b")]
    for each, other in (writers, reversed(writers)):
        each.other = other
        each.outside.set()
    async with trio.open_nursery() as nursery:
        for each in writers:
            nursery.start_soon(each.run)
    there = (server.folder / "log").read_bytes().splitlines(keepends=True)
    told = [line for each in writers for line in each.kept]
    assert len(told) == 2 * LINES
    assert [line for line in told if line not in there] == []
    assert sum(each.refused for each in writers) > 0


@pytest.fixture
def careless(tmp_path):
    """A store of a server that ignores conditions, with two writers that make no pauses."""

    async def no_pause(_):
        await trio.lowlevel.checkpoint()

    with Place(tmp_path / "s3", permission="read_write", habits=Habits(EVERY_CONDITION)) as place:
        store = place.store()
        writers = [store.writer(acl=ACL, conditions=False) for _ in range(2)]
        for each in writers:
            each._pause_since = no_pause
        yield store, *writers
        store.close()


async def put(writer, key, data, expected):
    etag = await writer.put(
        key, BytesBody(data), NOTHING, expected=expected, write_id=data.decode()
    )
    return ObjectVersion(1, key, etag, len(data))


async def test_a_change_that_one_replaces_who_had_not_seen_it_is_a_conflict(careless):
    _, ours, theirs = careless

    async def meanwhile(_):
        await put(theirs, KEY, b"theirs", None)

    ours._pause_since = meanwhile
    with pytest.raises(WriteConflict, match="overwritten by another client at the same moment"):
        await put(ours, KEY, b"ours", Expected(None))


async def test_a_change_that_others_have_seen_and_gone_on_from_is_none(careless):
    store, ours, theirs = careless

    async def meanwhile(_):
        for data in (b"theirs", b"theirs-again"):
            listed = (await store.list_page(KEY)).objects[0]
            await put(theirs, KEY, data, Expected(listed.etag))

    ours._pause_since = meanwhile
    made = await put(ours, KEY, b"ours", Expected(None))
    assert made.etag != (await store.list_page(KEY)).objects[0].etag
    told = await ours.traits(await version(store, KEY))
    assert told == Traits({}, told.content_type, "")


async def version(store, key):
    listed = (await store.list_page(key)).objects[0]
    return ObjectVersion(1, key, listed.etag, listed.size_bytes)


async def test_a_copy_that_is_replaced_at_the_same_moment_is_a_conflict(careless):
    _, ours, theirs = careless
    source = await put(ours, "base/source", b"copied", None)

    async def meanwhile(_):
        await put(theirs, KEY, b"theirs", None)

    ours._pause_since = meanwhile
    with pytest.raises(WriteConflict, match="another client"):
        await ours.copy(source, KEY, expected=Expected(None))


TREE_FILES = 20


@pytest.fixture
async def tree(careless, tmp_path):
    """A directory of files on a server without conditions, and what moves it."""
    store, ours, theirs = careless
    for number in range(TREE_FILES):
        await put(ours, f"base/a/{number:02}", b"%d" % number, None)
    objects = (await store.list_page("base/a/", delimiter="")).objects
    staging = StagingDirectory.open(tmp_path / "staging")
    mover = Mover(LocationName(1, "s3://lab/base", None, "lab"), store, ours, staging)

    async def move():
        names = {"path": "a", "target_path": "b"}
        return await mover.move_tree(objects, "base/a/", "base/b/", **names)

    yield move, store, ours, theirs
    staging.close()


async def keys_of(store):
    return [each.key for each in (await store.list_page("base/", delimiter="")).objects]


async def test_copies_of_a_tree_are_looked_at_together_once_the_last_is_made(tree, monkeypatch):
    move, store, ours, _ = tree
    pauses, sleep = [], trio.sleep

    async def noted(seconds):
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(moves.trio, "sleep", noted)
    ours._pause_since = None  # nobody waits for a single copy
    counted = store.counters.of("list")
    before = counted.requests
    moved = await move()
    assert list(moved) == await keys_of(store)
    assert [RECHECK_S_MIN <= each <= RECHECK_S_MAX for each in pauses] == [True]
    # Of each file: the target and the source before the copy, the source after it and before it
    # is removed. Then the targets together, and the listing of this test.
    assert counted.requests - before == 4 * TREE_FILES + 2


async def test_a_copy_that_is_replaced_while_the_others_are_made_is_a_conflict(tree, monkeypatch):
    move, store, _, theirs = tree
    sources = await keys_of(store)

    async def meanwhile(_):
        await put(theirs, "base/b/07", b"theirs", None)

    monkeypatch.setattr(moves.trio, "sleep", meanwhile)
    with pytest.raises(WriteConflict, match="'base/b/07' was changed by another client"):
        await move()
    assert await keys_of(store) == [*sources, "base/b/07"]
    assert await read_all(store, await version(store, "base/b/07")) == b"theirs"
