"""Reading files through the mount and comparing them: several at a time, each in a thread."""

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from stsfs.cli.verify_files import Asking, Facts, Target
from stsfs.cli.verify_report import Outcome, Result, other_digest

READ_BYTES = 1024 * 1024
"""The kernel's largest read."""

KEPT_BYTES_MAX = 64 * READ_BYTES
"""Of a file in the kernel's cache: what was read for its digest nobody asks for again."""

ATTEMPTS_MAX = 3
"""For a file that is replaced while it is read."""

AHEAD_MAX = 2000
"""Files that wait for a thread: a small folder is known as a whole before it is read."""

T = TypeVar("T")


class Stopped(Exception):
    """The work has ended."""


class Checker:
    """Compares one file at a time with what the daemon says of it; used by several threads."""

    def __init__(self, asking: Asking, stop: threading.Event, read: Callable[[int], None]) -> None:
        self._asking = asking
        self._stop = stop
        self._read = read
        """Told of every piece: its length in bytes."""

    def check(self, target: Target, facts: Facts) -> Result:
        """Read a file and compare it. Raises Stopped, and NoSuchMount where the daemon dies."""
        for _ in range(ATTEMPTS_MAX):
            if target.error is not None:
                return self._refused(target, facts, target.error)
            if facts.error is not None:
                return _result(target, facts, "unreadable", sentence=facts.error)
            if facts.md5 is None:
                return _result(target, facts, "no_md5")
            try:
                found = self._digest(target.path)
            except OSError as exc:
                if exc.errno != errno.ESTALE:
                    return self._refused(target, facts, exc)
                facts = self._asking.facts([target])[0]
                continue
            if found == facts.md5 and facts.etag is not None:
                return _result(target, facts, "ok", found_md5=found)
            # The ETag is learnt when a file is opened; and the file may be another one by now.
            now = self._asking.facts([target])[0]
            if found in (facts.md5, now.md5):
                told = now if found == now.md5 else facts
                return _result(target, told, "ok", found_md5=found)
            if (now.entity_id, now.version, now.md5) == (facts.entity_id, facts.version, facts.md5):
                return _result(target, now, "mismatch", found_md5=found)
            facts = now
        sentence = "It was replaced each time while it was read."
        return _result(target, facts, "unreadable", errno_name="ESTALE", sentence=sentence)

    def _digest(self, path: str) -> str:
        """The MD5 of a file's content, which leaves little behind in the kernel's cache."""
        digest = hashlib.md5(usedforsecurity=False)
        buffer = memoryview(bytearray(READ_BYTES))
        offset = kept = 0
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while count := os.preadv(descriptor, [buffer], offset):
                if self._stop.is_set():
                    raise Stopped
                digest.update(buffer[:count])
                offset += count
                self._read(count)
                if offset - kept >= KEPT_BYTES_MAX:
                    os.posix_fadvise(descriptor, kept, offset - kept, os.POSIX_FADV_DONTNEED)
                    kept = offset
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        return digest.hexdigest()

    def _refused(self, target: Target, facts: Facts, exc: OSError) -> Result:
        """What reading met; a mount that verifies may have found a mismatch before us."""
        name = errno.errorcode.get(exc.errno or 0, "EIO")
        reason = self._asking.reason(target, name)
        if facts.md5 is not None and (found := other_digest(reason, facts.md5)):
            return _result(target, facts, "mismatch", found_md5=found)
        sentence = reason or f"{exc.strerror}."
        return _result(target, facts, "unreadable", errno_name=name, sentence=sentence)


def _result(
    target: Target,
    facts: Facts,
    outcome: Outcome,
    *,
    found_md5: str | None = None,
    errno_name: str | None = None,
    sentence: str = "",
) -> Result:
    return Result(
        path=target.path,
        outcome=outcome,
        facts=facts,
        found_md5=found_md5,
        errno=errno_name,
        sentence=sentence,
        checked_unix_s=time.time(),
    )


def in_threads(
    work: Callable[[T], None], items: Iterable[T], *, jobs: int, stop: threading.Event
) -> None:
    """Call work for every item, jobs of them at a time; items are taken as far ahead as AHEAD_MAX.

    Whatever ends this, an error of work or an interrupt, sets stop and waits for the threads.
    Raises the first error of work.
    """
    failures: list[BaseException] = []
    ahead = threading.BoundedSemaphore(AHEAD_MAX)

    def one(item: T) -> None:
        try:
            if not stop.is_set():
                work(item)
        except Stopped:
            pass
        except BaseException as exc:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(exc)
            stop.set()
        finally:
            ahead.release()

    with _pool(jobs, stop) as pool:
        for item in items:
            ahead.acquire()
            if stop.is_set():
                break
            pool.submit(one, item)
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _pool(jobs: int, stop: threading.Event) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="verify")
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
