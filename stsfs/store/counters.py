"""What was asked of the store, by kind: the numbers behind `stsfs status`."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class KindCount:
    """Requests of one kind."""

    requests: int = 0
    received_bytes: int = 0
    retries: int = 0
    failures: int = 0


@dataclass(slots=True)
class StoreCounters:
    """Requests and bytes by kind, since the mount began."""

    kinds: dict[str, KindCount] = field(default_factory=dict)
    throttled: int = 0
    connections_opened: int = 0

    def of(self, kind: str) -> KindCount:
        """The counter of a kind (`get`, `list`), made when first asked for."""
        return self.kinds.setdefault(kind, KindCount())
