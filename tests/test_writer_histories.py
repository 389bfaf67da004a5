"""Random histories of one staged file, with faults and another client, against plain bytes."""

import os
import tempfile
from pathlib import Path
from unittest import mock

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stsfs.errors import StaleVersion, StoreFailure, StsfsError, WriteConflict
from stsfs.staging.directory import StagingDirectory
from stsfs.writer import local_disk
from tests.fakes import Fault, MemoryStore, pattern
from tests.writer_stage import check_state, on_stage, released, small_parts

HISTORIES = int(os.environ.get("STSFS_HISTORIES", "300"))
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
PART = 16
SIZE_MAX = 30 * PART

offsets = st.one_of(st.integers(0, 3 * PART), st.integers(0, SIZE_MAX))
lengths = st.one_of(st.integers(1, 9), st.integers(1, 6 * PART))
failing = st.sampled_from(
    ["put", "upload_part", "copy_part", "complete_upload", "abort_upload", "written", "traits",
     "read_range", "begin_upload"]
)  # fmt: skip
steps = st.one_of(
    st.tuples(st.just("write"), offsets, lengths),
    st.tuples(st.just("write"), offsets, lengths),
    st.tuples(st.just("stream"), lengths, st.integers(1, 12)),
    st.tuples(st.just("truncate"), offsets),
    st.tuples(st.just("read"), offsets, lengths),
    st.tuples(st.just("keep")),
    st.tuples(st.just("publish")),
    st.tuples(st.just("publish")),
    st.tuples(st.just("publish while writing"), offsets, lengths, st.integers(1, 5)),
    st.tuples(st.just("close and open")),
    st.tuples(st.just("rest")),
    st.tuples(st.just("theirs")),
    st.tuples(st.just("fault"), failing, st.booleans()),
    st.tuples(st.just("fault"), failing, st.booleans()),
)


class History:
    """One file, what is in it, and what may be in S3."""

    def __init__(self, stage, base, *, is_short):
        self.stage, self.store = stage, stage.store
        self.is_short = is_short
        """Bytes that only an upload has may be needed: then any state may be published."""

        self.seed = 0
        self.theirs = None
        """What another client has put there since we knew what is there."""

        self.is_over = False
        self.in_s3 = {base}
        """What may be there; None: nothing."""

        self.ever = {base or b""}
        """Every content that the file has had."""

        self.data = bytearray(base or b"")
        if base is None:
            self.file = stage.new()
        else:
            self.file = stage.over(self.store.put("base/a", base))

    def fresh(self, size):
        self.seed += 1
        return pattern(self.seed, size)

    async def play(self, step):
        await getattr(self, "_" + step[0].replace(" ", "_"))(*step[1:])
        check_state(self.file)
        self.ever.add(bytes(self.data))
        if not self.is_over:
            allowed = self.in_s3 | self.ever if self.is_short else self.in_s3
            assert self.stage.data() in allowed or self.stage.data() == self.theirs

    async def _write(self, offset, length):
        piece = self.fresh(length)
        if not await self._changed(self.file.write, offset, piece):
            return
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset : offset + length] = piece
        self.ever.add(bytes(self.data))

    async def _changed(self, change, *args):
        """Whether a change was made: bytes that only an upload has may have been needed for it."""
        try:
            await change(*args)
        except WriteConflict:
            assert self.is_short
            assert self.theirs is not None
            self.is_over = True
        except StoreFailure:
            assert self.is_short
        else:
            return True
        return False

    async def _stream(self, length, count):
        for _ in range(count):
            if len(self.data) < SIZE_MAX:
                await self._write(len(self.data), length)

    async def _truncate(self, size):
        if await self._changed(self.file.truncate, size):
            self.data = self.data[:size] + bytes(max(0, size - len(self.data)))

    async def _read(self, offset, length):
        try:
            found = await self.file.read(offset, length)
        except StaleVersion:
            assert self.theirs is not None
            return
        except StoreFailure:
            return
        assert bytes(found) == bytes(self.data[offset : offset + length])

    async def _keep(self):
        await self.file.keep()

    async def _publish(self):
        await self._published([bytes(self.data)])

    async def _publish_while_writing(self, offset, length, count):
        states = [bytes(self.data)]
        methods = ("put", "upload_part", "copy_part", "complete_upload")
        for method in methods:
            self.store.script(method, *[Fault(delay_s=0.0005)] * 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._published, states)
            for number in range(count):
                await trio.sleep(0.0003)
                piece = self.fresh(length)
                at = (offset + number * 7) % SIZE_MAX
                before = bytes(self.data)
                self.data.extend(bytes(max(0, at - len(self.data))))
                self.data[at : at + length] = piece
                states.append(bytes(self.data))
                self.ever.add(bytes(self.data))
                if not await self._changed(self.file.write, at, piece):
                    self.data = bytearray(before)
                    states.append(before)

    async def _published(self, states):
        was_dirty = self.file.dirty
        try:
            await self.file.publish()
        except WriteConflict:
            assert self.theirs is not None
            assert self.stage.data() == (self.theirs or None)
            self.is_over = True
        except StsfsError:
            self.in_s3 |= set(states)
        else:
            if was_dirty:
                assert self.theirs is None
                assert self.stage.data() in states
                self.in_s3 = {self.stage.data()}

    async def _close_and_open(self):
        await self._publish()
        if self.is_over:
            return
        closed = await released(self.file)
        assert closed == (not self.file.dirty)
        if closed:
            assert self.stage.left_on_disk() == []
            self.file = self.stage.over(self.file.version)
        self.file.open_handles = self.file.writable_handles = 1

    async def _rest(self):
        await trio.testing.wait_all_tasks_blocked(0.001)

    async def _theirs(self):
        if self.seed % 2:
            self.store.delete("base/a")
            self.in_s3 |= {None}
            # Where we expect nothing, nothing is what there is.
            self.theirs = None if self.file.version is None else b""
        else:
            self.theirs = b"theirs" + self.fresh(5 * PART)
            self.store.put("base/a", self.theirs)

    async def _fault(self, method, happened):
        happened = happened and method not in ("begin_upload", "read_range")
        self.store.script(method, Fault(StoreFailure("503"), happened=happened))

    async def end(self):
        """The trouble is over, and the file is closed."""
        self.store.scripts.clear()
        await self._publish()
        await released(self.file)
        if self.is_over:
            assert self.stage.left_on_disk() == [".data", ".json"]
        else:
            assert self.theirs is not None or self.stage.data() == bytes(self.data)
            assert self.stage.left_on_disk() == []
        await self.stage.writers.drain()
        assert self.store.writer.uploads == {} or (self.is_over and self.is_short)
        assert self.stage.writers.files() == []


@settings(
    max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
@given(
    base=st.one_of(st.none(), st.integers(0, SIZE_MAX)),
    history=st.lists(steps, max_size=25),
    in_threads=st.booleans(),
    is_short=st.booleans(),
)
async def test_s3_has_what_was_written_or_what_another_client_wrote(
    base, history, in_threads, is_short
):
    store = MemoryStore()
    base = None if base is None else pattern("base", base)
    # Nothing here survives the machine, so it need not wait for its disk.
    quick_bytes_max = -1 if in_threads else local_disk.QUICK_BYTES_MAX
    with (
        tempfile.TemporaryDirectory(dir=IN_MEMORY) as name,
        small_parts(store, part_bytes=PART),
        mock.patch.object(local_disk, "QUICK_BYTES_MAX", quick_bytes_max),
        mock.patch.object(StagingDirectory, "is_short_of_room", return_value=is_short),
    ):
        async with on_stage(Path(name) / "staging", store) as stage:
            told = History(stage, base, is_short=is_short)
            for step in history:
                if told.is_over:
                    break
                await told.play(step)
            await told.end()
