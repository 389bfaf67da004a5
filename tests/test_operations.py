"""Whatever a request runs into, the kernel gets one errno, and the mount goes on."""

import contextlib
import errno
import gc
import logging
import stat
import types

import pyfuse3
import pytest
import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.errors import AccessDenied
from stsfs.fuse.operations import Appearance, Operations
from stsfs.vfs.nodes import ROOT_INODE, Site
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.fakes import Fault, MemoryStore

DEADLINE_S = 60.0


class Caller:
    """What the kernel says of whoever asks."""

    pid = 4711


CALLER = Caller()


@pytest.fixture
def store():
    made = MemoryStore()
    made.put("x", b"0123456789")
    return made


@pytest.fixture
def refusals():
    return Refusals(lambda: 0.0)


@pytest.fixture
async def operations(store, refusals, nursery):
    tree = Tree(Site(1, store, ""), metadata_ttl_s=30)
    cache = BlockCache(BlockPool(budget_bytes=1 << 20, block_bytes=1 << 16), store)
    await nursery.start(cache.run)
    vfs = Vfs(tree, cache)
    return Operations(vfs, refusals, Appearance(7, 8, 0o027), deadline_s=DEADLINE_S)


def tracebacks():
    """All that are alive, whoever keeps them."""
    return [each for each in gc.get_objects() if isinstance(each, types.TracebackType)]


def errno_of(raised):
    return errno.errorcode[raised.value.errno]


async def opened(operations):
    entry = await operations.lookup(ROOT_INODE, b"x", CALLER)
    return (await operations.open(entry.st_ino, 0, CALLER)).fh


async def test_attributes_are_those_of_the_object(operations):
    entry = await operations.lookup(ROOT_INODE, b"x", CALLER)
    assert (entry.st_size, entry.st_blocks, entry.st_nlink) == (10, 1, 1)
    assert (entry.st_uid, entry.st_gid) == (7, 8)
    assert entry.st_mode == stat.S_IFREG | 0o440
    root = await operations.getattr(ROOT_INODE, CALLER)
    assert root.st_mode == stat.S_IFDIR | 0o550


async def test_an_absent_name_is_remembered_by_the_kernel(operations, autojump_clock):
    entry = await operations.lookup(ROOT_INODE, b"absent", CALLER)
    assert entry.st_ino == 0
    assert 0 < entry.entry_timeout <= 30


async def test_a_request_without_an_answer_ends_at_its_deadline(
    operations, store, refusals, autojump_clock
):
    store.script("list_page", Fault(delay_s=10 * DEADLINE_S))
    begun_s = trio.current_time()
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.lookup(ROOT_INODE, b"x", CALLER)
    assert errno_of(raised) == "ETIMEDOUT"
    assert trio.current_time() - begun_s == DEADLINE_S
    assert refusals.of_path("/x").errno_name == "ETIMEDOUT"


async def test_a_refusal_is_remembered_with_its_sentence_and_remedy(operations, store, refusals):
    handle = await opened(operations)
    store.put("y", b"1")
    store.script("confirm", Fault(AccessDenied("The policy says no.", remedy="Ask the owner.")))
    store.script("read_range", Fault(AccessDenied("The policy says no.", remedy="Ask the owner.")))
    entry = await operations.lookup(ROOT_INODE, b"x", CALLER)
    store.put("x", b"9876543210")
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.open(entry.st_ino, 0, CALLER)
    assert errno_of(raised) == "EACCES"
    last = refusals.last(1)[0]
    assert (last.path, last.operation) == ("/x", "open")
    assert (last.sentence, last.remedy) == ("The policy says no.", "Ask the owner.")
    await operations.release(handle)


async def test_a_bug_is_eio_and_critical_and_the_next_request_works(operations, store, caplog):
    store.script("list_page", Fault(KeyError("surprise")))
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.lookup(ROOT_INODE, b"x", CALLER)
    assert errno_of(raised) == "EIO"
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    assert "surprise" in caplog.text
    assert (await operations.lookup(ROOT_INODE, b"x", CALLER)).st_size == 10


async def test_an_ordinary_enoent_is_not_remembered(operations, refusals):
    await operations.lookup(ROOT_INODE, b"absent", CALLER)
    assert refusals.last(10) == []


async def test_a_request_is_answered_although_the_loop_that_read_it_ends(
    operations, store, autojump_clock
):
    store.script("list_page", Fault(delay_s=5))
    answers = []

    async def ask():
        answers.append(await operations.lookup(ROOT_INODE, b"x", CALLER))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert answers[0].st_size == 10


async def test_the_end_of_the_mount_answers_what_is_under_way(operations, store, autojump_clock):
    store.script("list_page", Fault(delay_s=50))
    errnos = []

    async def ask():
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await operations.lookup(ROOT_INODE, b"x", CALLER)
        errnos.append(errno_of(raised))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        operations.cut_short()
    assert errnos == ["ENOTCONN"]
    assert operations.under_way == set()


async def test_bytes_come_as_a_view_of_the_cache(operations):
    handle = await opened(operations)
    view = await operations.read(handle, 2, 100)
    assert isinstance(view, memoryview)
    assert bytes(view) == b"23456789"
    assert bytes(await operations.read(handle, 10, 5)) == b""
    await operations.release(handle)


async def test_a_failed_request_leaves_no_frames_to_the_garbage_collector(operations, store):
    entry = await operations.lookup(ROOT_INODE, b"x", CALLER)
    store.script("read_range", *[Fault(AccessDenied("no"))] * 5)
    gc.collect()
    gc.disable()
    try:
        before = tracebacks()
        for _ in range(5):
            with contextlib.suppress(pyfuse3.FUSEError):
                await operations.open(entry.st_ino, 0, CALLER)
        known = set(map(id, before))
        assert [each for each in tracebacks() if id(each) not in known] == []
    finally:
        gc.enable()
    assert store.scripts["read_range"] == []


async def test_a_bug_of_a_request_is_counted(operations, store, bugs):
    store.script("list_page", Fault(KeyError("surprise")))
    with pytest.raises(pyfuse3.FUSEError):
        await operations.lookup(ROOT_INODE, b"x", CALLER)
    assert [each.task for each in bugs.latest] == ["lookup /x"]


async def test_requests_that_cannot_be_refused_end_without_an_error(operations, bugs):
    entry = await operations.lookup(ROOT_INODE, b"x", CALLER)
    await operations.forget([(entry.st_ino, 5), (ROOT_INODE, 1)])
    await operations.release(4711)
    await operations.releasedir(4711)
    await operations.flush(4711)
    tasks = [each.task.rpartition(" ")[2] for each in bugs.latest]
    assert tasks == ["forget", "release", "releasedir"]


async def test_a_bug_while_a_request_is_refused_is_eio(operations, refusals, bugs, monkeypatch):
    monkeypatch.setattr(refusals, "note", None)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.read(4711, 0, 1)
    assert errno_of(raised) == "EIO"
    assert bugs.count == 2


async def test_a_directory_is_not_opened_as_a_file(operations, bugs):
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.open(ROOT_INODE, 0, CALLER)
    assert errno_of(raised) == "EISDIR"
    assert bugs.count == 0
