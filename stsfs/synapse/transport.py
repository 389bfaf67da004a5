"""Requests to Synapse: paced, retried with jitter, and always with the current token."""

import json
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import tenacity
import trio

import stsfs
from stsfs.errors import SynapseUnavailable
from stsfs.synapse import answers, bodies
from stsfs.synapse.endpoints import Endpoints
from stsfs.synapse.pace import CONCURRENT_REQUESTS_MAX, WINDOW_S, Pace
from stsfs.synapse.records import PARSE_ERRORS

log = logging.getLogger(__name__)

DEADLINE_S = 30.0
"""How long one call may take, retries included; see `Transport` for what does not count."""

RETRY_PAUSE_MAX_S = 8.0
ABSENT: Final = object()
"""What a call returns where Synapse says, in the words expected, that there is no such thing."""

_CONNECT_TIMEOUT_S = 10.0
_JSON = "application/json; charset=UTF-8"
"""Without the charset the server reads a body as Latin-1."""

_SESSION = re.compile(r"sessionID=[A-Za-z0-9._~-]{1,200}(?=;|$)")
"""The session's cookie, as it is sent back."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Requests sent so far, every attempt by itself."""

    foreground: int
    background: int
    throttled: int
    """How many of them Synapse answered with 429."""


@dataclass(frozen=True, slots=True)
class _Request:
    """One request, the same for every attempt."""

    method: str
    url: str
    entity_id: str
    params: Mapping[str, str] | None
    content: bytes | None
    absent_reason: str | None
    background: bool


class Transport:
    """Sends requests of one client, all at one pace.

    Every call raises TokenRejected, a SynapseRefusal, SynapseUnavailable (after the deadline)
    or what `token` raises; nothing else. Every call is a checkpoint and may be cancelled.

    The deadline leaves out the time that we hold a request back ourselves. In the foreground
    that is at most one window of the throttle, so that a server that hangs is noticed; in the
    background it has no limit.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        token: Callable[[], Awaitable[str]],
        deadline_s: float,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.endpoints = endpoints
        self._token = token
        self._deadline_s = deadline_s
        self._pace = Pace()
        self._sent = {False: 0, True: 0}
        self._throttled = 0
        self._sessions: dict[str, str] = {}
        """By host. A session is part of the key of the server's throttle: one for all requests."""

        self._http = httpx.AsyncClient(
            headers={
                "Accept": "application/json",
                "User-Agent": f"stsfs/{stsfs.__version__}",
                **bodies.NOT_ENCODED,
            },
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx.Timeout(deadline_s, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=CONCURRENT_REQUESTS_MAX),
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def host(self) -> str:
        """The server's name, for people."""
        return urlsplit(self.endpoints.repo_url).netloc

    @property
    def counts(self) -> RequestCounts:
        """How many requests were sent."""
        return RequestCounts(self._sent[False], self._sent[True], self._throttled)

    def entity_url(self, entity_id: str, *call: str) -> str:
        """Return the address of a call about one entity; slashes in a part are quoted."""
        parts = (quote(part, safe="") for part in ("entity", entity_id, *call))
        return "/".join((self.endpoints.repo_url, *parts))

    async def get(
        self,
        url: str,
        *,
        entity_id: str = "",
        params: Mapping[str, str] | None = None,
        background: bool = False,
    ) -> object:
        """Return the decoded body of a success; `entity_id` is what errors speak of."""
        return await self._call(_Request("GET", url, entity_id, params, None, None, background))

    async def post(
        self,
        url: str,
        body: Mapping[str, object],
        *,
        entity_id: str = "",
        absent_reason: str | None = None,
        background: bool = False,
    ) -> object:
        """Ask with a JSON body; only for requests that may be repeated without harm.

        Returns the decoded body of a success, or ABSENT for a 404 whose reason contains
        `absent_reason`.
        """
        content = json.dumps(body).encode()
        return await self._call(
            _Request("POST", url, entity_id, None, content, absent_reason, background)
        )

    async def _call(self, request: _Request) -> object:
        """Try until the deadline."""
        last: SynapseUnavailable | None = None
        clock = _Clock(self._deadline_s, may_wait_s=math.inf if request.background else WINDOW_S)
        with clock.scope:
            async for attempt in tenacity.AsyncRetrying(
                sleep=trio.sleep,
                wait=tenacity.wait_random_exponential(multiplier=0.2, max=RETRY_PAUSE_MAX_S),
                retry=tenacity.retry_if_exception_type(SynapseUnavailable),
                reraise=True,
            ):
                with attempt:
                    try:
                        return await self._once(request, clock)
                    except SynapseUnavailable as exc:
                        log.info("%s %s", urlsplit(request.url).path, exc.sentence)
                        last = exc
                        raise
        cause = last.sentence if last else f"{self.host} does not answer."
        kind = SynapseUnavailable if last is None else type(last)
        raise kind(
            f"No success within {self._deadline_s:g} s: {cause}", remedy=last.remedy if last else ""
        )

    async def _once(self, request: _Request, clock: "_Clock") -> object:
        headers = {"Authorization": f"Bearer {await self._token()}"}
        if request.content is not None:
            headers["Content-Type"] = _JSON
        host = urlsplit(request.url).netloc
        if (session := self._sessions.get(host)) is not None:
            headers["Cookie"] = session
        async with self._turn(request, clock):
            self._sent[request.background] += 1
            try:
                async with self._http.stream(
                    request.method,
                    request.url,
                    params=request.params,
                    content=request.content,
                    headers=headers,
                ) as response:
                    received = await bodies.received(response)
            # A name that cannot be that of a host is an InvalidURL here, or a UnicodeError there.
            except (httpx.RequestError, httpx.InvalidURL, UnicodeError) as exc:
                raise answers.unreachable(f"{self.host}: {exc or type(exc).__name__}") from exc
        self._remember_session(host, response.headers)
        body = bodies.decoded(received)
        if response.is_success:
            return body
        status = response.status_code
        self._throttled += status == 429
        absent = request.absent_reason
        if status == 404 and absent is not None and absent in answers.reason_of(body):
            return ABSENT
        raise answers.error_from(status, response.headers, body, entity_id=request.entity_id)

    def _remember_session(self, host: str, headers: httpx.Headers) -> None:
        """Keep the one cookie that Synapse sets; a jar would keep all that a stranger sends."""
        found = next(filter(None, map(_SESSION.match, headers.get_list("set-cookie"))), None)
        if found is not None:
            self._sessions[host] = found[0]

    @asynccontextmanager
    async def _turn(self, request: _Request, clock: "_Clock") -> AsyncIterator[None]:
        clock.pause()
        async with self._pace.request(background=request.background):
            clock.go_on()
            yield


class _Clock:
    """A deadline that stands still while a request waits for its turn; scope of one call."""

    def __init__(self, deadline_s: float, *, may_wait_s: float) -> None:
        now_s = trio.current_time()
        self.scope = trio.CancelScope(deadline=now_s + deadline_s)
        self._left_s = deadline_s
        self._end_s = now_s + deadline_s + may_wait_s
        """When even waiting ends."""

    def pause(self) -> None:
        """A wait for our turn begins."""
        self._left_s = self.scope.deadline - trio.current_time()
        self.scope.deadline = self._end_s

    def go_on(self) -> None:
        """The wait is over."""
        self.scope.deadline = min(trio.current_time() + self._left_s, self._end_s)


def parsed(body: object, what: str, parse: Callable[[Any], T]) -> T:
    """Parse an answer; raises AnswerNotUnderstood where it has not the form it should have."""
    try:
        return parse(body)
    except PARSE_ERRORS:
        raise answers.not_understood(what) from None
