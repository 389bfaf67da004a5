"""What both directions of a connection share: their limits, and how it ends."""

TURN_BYTES = 256 * 1024
"""How much one connection may move without giving other tasks a turn: about 0.1 ms."""

STALL_S = 15.0
"""No byte for this long: the connection is given up, and the request goes out on another one."""

PACE_BYTES = 4096
"""A body of which fewer bytes than these come in STALL_S, and not its end, is given up as well."""

BODY_S = 60.0
"""A whole answer that is not a range: a page of a listing, an error."""

WORK_S = 15 * 60.0
"""The same where the server works while it answers: S3 sends blanks as long as it copies."""


class ConnectionBroken(Exception):
    """The connection ended, failed or stalled; `unused` when it did before the first byte came."""

    def __init__(self, reason: str, *, unused: bool = False) -> None:
        super().__init__(reason)
        self.unused = unused


class BodyCut(ConnectionBroken):
    """The server closed the connection in the middle of a body, or at the end of one without
    length."""
