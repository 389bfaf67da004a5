"""Sets of credentials kept between calls, so that many programs share one STS call.

One file per set, in a directory that belongs to us alone; the name is a digest of all that
decides the answer, so another location, service or identity can never be answered with it. Files
are replaced in one step and judged when read: what is broken, or not ours alone, counts as absent.
A directory or a disk that fails costs calls, never an answer.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stsfs import values as checks
from stsfs.credentials.credentials import Credentials
from stsfs.credentials.lease import MARGIN_JITTER, renewal_margin_s
from stsfs.errors import ForeignPath, SynapseUnavailable
from stsfs.owned_dir import OwnedDir, open_file

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 64 * 1024
"""No set is that long: more is not read."""


@dataclass(frozen=True, slots=True)
class KeptSet:
    """Credentials that end, what they open, and when they came."""

    target: str
    """As it was asked for: `syn12345`."""

    bucket: str
    base_key: str
    credentials: Credentials
    fetched_unix_s: float

    def left_s(self, now_unix_s: float) -> float:
        """Seconds until the end of the session."""
        assert self.credentials.expires_at_unix_s is not None
        return self.credentials.expires_at_unix_s - now_unix_s

    def is_due(self, now_unix_s: float) -> bool:
        """Whether a new set should be fetched: by the rule of the lease, at its early edge.

        The early edge, because boto3 asks again 15 minutes before the end, and must then get a
        set that is good for longer.
        """
        margin_s = renewal_margin_s(self.left_s(self.fetched_unix_s)) * (1 + MARGIN_JITTER)
        return self.left_s(now_unix_s) <= margin_s or self.fetched_unix_s > now_unix_s

    def to_json(self) -> dict[str, Any]:
        """The set as JSON values, secrets included."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> "KeptSet":
        """Undo `to_json`; raises KeyError, TypeError, ValueError or OverflowError for all else."""
        inner = values["credentials"]
        texts = {
            "target": values["target"],
            "bucket": values["bucket"],
            "base_key": values["base_key"],
            **{name: inner[name] for name in _TEXTS},
        }
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError
        for name in _TEXTS:
            checks.word(texts[name] or "\0")  # goes into headers, and must not be empty
        checks.bucket_name(texts["bucket"])
        for name in ("target", "base_key"):
            checks.label(texts[name])
        times = (
            checks.unix_s(float(values["fetched_unix_s"])),
            checks.unix_s(float(inner["expires_at_unix_s"])),
        )
        return cls(
            target=texts["target"],
            bucket=texts["bucket"],
            base_key=texts["base_key"],
            credentials=Credentials(
                **{name: texts[name] for name in _TEXTS}, expires_at_unix_s=times[1]
            ),
            fetched_unix_s=times[0],
        )


_TEXTS = ("access_key_id", "secret_access_key", "session_token")


def cache_key(*parts: str) -> str:
    """The name of a set: a digest that gives none of its parts away, be they secret."""
    return hashlib.sha256(json.dumps(["1", *parts]).encode()).hexdigest()


class CredentialCache:
    """The kept sets of one directory. All methods block, for as long as the fetch takes."""

    def __init__(self, directory: Path, *, now_unix_s: Callable[[], float] = time.time) -> None:
        """Create the directory if absent, and close it to others.

        Raises OSError where that fails, or where others own it, or can exchange it.
        """
        try:
            OwnedDir.open(directory, create=True, private=True).close()
        except ForeignPath as exc:
            raise PermissionError(errno.EPERM, exc.sentence, str(directory)) from exc
        self._directory, self._now_unix_s = directory, now_unix_s

    def obtain(self, key: str, fetch: Callable[[], KeptSet]) -> KeptSet:
        """Return the kept set, or a fetched one: once for all who ask at the same time.

        Raises what `fetch` raises. While the service is unavailable, a set that is due is good
        until it ends; who waited for a failed attempt shares its outcome.
        """
        asked_unix_s = self._now_unix_s()
        kept = self._read(key)
        if kept is not None and not kept.is_due(asked_unix_s):
            return kept
        with self._locked(key) as may_write:
            kept = self._read(key)
            if kept is not None and not kept.is_due(self._now_unix_s()):
                return kept
            reason = self._failure_since(asked_unix_s, key)
            if reason is None:
                try:
                    fetched = fetch()
                except SynapseUnavailable as exc:
                    reason = exc
                    if may_write:
                        self._keep_failure(key, reason)
                else:
                    if may_write:
                        self._sweep(key)
                        self._write(_name(key), fetched.to_json())
                    return fetched
        if kept is None or kept.left_s(self._now_unix_s()) <= 0:
            raise reason
        left_s = kept.left_s(self._now_unix_s())
        log.warning("%s The credentials kept are good for %.0f s more.", reason, left_s)
        return kept

    def forget(self, target: str | None = None) -> int:
        """Remove the sets of one target, or all; returns how many there were."""
        count = 0
        for path in self._directory.glob("*.json"):
            kept = self._read(path.stem)
            if target is None or (kept is not None and kept.target == target):
                path.unlink(missing_ok=True)
                count += 1
        return count

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[bool]:
        """One process at a time for each of sixteen shares of the keys: locks are not removed.

        Yields whether the lock is held; a file system that cannot lock must not stop anyone.
        """
        with contextlib.ExitStack() as opened:
            try:
                descriptor = open_file(self._directory / f"{key[0]}.lock", os.O_RDWR | os.O_CREAT)
                opened.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except (OSError, ForeignPath) as exc:
                log.warning("credentials are not kept in %s: %s", self._directory, exc)
                yield False
            else:
                yield True

    def _failure_since(self, asked_unix_s: float, key: str) -> SynapseUnavailable | None:
        failed = self._values(_failure_name(key))
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            if asked_unix_s <= float(failed["failed_unix_s"]) <= self._now_unix_s():
                return SynapseUnavailable(str(failed["sentence"]), remedy=str(failed["remedy"]))
        return None

    def _keep_failure(self, key: str, reason: SynapseUnavailable) -> None:
        values = {"sentence": reason.sentence, "remedy": reason.remedy}
        self._write(_failure_name(key), {"failed_unix_s": self._now_unix_s(), **values})

    def _sweep(self, key: str) -> None:
        """Remove what is over in this key's share, whose lock is held."""
        with contextlib.suppress(OSError):
            for path in self._directory.glob(f"{key[0]}*"):
                if path.suffix == ".lock":
                    continue
                kept = self._read(path.stem) if path.suffix == ".json" else None
                if kept is None or kept.left_s(self._now_unix_s()) <= 0:
                    path.unlink()

    def _read(self, key: str) -> KeptSet | None:
        try:
            return KeptSet.from_json(self._values(_name(key)))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    def _values(self, name: str) -> Any:
        """What a file holds; None if there is none that is whole, and ours alone."""
        try:
            with open(open_file(self._directory / name, private=True), "rb") as file:
                return json.loads(file.read(FILE_BYTES_MAX))
        except (OSError, ForeignPath, ValueError, RecursionError):
            return None

    def _write(self, name: str, values: dict[str, Any]) -> None:
        """Replace a file in one step. The lock is held, so the temporary file is ours."""
        temporary = self._directory / f"{name}.tmp"
        try:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            with open(descriptor, "w", encoding="ascii") as file:
                json.dump(values, file)
            temporary.rename(self._directory / name)
        except OSError as exc:
            log.warning("credentials are not kept in %s: %s", self._directory, exc.strerror)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _name(key: str) -> str:
    return f"{key}.json"


def _failure_name(key: str) -> str:
    return f"{key}.failed"
