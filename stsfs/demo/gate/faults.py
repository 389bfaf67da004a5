"""Faults that the gate injects: rules as data, decided by counters, so that runs repeat."""

import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import trio

from stsfs.demo.s3_wire import Refusal

_MESSAGES = {
    "SlowDown": "Please reduce your request rate.",
    "InternalError": "We encountered an internal error. Please try again.",
    "PreconditionFailed": "At least one of the pre-conditions you specified did not hold",
    "AccessDenied": "Access Denied",
    "ExpiredToken": "The provided token has expired.",
}
_CODES = {
    400: "ExpiredToken", 403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed",
    500: "InternalError", 503: "SlowDown",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with this error instead of asking upstream."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class CutBody:
    """Close the connection after so many bytes of the body, short of its Content-Length."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class Stall:
    """Be silent for a while, before the head or after so many bytes of the body."""

    seconds_s: float
    after_bytes: int | None = None
    """None: before the head."""


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the connection without an answer."""


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Forward the request, and close the connection instead of passing the answer on."""


@dataclass(slots=True, eq=False)
class Hold:
    """Be silent until a test lets go: before the request is forwarded, or before its answer is.

    Meanwhile upstream has not got the request, or has carried it out.
    """

    before: Literal["request", "answer"]
    goes_on: bool = True
    """What `let_go` has said: whether to go on, or to close the connection."""

    _reached: threading.Event = field(default_factory=threading.Event)
    _let_go: threading.Event = field(default_factory=threading.Event)

    def wait_reached(self, timeout_s: float) -> None:
        """Block until a request is held. Raises TimeoutError."""
        if not self._reached.wait(timeout_s):
            raise TimeoutError(f"no request to hold came within {timeout_s} s")

    def let_go(self, *, goes_on: bool = True) -> None:
        """End the silence, of requests to come as well; not goes_on: without an answer."""
        self.goes_on = goes_on
        self._let_go.set()

    async def wait(self) -> bool:
        """Hold a request in the gate's loop; return whether to go on with it."""
        self._reached.set()
        await trio.to_thread.run_sync(self._let_go.wait, abandon_on_cancel=True)
        return self.goes_on


@dataclass(frozen=True, slots=True)
class Region:
    """The bucket lives in this region: requests signed for another one are sent away."""

    region: str
    status: int
    """301 PermanentRedirect or 400 AuthorizationHeaderMalformed."""

    def refusal(self, signed_region: str) -> Refusal:
        """The answer to a request that was signed for the wrong region."""
        headers = (("x-amz-bucket-region", self.region),)
        if self.status == 301:
            message = "The bucket you are attempting to access must be addressed using the "
            message += "specified endpoint."
            details = {"Endpoint": f"s3.{self.region}.amazonaws.com"}
            return Refusal(301, "PermanentRedirect", message, details, headers)
        message = f"The authorization header is malformed; the region '{signed_region}' is "
        message += f"wrong; expecting '{self.region}'"
        code = "AuthorizationHeaderMalformed"
        return Refusal(400, code, message, {"Region": self.region}, headers)


Effect = Answer | CutBody | Stall | Hangup | LoseAnswer | Hold | Region


@dataclass(slots=True, eq=False)
class Rule:
    """When one effect applies. Matching requests are counted from 1."""

    effect: Effect
    every: int = 1
    """Applies to the matching requests `every`, `2 * every`, …"""

    limit: int | None = None
    """How often it applies at most; None for ever."""

    kinds: frozenset[str] = frozenset()
    """Kinds as in RequestLog (GET, LIST, HEAD, PUT …); empty for all."""

    key_prefix: str = ""
    """Matches the start of the key, or of the prefix that a LIST asks for."""

    probability: float = 1.0
    seed: int = 0
    matched: int = 0
    applied: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def take(self, kind: str, key: str, signed_region: str) -> bool:
        """Count the request if it matches; return whether the effect applies to it."""
        if (self.kinds and kind not in self.kinds) or not key.startswith(self.key_prefix):
            return False
        if isinstance(self.effect, Region) and self.effect.region == signed_region:
            return False
        if self.limit is not None and self.applied >= self.limit:
            return False
        self.matched += 1
        hit = self.matched % self.every == 0 and self._random.random() < self.probability
        self.applied += hit
        return hit


class FaultPlan:
    """A list of rules that may change while the gate runs. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> Rule:
        """Append a rule; `rule.applied` tells later how often it struck."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """End one rule; one that is not there is no error."""
        with self._lock:
            self._rules = [each for each in self._rules if each is not rule]

    def clear(self) -> None:
        """End all rules; what is held loses its connection."""
        with self._lock:
            for rule in self._rules:
                if isinstance(rule.effect, Hold):
                    rule.effect.let_go(goes_on=False)
            self._rules.clear()

    def effects(self, kind: str, key: str, signed_region: str = "") -> list[Effect]:
        """Count one request against all rules, and return what happens to it, in their order."""
        with self._lock:
            return [r.effect for r in self._rules if r.take(kind, key, signed_region)]

    def every_nth(
        self, every: int, *, status: int = 503, code: str = "", kinds: Iterable[str] = (),
        key_prefix: str = "", limit: int | None = None,
    ) -> Rule:  # fmt: skip
        """Answer each n-th matching request with an error; the code follows from the status."""
        return self.add(Rule(_answer(status, code), every, limit, frozenset(kinds), key_prefix))

    def status_once(
        self, status: int, *, code: str = "", kinds: Iterable[str] = (), key_prefix: str = ""
    ) -> Rule:
        """Answer the next matching request with an error, and no further one."""
        return self.every_nth(
            1, status=status, code=code, kinds=kinds, key_prefix=key_prefix, limit=1
        )

    def randomly(
        self, probability: float, *, seed: int, status: int = 503, code: str = "",
        kinds: Iterable[str] = (), key_prefix: str = "",
    ) -> Rule:  # fmt: skip
        """Answer matching requests with an error, at random but the same for each seed."""
        effect, filtered = _answer(status, code), frozenset(kinds)
        return self.add(Rule(effect, 1, None, filtered, key_prefix, probability, seed))

    def cut_body(
        self, every: int = 1, *, after_bytes: int, kinds: Iterable[str] = ("GET",),
        key_prefix: str = "", limit: int | None = None,
    ) -> Rule:  # fmt: skip
        """Close the connection in the middle of a body."""
        return self.add(Rule(CutBody(after_bytes), every, limit, frozenset(kinds), key_prefix))

    def stall(
        self, every: int = 1, *, seconds_s: float, after_bytes: int | None = None,
        kinds: Iterable[str] = (), key_prefix: str = "", limit: int | None = None,
    ) -> Rule:  # fmt: skip
        """Say nothing for a while, before the head or in the middle of the body."""
        effect = Stall(seconds_s, after_bytes)
        return self.add(Rule(effect, every, limit, frozenset(kinds), key_prefix))

    def hang_up(
        self, every: int = 1, *, kinds: Iterable[str] = (), key_prefix: str = "",
        limit: int | None = None,
    ) -> Rule:  # fmt: skip
        """Close the connection without an answer."""
        return self.add(Rule(Hangup(), every, limit, frozenset(kinds), key_prefix))

    def lose_answer(
        self, every: int = 1, *, kinds: Iterable[str] = (), key_prefix: str = "",
        limit: int | None = None,
    ) -> Rule:  # fmt: skip
        """Let the request happen, and close the connection without its answer."""
        return self.add(Rule(LoseAnswer(), every, limit, frozenset(kinds), key_prefix))

    def hold(
        self, before: Literal["request", "answer"], nth: int = 1, *, kinds: Iterable[str] = (),
        key_prefix: str = "",
    ) -> Hold:  # fmt: skip
        """Hold the n-th matching request, and no other, until the test lets it go."""
        effect = Hold(before)
        self.add(Rule(effect, nth, 1, frozenset(kinds), key_prefix))
        return effect

    def wrong_region(self, region: str, *, status: int = 400) -> Rule:
        """Put the bucket into `region`: whoever signs for another is told so."""
        return self.add(Rule(Region(region, status)))


def _answer(status: int, code: str) -> Answer:
    code = code or _CODES.get(status, "InternalError")
    return Answer(Refusal(status, code, _MESSAGES.get(code, code)))
