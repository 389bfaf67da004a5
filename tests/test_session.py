"""What is said to the kernel at the beginning, and what ends a session."""

import errno
import struct
from pathlib import Path

import pytest

from stsfs.errors import FuseUnavailable
from stsfs.fuse import session
from stsfs.fuse.mount_point import MountPoint
from stsfs.fuse.session import MAX_BACKGROUND, Session

PARALLEL_DIROPS = 1 << 18
LIBFUSE_FLAGS = 0x4040B039


def init_request(flags, opcode=26):
    header = struct.pack("<IIQQIIII", 104, opcode, 2, 0, 0, 0, 0, 0)
    return header + struct.pack("<IIII", 7, 45, 131072, flags) + bytes(48)


def init_reply(flags=LIBFUSE_FLAGS):
    header = struct.pack("<IiQ", 80, 0, 2)
    return header + struct.pack("<IIIIHHI", 7, 45, 131072, flags, 0, 0, 1 << 20) + bytes(40)


def fields(reply):
    flags, background, congestion, max_write = struct.unpack_from("<IHHI", reply, 16 + 12)
    return flags, background, congestion, max_write


def test_parallel_lookups_and_background_requests_are_added_to_what_libfuse_says():
    reply = session._amended(init_request(PARALLEL_DIROPS | LIBFUSE_FLAGS), init_reply())
    assert fields(reply) == (
        LIBFUSE_FLAGS | PARALLEL_DIROPS,
        MAX_BACKGROUND,
        MAX_BACKGROUND * 3 // 4,
        1 << 20,
    )
    assert len(reply) == len(init_reply())


def test_a_kernel_that_does_not_offer_parallel_lookups_is_not_told_of_them():
    flags, *_ = fields(session._amended(init_request(LIBFUSE_FLAGS), init_reply()))
    assert flags == LIBFUSE_FLAGS


def test_a_kernel_that_begins_otherwise_is_refused():
    with pytest.raises(FuseUnavailable):
        session._amended(init_request(0, opcode=1), init_reply())


def test_a_refusal_of_libfuse_is_said_as_one():
    with pytest.raises(FuseUnavailable, match="libfuse refused"):
        session._amended(init_request(0), struct.pack("<IiQ", 16, -errno.EPROTO, 2))


async def test_a_connection_that_the_kernel_has_given_up_ends_the_session(monkeypatch):
    async def main(*workers):
        raise ExceptionGroup("", [OSError(errno.ECONNABORTED, "aborted")])

    monkeypatch.setattr(session.pyfuse3, "main", main)
    await Session(MountPoint(Path("/nowhere"), -1)).serve()


async def test_any_other_failure_of_the_loop_ends_it(monkeypatch):
    async def main(*workers):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(session.pyfuse3, "main", main)
    with pytest.raises(OSError, match="broken"):
        await Session(MountPoint(Path("/nowhere"), -1)).serve()


async def test_a_mount_that_cannot_be_looked_at_is_left_and_said_so(monkeypatch, caplog):
    def no_descriptor(_):
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(MountPoint, "opened_parent", no_descriptor)
    await Session(MountPoint(Path("/nowhere"), -1)).unmount()
    assert "too many" in caplog.text


def test_what_keeps_an_abandoned_mount_from_being_unmounted_hides_no_other_error(
    monkeypatch, caplog
):
    def no_descriptor(_):
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(MountPoint, "opened_parent", no_descriptor)
    Session(MountPoint(Path("/nowhere"), -1)).abandon()
    assert "too many" in caplog.text
