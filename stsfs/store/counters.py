"""What was asked of the store, by kind: the numbers behind `stsfs status`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stsfs.errors import StsfsError


@dataclass(slots=True)
class KindCount:
    """Requests of one kind, as the store was asked and as it was billed."""

    requests: int = 0
    """Sent, those that were repeated included."""

    received_bytes: int = 0
    sent_bytes: int = 0
    """Of bodies; those that were sent again included."""

    retries: int = 0
    failures: int = 0
    """What was asked for and could not be had, whatever was tried."""

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Count a StsfsError that comes out of here."""
        try:
            yield
        except StsfsError:
            self.failures += 1
            raise


@dataclass(slots=True)
class StoreCounters:
    """Requests and bytes by kind, since the mount began."""

    kinds: dict[str, KindCount] = field(default_factory=dict)
    throttled: int = 0
    connections_opened: int = 0

    def of(self, kind: str) -> KindCount:
        """The counter of a kind (`get`, `list`, `put` …), made when first asked for."""
        return self.kinds.setdefault(kind, KindCount())
