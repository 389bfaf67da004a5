"""The kernel connection: mounted by ourselves, negotiated through libfuse, served by pyfuse3.

pyfuse3 offers no way to ask for parallel lookups in a directory or for more background requests,
and raising the latter from outside takes root. So the mount is made here (with mount(2) by root, by
fusermount3 for everyone else), libfuse gets one end of a socket pair to negotiate on, and its
answer to INIT goes to the kernel with two fields changed. Then the real descriptor takes the place
of the socket, and from there on pyfuse3 speaks to the kernel directly.

Wire format of INIT: linux/fuse.h, struct fuse_init_in and fuse_init_out.
"""

import array
import contextlib
import errno
import logging
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator

import pyfuse3
import trio

from stsfs import programs
from stsfs.errors import FuseUnavailable, sole
from stsfs.fuse.mount_point import MountOptions, MountPoint
from stsfs.fuse.workers import WORKERS_MAX, workers

log = logging.getLogger(__name__)

MAX_BACKGROUND = 128
"""Read-ahead requests the kernel may have under way; its default of 12 starves random readers."""

FUSE_DEVICE = "/dev/fuse"

_FUSE_INIT = 26
_FUSE_PARALLEL_DIROPS = 1 << 18
_IN_HEADER_BYTES = 40
_OUT_HEADER_BYTES = 16
_INIT_REPLY_BYTES_MIN = _OUT_HEADER_BYTES + 24
"""A header and fuse_init_out up to max_write; an error is the header alone."""

_REQUEST_BYTES_MAX = (1 << 20) + 4096


class _Answered(logging.Filter):
    """Drops what pyfuse3 says of a reply that nobody waits for any more.

    The kernel answers it with ENOENT: the caller was killed, or the mount is gone.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().endswith(f"failed with {os.strerror(errno.ENOENT)}")


logging.getLogger("pyfuse3").addFilter(_Answered())


class Session:
    """One mount and the descriptor that answers for it.

    `mount`, `negotiate`, `serve`, `close`, in this order. After a crash nothing is unmounted: a
    dead mount answers ENOTCONN, where an empty directory would be believed.
    """

    def __init__(self, point: MountPoint) -> None:
        self._point = point
        self._kernel_fd = -1
        self._session_fd = -1

    async def mount(self, options: MountOptions) -> None:
        """Mount. Raises FuseUnavailable with what the kernel or fusermount3 said.

        Whatever it raises, there may be a mount by then, of which nothing is known here.
        """
        if os.geteuid() == 0:
            self._mount_as_root(options)
        else:
            await self._mount_by_fusermount(options)
        self._point.note_mount()
        os.set_blocking(self._kernel_fd, False)

    def _mount_as_root(self, options: MountOptions) -> None:
        try:
            self._kernel_fd = os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
            self._point.mount(self._kernel_fd, options)
        except OSError as exc:
            self.close()
            raise FuseUnavailable(
                f"The kernel does not mount on {self._point.path}: {exc.strerror}.",
                remedy="Start a container with --device /dev/fuse --cap-add SYS_ADMIN."
                if exc.errno == errno.EPERM
                else "",
            ) from exc

    async def _mount_by_fusermount(self, options: MountOptions) -> None:
        program = os.fspath(programs.fusermount3())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            try:
                done = await trio.run_process(
                    [program, "-o", options.of_fusermount(), "--", "."],
                    cwd=self._point.link,
                    pass_fds=[theirs.fileno()],
                    env=programs.environment(_FUSE_COMMFD=str(theirs.fileno())),
                    check=False,
                    capture_stderr=True,
                )
            except OSError as exc:
                raise FuseUnavailable(
                    f"{program} cannot be run: {exc.strerror}.",
                    remedy="Install fuse3: apt-get install fuse3, or dnf install fuse3.",
                ) from exc
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()
                raise FuseUnavailable(f"The kernel does not mount here: {said or 'no reason'}.")
            self._kernel_fd = _received_descriptor(ours)

    async def negotiate(self, operations: pyfuse3.Operations) -> None:
        """Answer the kernel's INIT: what libfuse says, plus what pyfuse3 cannot ask for."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            self._session_fd = theirs.detach()
            os.set_blocking(self._session_fd, False)
            pyfuse3.init(operations, f"/dev/fd/{self._session_fd}", {"fsname=stsfs"})
            await trio.lowlevel.wait_readable(self._kernel_fd)
            request = os.read(self._kernel_fd, _REQUEST_BYTES_MAX)
            ours.send(request)
            ended = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_one_worker, ended)
                await trio.lowlevel.wait_readable(ours)
                reply = ours.recv(_REQUEST_BYTES_MAX)
                # The only worker has answered and goes to wait for the next request: when it is
                # there, this sends it home.
                while not ended.is_set():
                    trio.lowlevel.notify_closing(self._session_fd)
                    await trio.lowlevel.checkpoint()
            os.write(self._kernel_fd, _amended(request, reply))
        os.dup2(self._kernel_fd, self._session_fd, inheritable=False)
        os.close(self._kernel_fd)
        self._kernel_fd = -1

    async def serve(self) -> None:
        """Answer requests until the mount is gone or `stop` is called."""
        with workers():
            try:
                await pyfuse3.main(1, WORKERS_MAX)
            except Exception as exc:
                # Unmounted while we read, or given up through /sys/fs/fuse: both are the end, and
                # only ENODEV counts as one for libfuse.
                cause = sole(exc)
                if not isinstance(cause, OSError) or cause.errno != errno.ECONNABORTED:
                    raise
                log.info("the kernel has given the connection up")

    async def let_go(self) -> None:
        """Return when the kernel has given the connection up: unmounted, and no file open.

        `serve` notices only when the last request has been answered, for which nobody waits then.
        Raises OSError where there is no descriptor left to wait with.
        """
        with select.epoll() as ended:
            ended.register(self._session_fd, 0)  # no requests: the end is reported always
            await trio.lowlevel.wait_readable(ended.fileno())

    def duplicate(self) -> int:
        """Another descriptor of the kernel connection, for a thread that writes to it."""
        return os.dup(self._session_fd)

    async def unmount(self) -> None:
        """Take the mount away while it is still served; users of open files keep them for now."""
        said = ""
        for lazy in (False, True):
            try:
                with self._unmounting(lazy=lazy) as started:
                    if started is None:
                        return  # it is gone, or another one lies on it
                    command, descriptors = started
                    done = await trio.run_process(
                        command, pass_fds=descriptors, env=programs.environment(), check=False,
                        capture_stderr=True,
                    )  # fmt: skip
            except OSError as exc:  # no program, no descriptor left, no way to its parent
                said = f"no command can be run: {exc}"
                continue
            if not done.returncode:
                return
            said = done.stderr.decode(errors="replace").strip() or os.strerror(done.returncode)
        log.warning("unmounting: %s", said)

    @contextlib.contextmanager
    def _unmounting(self, *, lazy: bool) -> Iterator[tuple[list[str], list[int]] | None]:
        """A command that unmounts, and the descriptors it needs; None if there is no mount."""
        parent = self._point.opened_parent()
        if parent is None:
            yield None
            return
        try:
            if os.geteuid() == 0:
                yield self._point.unmounting(parent, lazy=lazy), [parent]
            else:
                program, path = os.fspath(programs.fusermount3()), os.fspath(self._point.path)
                yield [program, "-u", *(["-z"] if lazy else []), "--", path], []
        finally:
            os.close(parent)

    def stop(self) -> None:
        """Make `serve` return, after the requests under way."""
        pyfuse3.terminate()

    def close(self) -> None:
        """Give the descriptors back. If still mounted, the mount is dead from now on."""
        if self._session_fd >= 0:
            pyfuse3.close(unmount=False)
            self._session_fd = -1
        if self._kernel_fd >= 0:
            os.close(self._kernel_fd)
            self._kernel_fd = -1

    def abandon(self) -> None:
        """A mount that may have been made will not be served: unmount it. Blocking, and short."""
        self.close()
        try:
            with self._unmounting(lazy=True) as started:
                if started is not None:
                    command, descriptors = started
                    subprocess.run(
                        command, pass_fds=descriptors, env=programs.environment(), check=False
                    )
        except OSError as exc:  # whoever calls has an error of more interest
            log.warning("unmounting: %s", exc)


async def _one_worker(ended: trio.Event) -> None:
    await pyfuse3.main(1, 1)
    ended.set()


def _received_descriptor(channel: socket.socket) -> int:
    """The descriptor that fusermount3 has sent."""
    numbers = array.array("i")
    _, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(numbers.itemsize))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: numbers.itemsize])
            os.set_inheritable(numbers[0], False)
            return numbers[0]
    raise FuseUnavailable("fusermount3 sent no descriptor.")


def _amended(request: bytes, reply: bytes) -> bytes:
    """libfuse's answer to INIT with parallel lookups (if offered) and more background requests."""
    (opcode,) = struct.unpack_from("<I", request, 4)
    if opcode != _FUSE_INIT:
        raise FuseUnavailable(f"The kernel began with request {opcode} instead of INIT.")
    if len(reply) < _INIT_REPLY_BYTES_MIN:
        raise FuseUnavailable("libfuse refused what the kernel offered.")
    (offered,) = struct.unpack_from("<I", request, _IN_HEADER_BYTES + 12)
    amended = bytearray(reply)
    (flags,) = struct.unpack_from("<I", amended, _OUT_HEADER_BYTES + 12)
    flags |= offered & _FUSE_PARALLEL_DIROPS
    struct.pack_into("<I", amended, _OUT_HEADER_BYTES + 12, flags)
    congestion = MAX_BACKGROUND * 3 // 4
    struct.pack_into("<HH", amended, _OUT_HEADER_BYTES + 16, MAX_BACKGROUND, congestion)
    return bytes(amended)
