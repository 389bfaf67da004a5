"""Temporary credentials of the fake Synapse: who vends them, and what they are good for."""

import dataclasses
import secrets
import string
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

Permission = Literal["read_only", "read_write"]

LIFETIME_S = 3600.0
"""What the real service gives since it runs with chained roles, which AWS limits to an hour."""


def timestamp(unix_s: float) -> str:
    """Return a time as Synapse writes it: always milliseconds, always Z."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Vendor(Protocol):
    """Makes temporary credentials. Called from several threads at once."""

    def vend(
        self, bucket: str, base_key: str, permission: Permission, session_name: str
    ) -> dict[str, str]:
        """Return accessKeyId, secretAccessKey, sessionToken and expiration.

        Raises any exception where it cannot: the caller then sees 502.
        """


@dataclass(frozen=True, slots=True)
class Session:
    """What one set of vended credentials allows, for whoever verifies signatures."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at_unix_s: float
    bucket: str
    base_key: str
    permission: Permission
    session_name: str

    def as_json(self) -> dict[str, str | float]:
        """Return every field, secrets too: this goes to the gate, which must verify with them."""
        return dataclasses.asdict(self)


class LocalVendor:
    """Vends random keys, and remembers what each may do.

    `lifetime_s` may be changed at any time; it counts for the sessions vended from then on.
    """

    def __init__(
        self, lifetime_s: float = LIFETIME_S, *, now_unix_s: Callable[[], float] = time.time
    ) -> None:
        self.lifetime_s = lifetime_s
        self._now_unix_s = now_unix_s
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def vend(
        self, bucket: str, base_key: str, permission: Permission, session_name: str
    ) -> dict[str, str]:
        """Return new credentials in the shape that Synapse answers with."""
        # Synapse writes milliseconds: the gate must not go by a finer time than the client does.
        expires_at_unix_s = int((self._now_unix_s() + self.lifetime_s) * 1000) / 1000
        session = Session(
            access_key_id="ASIA" + _random(16, string.ascii_uppercase + "234567"),
            secret_access_key=_random(40, string.ascii_letters + string.digits + "/+"),
            session_token=_random(356, string.ascii_letters + string.digits + "/+"),
            expires_at_unix_s=expires_at_unix_s,
            bucket=bucket,
            base_key=base_key,
            permission=permission,
            session_name=session_name,
        )
        with self._lock:
            self._sessions[session.access_key_id] = session
        return {
            "accessKeyId": session.access_key_id,
            "secretAccessKey": session.secret_access_key,
            "sessionToken": session.session_token,
            "expiration": timestamp(session.expires_at_unix_s),
        }

    @property
    def sessions(self) -> dict[str, Session]:
        """All sessions ever vended, by access key id, ended ones too; a copy."""
        with self._lock:
            return dict(self._sessions)

    def session(self, access_key_id: str) -> Session | None:
        """Return one session, or None for a key that was never vended here."""
        with self._lock:
            return self._sessions.get(access_key_id)

    def revoke_all(self) -> None:
        """End all sessions now, as if their time were over."""
        now_unix_s = self._now_unix_s()
        with self._lock:
            for access_key_id, session in self._sessions.items():
                ended = dataclasses.replace(
                    session, expires_at_unix_s=min(session.expires_at_unix_s, now_unix_s)
                )
                self._sessions[access_key_id] = ended


def _random(length: int, alphabet: str) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
