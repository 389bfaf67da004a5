"""Temporary credentials that a fake STS vends and the gate knows."""

import secrets
import string
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

Permission = Literal["read_only", "read_write"]
"""What Synapse's STS endpoint is asked for."""

_ID_ALPHABET = string.ascii_uppercase + string.digits


@dataclass(frozen=True, slots=True)
class Session:
    """One set of keys and what they may do; secrets stay out of `repr`."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    """None for keys that come without a token."""

    expires_at_unix_s: float | None = None
    """Wall-clock end; None for keys that do not end."""

    bucket: str = ""
    """The only bucket allowed, or empty for every bucket (static keys)."""

    base_key: str = ""
    """Empty for the whole bucket; never begins or ends with `/`."""

    permission: Permission | None = None
    """None for static keys with full access, to which no session policy applies."""

    withheld: frozenset[str] = frozenset()
    """Operations that the role's own policy leaves out, in S3's words: `DeleteObject`, …"""

    def expired(self, now_unix_s: float) -> bool:
        """Whether the session is over at that wall-clock time."""
        return self.expires_at_unix_s is not None and now_unix_s >= self.expires_at_unix_s


class KeyRing(Protocol):
    """Whom the gate asks for the keys behind an access key id. Called from the gate's thread."""

    def lookup(self, access_key_id: str) -> Session | None:
        """Return the session, also when it has expired, or None for an unknown id."""


class SessionBook:
    """A thread-safe KeyRing that also makes sessions, shaped as AWS STS shapes them.

    `withheld` counts for the sessions made from then on.
    """

    def __init__(self, *, now_unix_s: Callable[[], float] = time.time) -> None:
        self.withheld: frozenset[str] = frozenset()
        self._now_unix_s = now_unix_s
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> Session:
        """Make a session known, in place of one with the same access key id; return it."""
        with self._lock:
            self._sessions[session.access_key_id] = session
        return session

    def lookup(self, access_key_id: str) -> Session | None:
        """See KeyRing."""
        with self._lock:
            return self._sessions.get(access_key_id)

    def sessions(self) -> list[Session]:
        """All sessions, in the order in which they were made; expired ones too."""
        with self._lock:
            return list(self._sessions.values())

    def vend(
        self, bucket: str, base_key: str, permission: Permission | None, lifetime_s: float
    ) -> Session:
        """Make and remember new temporary credentials, as AssumeRole does."""
        return self.add(
            Session(
                access_key_id="ASIA" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(16)),
                secret_access_key=secrets.token_urlsafe(30),
                session_token=secrets.token_urlsafe(200),
                expires_at_unix_s=self._now_unix_s() + lifetime_s,
                bucket=bucket,
                base_key=base_key,
                permission=permission,
                withheld=self.withheld,
            )
        )

    def expire_all(self) -> None:
        """End every temporary session now; keys without an end stay."""
        now_unix_s = self._now_unix_s()
        with self._lock:
            for access_key_id, session in self._sessions.items():
                if not session.expired(now_unix_s) and session.expires_at_unix_s is not None:
                    self._sessions[access_key_id] = replace(session, expires_at_unix_s=now_unix_s)
