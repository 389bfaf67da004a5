"""What both directions of a connection share: their limits, and how it ends."""

import fcntl
import re
import socket
import sys
import termios

TURN_BYTES = 256 * 1024
"""How much one connection may move without giving other tasks a turn: about 0.1 ms."""

STALL_S = 15.0
"""No byte for this long: the connection is given up, and the request goes out on another one."""

PACE_BYTES = 4096
"""A body of which fewer bytes than these come in STALL_S, and not its end, is given up as well."""

UPLOAD_PACE_S, UPLOAD_PACE_BYTES = 60.0, 128 * 1024
"""The same of a body that is sent: so many bytes are to reach the peer in each such time. It is a
third of what each of sixteen uploads has that share a line of 100 KB/s."""

BODY_S = 60.0
"""A whole answer that is not a range: a page of a listing, an error."""

WORK_S = 15 * 60.0
"""The same where the server works while it answers: S3 sends blanks as long as it copies."""


INTERIM_MAX = 20
"""Of one answer: heads that are not the last."""

_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d[ \r]")
_ANY_INTERIM = b"HTTP/1.1 100 "
_LENGTHS = re.compile(
    rb"\r\ncontent-length:[ \t]*([0-9]+(?:[ \t]*,[ \t]*[0-9]+)*)[ \t]*(?=\r\n[^ \t])",
    re.IGNORECASE,
)
"""Whole headers: a line that begins with a blank would belong to the one before it."""


class ConnectionBroken(Exception):
    """The connection ended, failed or stalled.

    `unused` when it was an old one, and did before the first byte came: a new one is worth a try at
    once. What was sent may have been carried out all the same.
    """

    def __init__(self, reason: str, *, unused: bool = False) -> None:
        super().__init__(reason)
        self.unused = unused


class TooSlow(ConnectionBroken):
    """The server takes a body, but so slowly that another try, from the beginning, is no use."""


class BodyCut(ConnectionBroken):
    """The server closed the connection in the middle of a body, or at the end of one without
    length."""


def unacknowledged_bytes(sock: socket.socket) -> int:
    """How much of what was sent the peer's kernel has not got yet, as far as is known here.

    An answer acknowledges all that its sender may have read of the request: whatever is
    unacknowledged when it comes was not known to who gave it. TLS is sent bytes as others are.
    """
    told = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(told, sys.byteorder)


def with_one_length(head: bytes) -> bytes:
    """A head in which a Content-Length that is there more than once, and the same, is there once.

    RFC 9110, 8.6. Those that differ stay, and are for the parser to refuse.
    """
    found: list[bytes] = _LENGTHS.findall(head)
    if not found or (len(found) == 1 and b"," not in found[0]):
        return head
    lengths = b",".join(found).split(b",")
    values = {each.strip(b" \t") for each in lengths}
    if len(values) > 1:
        return head
    rest = _LENGTHS.sub(b"", head)
    return rest.removesuffix(b"\r\n") + b"Content-Length: " + values.pop() + b"\r\n\r\n"


class InterimHeads:
    """The heads in front of an answer that are not the last, and say nothing.

    Any server may send them at any time, asked or not (RFC 9110, 15.2).
    """

    def __init__(self) -> None:
        self._count = 0

    @property
    def any_passed(self) -> bool:
        """Whether there were any."""
        return self._count > 0

    def passed(self, received: bytearray) -> bool:
        """Take away those that have come whole; whether what is left may be part of another.

        That is also so where nothing is left. Raises ConnectionBroken for too many.
        """
        while _INTERIM.match(received[: len(_ANY_INTERIM)] + _ANY_INTERIM[len(received) :]):
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return True
            self._count += 1
            if self._count > INTERIM_MAX:
                raise ConnectionBroken("heads without end")
            del received[: end + 4]
        return False
