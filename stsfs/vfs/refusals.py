"""What was refused or failed lately, in the words that `stsfs explain` and `status` show."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache

LAST_MAX = 100
PATHS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer that was not what the caller wanted."""

    path: str
    operation: str
    errno_name: str
    sentence: str
    remedy: str
    at_unix_s: float


class Refusals:
    """The last refusals of the mount, and the last one of each path; both bounded."""

    def __init__(self, now_unix_s: Callable[[], float] = time.time) -> None:
        self._now_unix_s = now_unix_s
        self._last: deque[Refusal] = deque(maxlen=LAST_MAX)
        self._by_path: LRUCache[str, Refusal] = LRUCache(PATHS_MAX)

    def note(
        self,
        path: str,
        operation: str,
        errno_name: str,
        sentence: str,
        remedy: str,
        *,
        is_repeated: bool = False,
    ) -> None:
        """Remember one more; is_repeated: the kernel tries again, and nobody may have heard."""
        refusal = Refusal(path, operation, errno_name, sentence, remedy, self._now_unix_s())
        self._last.append(refusal)
        if not (is_repeated and path in self._by_path):
            self._by_path[path] = refusal

    def last(self, count: int) -> list[Refusal]:
        """The newest ones, newest first."""
        return list(self._last)[: -count - 1 : -1]

    def of_path(self, path: str) -> Refusal | None:
        """The newest one of a path."""
        return self._by_path.get(path)
