"""The kernel is asked to forget what it was told longest ago, and readers wait for that."""

import errno

import pytest
import trio

from stsfs.store.object_store import ObjectVersion
from stsfs.vfs.kernel_names import ROOM_S, KernelNames
from stsfs.vfs.nodes import ROOT_INODE, Directory, File, InodeTable, Site, new_number
from tests.fakes import MemoryStore


class Kernel:
    """Forgets at once what it has no use for."""

    def __init__(self, inodes):
        self.prunes = True
        self.used, self.asked, self.failures = set(), [], []
        self._inodes = inodes

    async def prune(self, nodes):
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop()
        self.asked += nodes
        for node in nodes:
            if node not in self.used:
                self._inodes.forget(node.inode, node.lookup_count)


class Scene:
    def __init__(self):
        self.root = Directory(ROOT_INODE, Site(1, MemoryStore(), ""), "", None, b"")
        self.inodes = InodeTable(self.root)
        self.names = KernelNames(self.inodes)
        self.kernel = Kernel(self.inodes)

    def told(self, count):
        """The kernel is told of so many files."""
        return [self._told(number) for number in range(count)]

    def _told(self, number):
        name = b"%06d" % number
        version = ObjectVersion(1, name.decode(), '"e"', 1)
        file = File(new_number(), self.root, name, version, 0, "STANDARD")
        self.inodes.remember(file)
        return file


@pytest.fixture
def scene():
    return Scene()


async def test_within_the_limit_nothing_is_forgotten(scene, nursery, autojump_clock):
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.told(5000)
    await trio.sleep(10)
    assert scene.kernel.asked == []


async def test_beyond_the_limit_what_was_told_longest_ago_goes_first(
    scene, nursery, autojump_clock
):
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.inodes.limit(2 << 20)
    files = scene.told(10_000)
    await trio.sleep(10)
    assert scene.inodes.held_bytes <= scene.inodes.limit_bytes
    assert len(scene.inodes) > 1000
    assert scene.inodes.get(files[-1].inode) is files[-1]
    with pytest.raises(Exception, match="never given"):
        scene.inodes.get(files[0].inode)


async def test_what_is_opened_is_forgotten_after_the_rest(scene, nursery, autojump_clock):
    files = scene.told(3000)
    scene.inodes.used(files[0])
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.inodes.limit(1 << 20)
    await trio.sleep(10)
    assert scene.inodes.get(files[0].inode) is files[0]
    assert len(scene.inodes) < 2000


async def test_what_is_in_use_is_asked_for_again_but_not_without_a_pause(
    scene, nursery, autojump_clock
):
    files = scene.told(3000)
    scene.kernel.used = set(files)
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.inodes.limit(1 << 20)
    await trio.sleep(60)
    assert len(files) <= len(scene.kernel.asked) <= 200 * len(files)
    scene.kernel.used = set()
    await trio.sleep(60)
    assert scene.inodes.held_bytes <= scene.inodes.limit_bytes


async def test_what_is_forgotten_and_told_again_is_asked_for_no_oftener(
    scene, nursery, autojump_clock
):
    """As a kernel does that forgets names that are in use, because it cannot tell which."""
    files = scene.told(5000)

    async def prune(nodes):
        await trio.lowlevel.checkpoint()
        scene.kernel.asked += nodes
        if files[0].lookup_count:
            scene.inodes.forget(files[0].inode, files[0].lookup_count)
        else:
            scene.inodes.remember(files[0])

    scene.kernel.prune = prune
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.inodes.limit(1 << 20)
    await trio.sleep(60)
    assert len(files) <= len(scene.kernel.asked) <= 61 * len(files)


async def test_a_smaller_limit_holds_for_what_was_told_before(scene, nursery, autojump_clock):
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.told(3000)
    await trio.sleep(1)
    scene.inodes.limit(1 << 20)
    await trio.sleep(1)
    assert scene.inodes.held_bytes <= 1 << 20


async def test_without_a_descriptor_it_is_tried_again(scene, nursery, autojump_clock):
    scene.kernel.failures = [OSError(errno.EMFILE, "Too many open files")] * 3
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.inodes.limit(1 << 20)
    scene.told(3000)
    await trio.sleep(30)
    assert scene.inodes.held_bytes <= 1 << 20


async def test_a_reader_of_a_directory_waits_for_room_but_not_for_ever(
    scene, nursery, autojump_clock
):
    files = scene.told(5000)
    scene.kernel.used = set(files)
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.inodes.limit(1 << 20)
    await trio.sleep(1)
    begun_s = trio.current_time()
    await scene.names.room()
    assert trio.current_time() - begun_s == pytest.approx(ROOM_S)
    scene.kernel.used = set()
    await trio.sleep(10)
    begun_s = trio.current_time()
    await scene.names.room()
    assert trio.current_time() == begun_s


async def test_nobody_waits_where_the_kernel_would_wait_for_the_reader(
    scene, nursery, autojump_clock
):
    files = scene.told(5000)
    scene.kernel.used, scene.kernel.prunes = set(files), False
    nursery.start_soon(scene.names.run, scene.kernel)
    scene.inodes.limit(1 << 20)
    await trio.sleep(1)
    begun_s = trio.current_time()
    await scene.names.room()
    assert trio.current_time() == begun_s
    assert not scene.names.takes_more
    scene.kernel.used = set()
    await trio.sleep(10)
    assert scene.names.takes_more


async def test_names_that_move_and_go_leave_no_bytes_behind(scene):
    below = Directory(new_number(), scene.root.site, "a/very/long/prefix/" * 9, scene.root, b"d")
    files = scene.told(100)
    for file in files:
        scene.inodes.move(file, below, b"x" * 200 + file.name)
    for file in files:
        scene.inodes.forget(file.inode, file.lookup_count)
    assert scene.inodes.held_bytes == 0


async def test_a_reader_does_not_wait_by_looking_again_and_again(scene, autojump_clock):
    """Something was forgotten, nothing more is, and there is no room yet."""
    scene.told(5000)
    scene.inodes.limit(1 << 20)
    scene.names._kernel = scene.kernel
    scene.names._shrunk.set()
    begun_s = trio.current_time()
    await scene.names.room()  # time goes on only while nobody is busy
    assert trio.current_time() - begun_s == pytest.approx(ROOM_S)
