"""What stands before every request of the fake Synapse: counts, tokens, throttles, faults."""

import functools
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from flask import Response, current_app, g, jsonify, request

from stsfs.demo.fake_synapse.answers import MODEL, Json, Refused, oauth_refusal
from stsfs.demo.fake_synapse.state import ALL_SCOPES, ANONYMOUS, State
from stsfs.demo.fake_synapse.storage import Storage
from stsfs.demo.fake_synapse.sts import Vendor

CONCURRENT_MAX = 3
REQUESTS_MAX = 600
WINDOW_S = 60.0

P = ParamSpec("P")
T = TypeVar("T")


def _error(status: int, reason: str) -> tuple[int, Json]:
    return status, {"concreteType": f"{MODEL}ErrorResponse", "reason": reason}


def _oauth(status: int, error: str, description: str) -> tuple[int, Json]:
    return status, oauth_refusal(status, error, description).body


FAULTS: dict[str, tuple[int, Json]] = {
    "token_revoked": _error(401, "Invalid access token"),
    "token_expired": _oauth(401, "invalid_token", "The token has expired."),
    "scope_missing": _oauth(
        403, "insufficient_scope", "Request lacks scope(s) required by this service: modify"
    ),
    "terms_unsigned": _error(403, "Terms of use have not been signed."),
    "lacks_download": _error(403, "You lack DOWNLOAD access to the requested entity."),
    "unmet_requirements": _error(
        403,
        "There are unmet access requirements that must be met to read content in the requested "
        "container.",
    ),
    "two_factor": _error(
        403, "You need to enable two factor authentication to access the requested entity."
    ),
    "not_certified": _error(403, "Only certified users may create or update content in Synapse."),
    "not_found": _error(404, "Resource: 'syn1' does not exist"),
    "throttled": (
        429,
        {"reason": "Requests are too frequent. Allowed 600 requests every 60 seconds."},
    ),
    "internal": _error(500, "Internal server error"),
    "aws_failed": _error(502, "The AWS service did not answer."),
    "unavailable": _error(503, "Service temporarily unavailable, please try again later."),
    "down": _error(503, "Synapse is down for maintenance."),
}
"""Faults by name; any other status and reason can be given in full."""


@dataclass(slots=True)
class Fault:
    """What happens to requests instead of, or before, their answer."""

    kind: str = ""
    """A key of FAULTS; empty for status and reason below, or for a delay alone."""

    status: int = 0
    reason: str = ""
    path: str = ""
    """Only requests whose `METHOD /path` contains this."""

    times: int | None = None
    """How many requests it hits; None until it is cleared."""

    delay_s: float = 0.0


class Faults:
    """The faults in force; the oldest that matches is used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.stopped = threading.Event()
        """Ends all delays, so that a server can stop while requests are held."""

        self.held = threading.Semaphore(0)
        """Released once for every request that begins to be delayed: tests wait for it."""

    def add(self, fault: Fault) -> None:
        """Put a fault in force. Raises ValueError for a kind that does not exist."""
        if fault.kind and fault.kind not in FAULTS:
            raise ValueError(f"no fault {fault.kind!r}; there are {', '.join(FAULTS)}")
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Behave again."""
        with self._lock:
            self._faults.clear()

    def take(self, line: str) -> Fault | None:
        """Return the fault for a request, using it up by one."""
        with self._lock:
            fault = next((each for each in self._faults if each.path in line), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
            return fault


class Throttle:
    """The server's limits per user: 3 requests at once, 600 in a minute."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.refused = 0
        """How many requests were answered with 429."""

        self._lock = threading.Lock()
        self._running: Counter[int] = Counter()
        self._recent: dict[int, deque[float]] = {}

    def enter(self, user_id: int) -> bool:
        """Admit a request, which must `leave`; False where it need not. Raises Refused 429."""
        if not self.enabled or user_id == ANONYMOUS:
            return False
        now_s = time.monotonic()
        with self._lock:
            recent = self._recent.setdefault(user_id, deque())
            while recent and recent[0] <= now_s - WINDOW_S:
                recent.popleft()
            if self._running[user_id] >= CONCURRENT_MAX:
                self.refused += 1
                raise _throttled(
                    f"Too many concurrent requests. Allowed {CONCURRENT_MAX} concurrent "
                    "connections at any time."
                )
            if len(recent) >= REQUESTS_MAX:
                self.refused += 1
                raise _throttled(
                    f"Requests are too frequent. Allowed {REQUESTS_MAX} requests every "
                    f"{WINDOW_S:.0f} seconds."
                )
            recent.append(now_s)
            self._running[user_id] += 1
        return True

    def leave(self, user_id: int) -> None:
        """A request that entered has ended."""
        with self._lock:
            self._running[user_id] -= 1


def _throttled(reason: str) -> Refused:
    return Refused(429, reason, {"reason": reason})


@dataclass(slots=True)
class Services:
    """All that the views work with."""

    state: State
    vendor: Vendor
    storage: Storage | None
    throttle: Throttle
    faults: Faults = field(default_factory=Faults)
    counts_lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, Any] = field(default_factory=dict)
    """What was begun and may be asked for, by its token; the oldest first."""


def services() -> Services:
    """Return the services of the app that handles the present request."""
    found: Services = current_app.extensions["fake_synapse"]
    return found


def the_state() -> State:
    """Return the state of the app that handles the present request."""
    return services().state


def caller() -> int:
    """Return the user id of the present request."""
    user_id: int = g.user_id
    return user_id


def needs(*scopes: str, locked: bool = True) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Demand scopes of the token, and hold the state's lock while the view runs.

    A view that calls S3 takes the lock itself, for as long as it looks at the state.
    """

    def decorate(view: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            missing = sorted(set(scopes) - g.scopes)
            if missing:
                raise oauth_refusal(
                    403,
                    "insufficient_scope",
                    f"Request lacks scope(s) required by this service: {', '.join(missing)}",
                )
            if not locked:
                return view(*args, **kwargs)
            with the_state().lock:
                return view(*args, **kwargs)

        return checked

    return decorate


def json_body() -> Json:
    """Return the JSON object of the request; 400 for anything else."""
    body: Any = request.get_json(silent=True, force=True)
    if not isinstance(body, dict):
        raise Refused(400, "The request body is not a JSON object.")
    return body


def before() -> Response | None:
    """Count, authenticate, throttle and disturb a request, in this order."""
    g.entered = False
    if request.path.startswith("/_test/"):
        return None
    line = f"{request.method} {request.path}"
    with services().counts_lock:
        services().counts[line] += 1
    g.user_id, g.scopes = _authenticate()
    g.entered = services().throttle.enter(g.user_id)
    fault = services().faults.take(line)
    if fault is not None:
        if fault.delay_s:
            services().faults.held.release()
            services().faults.stopped.wait(fault.delay_s)
        if fault.kind or fault.status:
            status, body = FAULTS.get(fault.kind) or _error(fault.status, fault.reason)
            return answer(status, body)
    if not the_state().users[g.user_id].terms_signed:
        raise Refused(403, "Terms of use have not been signed.")
    return None


def after(_: BaseException | None) -> None:
    """Give back the place of the request, whichever way it ended."""
    if g.get("entered"):
        services().throttle.leave(g.user_id)


def refused(refusal: Refused) -> Response:
    """Turn a refusal into its answer."""
    return answer(refusal.status, refusal.body)


def answer(status: int, body: Json) -> Response:
    """Make a response with a status, and the header that goes with 401."""
    response: Response = jsonify(body)
    response.status_code = status
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="Synapse Repository Services"'
    return response


def _authenticate() -> tuple[int, frozenset[str]]:
    header = request.headers.get("Authorization", "")
    token = re.sub(r"^Bearer\s+", "", header) if header else request.headers.get("sessionToken")
    if not token:
        return ANONYMOUS, ALL_SCOPES
    with the_state().lock:
        known = the_state().tokens.get(token)
    if known is None:
        raise Refused(401, "Invalid access token")
    return known
