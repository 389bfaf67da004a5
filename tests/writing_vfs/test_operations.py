"""Requests of the kernel that change something: what they answer, and what is remembered."""

import errno
import os
import stat
import types

import pyfuse3
import pytest
import trio

from stsfs import supervisor
from stsfs.errors import AccessDenied, StoreFailure
from stsfs.fuse.operations import Appearance
from stsfs.fuse.write_operations import OPENING_S, WriteOperations
from stsfs.fuse.xattrs import Origin, Xattrs
from stsfs.vfs.inspector import Inspector
from stsfs.vfs.nodes import ROOT_INODE
from stsfs.vfs.refusals import Refusals
from tests.fakes import Fault, pattern
from tests.writing_vfs.machine import WRITE, until

DATA = pattern("data", 100_000)
CALLER = types.SimpleNamespace(pid=4711)
APPEARANCE = Appearance(7, 8, 0o022)
DEADLINE_S = 60.0


@pytest.fixture
def refusals():
    return Refusals(lambda: 0.0)


@pytest.fixture
async def operations(mount, refusals, nursery):
    made = WriteOperations(mount.vfs, refusals, APPEARANCE, deadline_s=DEADLINE_S)
    await nursery.start(made.run)
    return made


def errno_of(raised):
    return errno.errorcode[raised.value.errno]


def fields(*names):
    """SetattrFields, which pyfuse3 lets nobody else set."""
    every = ("atime", "mtime", "ctime", "mode", "uid", "gid", "size")
    return types.SimpleNamespace(**{f"update_{name}": name in names for name in every})


def attributes(**values):
    entry = pyfuse3.EntryAttributes()
    for name, value in values.items():
        setattr(entry, f"st_{name}", value)
    return entry


async def create(operations, name=b"f", mode=0o100644, flags=WRITE):
    info, entry = await operations.create(ROOT_INODE, name, mode, flags, CALLER)
    return info.fh, entry


async def release(operations, handle):
    """The end of a handle, and of what it publishes."""
    await operations.release(handle)
    await trio.testing.wait_all_tasks_blocked()
    await operations.until_ended()


async def test_a_file_is_made_written_and_closed(operations, store):
    handle, entry = await create(operations)
    assert (entry.st_size, entry.attr_timeout, entry.entry_timeout) == (0, OPENING_S, 0)
    assert entry.st_mode == stat.S_IFREG | 0o644
    assert await operations.write(handle, 0, DATA) == len(DATA)
    written = await operations.getattr(entry.st_ino, CALLER)
    assert written.attr_timeout == 0
    assert (written.st_size, written.st_blocks) == (len(DATA), 196)
    await operations.flush(handle)
    assert store.objects["f"].data == DATA
    await release(operations, handle)
    closed = await operations.getattr(entry.st_ino, CALLER)
    assert closed.attr_timeout > 0
    assert closed.st_mtime_ns == written.st_mtime_ns


async def test_files_and_directories_may_be_written_by_their_owner(operations, store):
    store.put("f", DATA)
    store.put("d/x", DATA)
    file = await operations.lookup(ROOT_INODE, b"f", CALLER)
    directory = await operations.lookup(ROOT_INODE, b"d", CALLER)
    assert file.st_mode == stat.S_IFREG | 0o644
    assert directory.st_mode == stat.S_IFDIR | 0o755


async def test_an_unusual_mode_is_shown_and_the_usual_one_is_not_kept(operations, mount):
    _, entry = await create(operations, b"script", 0o100755)
    assert entry.st_mode == stat.S_IFREG | 0o755
    await create(operations, b"plain", 0o100644)
    assert (await mount.walk("plain")).mode is None
    made = await operations.mkdir(ROOT_INODE, b"d", 0o700, CALLER)
    assert made.st_mode == stat.S_IFDIR | 0o700


async def test_attributes_are_set_and_answered(operations):
    handle, entry = await create(operations)
    await operations.write(handle, 0, DATA)
    wanted = attributes(size=10, mode=0o100600, mtime_ns=5, uid=7, gid=8)
    answered = await operations.setattr(
        entry.st_ino, wanted, fields("size", "mode", "mtime", "uid", "gid"), handle, CALLER
    )
    assert (answered.st_size, answered.st_mtime_ns) == (10, 5)
    assert answered.st_mode == stat.S_IFREG | 0o600


async def test_another_owner_is_refused_with_a_sentence(operations, refusals):
    _, entry = await create(operations)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.setattr(entry.st_ino, attributes(uid=5), fields("uid"), None, CALLER)
    assert errno_of(raised) == "EPERM"
    assert "7:8" in refusals.of_path("/f").sentence


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR])
async def test_special_files_are_refused(operations, kind):
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.mknod(ROOT_INODE, b"x", kind | 0o644, 0, CALLER)
    assert errno_of(raised) == "EPERM"


async def test_links_are_refused(operations):
    _, entry = await create(operations)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.symlink(ROOT_INODE, b"x", b"f", CALLER)
    assert errno_of(raised) == "EPERM"
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.link(entry.st_ino, ROOT_INODE, b"x", CALLER)
    assert errno_of(raised) == "EPERM"


async def test_a_file_made_by_mknod_is_an_empty_object(operations, store, mount):
    entry = await operations.mknod(ROOT_INODE, b"f", stat.S_IFREG | 0o644, 0, CALLER)
    assert store.objects["f"].data == b""
    assert mount.vfs.node(entry.st_ino).lookup_count == 1
    assert mount.vfs.open_files == 0


async def test_a_file_that_mknod_cannot_make_is_not_there(operations, store, mount):
    store.script("put", Fault(AccessDenied("no")))
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.mknod(ROOT_INODE, b"f", stat.S_IFREG | 0o644, 0, CALLER)
    assert errno_of(raised) == "EACCES"
    assert not await mount.exists("f")
    assert mount.vfs.open_files == 0
    assert mount.writers.files() == []


async def test_names_are_changed(operations, store):
    entry = await operations.mkdir(ROOT_INODE, b"d", 0o755, CALLER)
    await operations.mknod(entry.st_ino, b"x", stat.S_IFREG | 0o644, 0, CALLER)
    await operations.rename(ROOT_INODE, b"d", ROOT_INODE, b"e", 0, CALLER)
    assert sorted(store.objects) == ["e/", "e/x"]
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.rmdir(ROOT_INODE, b"e", CALLER)
    assert errno_of(raised) == "ENOTEMPTY"
    await operations.unlink(entry.st_ino, b"x", CALLER)
    await operations.rmdir(ROOT_INODE, b"e", CALLER)
    assert store.objects == {}


async def test_flags_of_a_rename_are_understood(operations, store):
    for name in ("a", "b"):
        store.put(name, DATA)
    for flag, expected in (
        (pyfuse3.RENAME_NOREPLACE, "EEXIST"),
        (pyfuse3.RENAME_EXCHANGE, "EINVAL"),
    ):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await operations.rename(ROOT_INODE, b"a", ROOT_INODE, b"b", flag, CALLER)
        assert errno_of(raised) == expected


async def test_a_failed_close_is_an_errno_and_a_failed_release_is_remembered(
    operations, store, refusals, mount
):
    handle, _ = await create(operations)
    await operations.write(handle, 0, DATA)
    store.script("put", *[Fault(AccessDenied("may not write"))] * 2)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.flush(handle)
    assert errno_of(raised) == "EACCES"
    await release(operations, handle)
    refusal = refusals.of_path("/f")
    assert (refusal.operation, refusal.errno_name) == ("close", "EACCES")
    assert "may not write" in refusal.sentence
    assert mount.vfs.open_files == 0


async def test_a_release_is_answered_before_its_end_has_published(
    operations, store, mount, autojump_clock
):
    handle, _ = await create(operations)
    await operations.write(handle, 0, DATA)
    store.script("put", Fault(delay_s=1e6))
    begun_s = trio.current_time()
    await operations.release(handle)
    assert trio.current_time() == begun_s
    assert not store.objects
    await operations.until_ended()
    assert store.objects["f"].data == DATA
    assert mount.vfs.open_files == 0


async def test_a_bug_at_the_end_of_a_handle_ends_nothing_else(operations, mount, monkeypatch):
    bugs = supervisor.BugLog()
    monkeypatch.setattr(supervisor, "BUGS", bugs)
    await release(operations, 4711)
    assert bugs.count
    handle, _ = await create(operations)
    assert await operations.write(handle, 0, DATA) == len(DATA)
    await operations.flush(handle)
    await release(operations, handle)


async def test_a_change_has_no_deadline_as_long_as_it_goes_on(operations, store, autojump_clock):
    handle, _ = await create(operations)
    await operations.write(handle, 0, DATA)
    store.script("put", Fault(delay_s=100 * DEADLINE_S))
    await operations.flush(handle)
    assert store.objects["f"].data == DATA
    await release(operations, handle)


async def test_the_end_of_the_mount_leaves_changes_to_end_by_themselves(
    operations, store, nursery, autojump_clock
):
    handle, _ = await create(operations)
    await operations.write(handle, 0, DATA)
    store.script("put", Fault(delay_s=1e3))
    nursery.start_soon(operations.flush, handle)
    await until(lambda: store.calls["put"])
    operations.cut_short()
    await until(lambda: store.objects)
    await release(operations, handle)


async def test_changes_can_be_given_up_and_stay_staged(operations, store, mount, autojump_clock):
    handle, _ = await create(operations)
    await operations.write(handle, 0, DATA)
    store.script("put", Fault(StoreFailure("later"), delay_s=1e9))

    async def flush():
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await operations.flush(handle)
        assert errno_of(raised) == "ENOTCONN"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        await until(lambda: store.calls["put"])
        operations.give_up_changes()
    assert [each.path for each in mount.writers.pending()] == ["f"]


async def test_setting_extended_attributes_is_left_to_the_kernel(operations):
    _, entry = await create(operations)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await operations.setxattr(entry.st_ino, b"user.x", b"1", CALLER)
    assert errno_of(raised) == "ENOSYS"  # which the kernel makes ENOTSUP


async def test_extended_attributes_are_read_beside_writing(mount, refusals, store):
    inspector = Inspector(mount.tree, mount.vfs._cache, mount.vfs)
    xattrs = Xattrs(mount.vfs, inspector, {1: Origin("s3://bucket", "bucket")})
    operations = WriteOperations(
        mount.vfs, refusals, APPEARANCE, deadline_s=DEADLINE_S, xattrs=xattrs
    )
    handle, entry = await create(operations, flags=os.O_RDWR | os.O_CREAT)
    assert await operations.getxattr(entry.st_ino, b"user.s3.key", CALLER) == b"f"
    await operations.write(handle, 0, DATA)
    await operations.flush(handle)
    etag = await operations.getxattr(entry.st_ino, b"user.s3.etag", CALLER)
    assert etag.decode() == store.objects["f"].etag
