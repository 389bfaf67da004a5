"""What the kernel is told to forget, as bytes, and who closes the descriptor."""

import errno
import os
import socket
import struct

import pytest
import trio

from stsfs.fuse.kernel_cache import KernelCache
from stsfs.vfs.nodes import Directory, File, Site
from tests.fakes import MemoryStore


@pytest.fixture
def kernel():
    """Both ends of what stands for /dev/fuse: one message per write."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def open_descriptors():
    return sorted(os.listdir("/proc/self/fd"))


async def test_names_and_pages_are_forgotten_in_the_kernels_own_words(kernel):
    ours, theirs = kernel
    cache = KernelCache(lambda: os.dup(theirs.fileno()))
    await cache.forget([(7, "ü".encode())], [9])
    name = "ü".encode() + b"\0"
    entry = struct.pack("<IiQ QII", 32 + len(name), 3, 0, 7, 2, 1) + name
    assert ours.recv(1000) == entry
    assert ours.recv(1000) == struct.pack("<IiQ Qqq", 40, 2, 0, 9, 0, 0)


async def test_a_mount_that_is_gone_has_nothing_to_forget(kernel):
    ours, theirs = kernel
    ours.close()
    await KernelCache(lambda: os.dup(theirs.fileno())).forget([(1, b"a"), (1, b"b")], [2])


async def test_while_the_kernel_waits_descriptors_do_not_pile_up(kernel):
    ours, theirs = kernel
    before = open_descriptors()
    cache = KernelCache(lambda: os.dup(theirs.fileno()))
    with trio.move_on_after(0):
        await cache.forget([(1, b"never begun")], [])
    many = [(1, b"x" * 200)] * 10_000
    with trio.CancelScope() as first:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.forget, many, [])
            await trio.lowlevel.wait_readable(ours)  # a thread writes, and will wait for us
            with trio.move_on_after(0.01) as second:
                await cache.forget(many, [])
            assert second.cancelled_caught
            first.cancel()
    for _ in many:
        ours.recv(1000)
    await cache.forget([(1, b"last")], [])  # after the thread has ended
    assert ours.recv(1000).endswith(b"last\0")
    assert open_descriptors() == before


def nodes():
    root = Directory(1, Site(1, MemoryStore(), ""), "", None, b"")
    folder = Directory(7, root.site, "d/", root, b"d")
    return [folder, File(9, folder, "ü".encode(), None, 0, "STANDARD")]


async def test_unused_nodes_are_pruned_in_one_message(kernel):
    ours, theirs = kernel
    cache = KernelCache(lambda: os.dup(theirs.fileno()))
    await cache.prune(nodes())
    assert ours.recv(1000) == struct.pack("<IiQ IIQ QQ", 48, 9, 0, 2, 0, 0, 7, 9)


async def test_a_kernel_that_cannot_prune_forgets_the_names_of_files(kernel, monkeypatch):
    ours, theirs = kernel
    write = os.write

    def old_kernel(descriptor, message):
        if message[4] == 9:
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(descriptor, message)

    monkeypatch.setattr(os, "write", old_kernel)
    cache = KernelCache(lambda: os.dup(theirs.fileno()))
    for _ in range(2):
        await cache.prune(nodes())
        name = "ü".encode() + b"\0"
        assert ours.recv(1000) == struct.pack("<IiQ QII", 32 + len(name), 3, 0, 7, 2, 0) + name
    assert not cache.prunes
