"""What the gate does with one connection: judge each request, forward it, relay the answer."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal

import trio

from stsfs.demo.gate import session_policy, sigv4_check
from stsfs.demo.gate.faults import (
    Answer,
    CutBody,
    Effect,
    FaultPlan,
    Hangup,
    Hold,
    LoseAnswer,
    Region,
    Stall,
)
from stsfs.demo.gate.sessions import KeyRing, Session
from stsfs.demo.gate.trio_wire import ConnectionLost, Wire
from stsfs.demo.request_log import RequestLog, SeenRequest, kind_of
from stsfs.demo.s3_wire import (
    BadRequest,
    Headers,
    Refusal,
    RequestHead,
    ResponseHead,
    parse_request,
    parse_response,
    request_bytes,
    response_bytes,
    xml_values,
)

BUFFERED_BYTES_MAX = 1024 * 1024
"""Request bodies up to here are held, compared with their signed hash, and sent again if need be;
larger ones stream through unchecked."""

_HOP_HEADERS = frozenset({"connection", "keep-alive", "expect", "proxy-connection", "te"})
_AUTH_HEADERS = frozenset({"authorization", "x-amz-security-token", "x-amz-date"})


@dataclass(slots=True)
class _Order:
    """One request on its way."""

    head: RequestHead
    raw_head: bytes
    session: Session
    payload_hash: str
    record: SeenRequest
    effects: list[Effect]
    body: bytes | None = None
    """None when it is too long to be held, or chunked."""


@dataclass(slots=True)
class Exchanges:
    """Serves connections; holds what they share. All of it runs in the gate's own loop."""

    upstream_host: str
    upstream_port: int
    keys: KeyRing
    upstream_keys: Session | None
    upstream_region: str
    faults: FaultPlan
    requests: RequestLog
    denied: RequestLog
    now_unix_s: Callable[[], float]
    _ids: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    async def serve(self, client_socket: trio.socket.SocketType) -> None:
        """Answer requests until either side closes. Never raises for what a peer does."""
        client_socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        connection = _Connection(self, Wire(client_socket))
        try:
            while await connection.answer_one():
                pass
        except (OSError, BadRequest):
            return  # either peer has gone, or does not speak HTTP
        finally:
            connection.close()

    def judge(self, head: RequestHead) -> sigv4_check.Accepted | Refusal:
        """Check signature, session and policy."""
        verdict = sigv4_check.verify(head, self.keys, now_unix_s=self.now_unix_s())
        if isinstance(verdict, Refusal):
            return verdict
        action = session_policy.classify(head.method, head.raw_path, head.raw_query, head.headers)
        return session_policy.decide(action, verdict.session) or verdict

    def own_headers(self) -> list[tuple[str, str]]:
        """What every answer of the gate's own carries."""
        return [
            ("x-amz-request-id", f"{next(iter(self._ids)):016X}"),
            ("date", formatdate(self.now_unix_s(), usegmt=True)),
            ("server", "AmazonS3"),
        ]

    def forwarded(self, head: RequestHead) -> RequestHead:
        """The request as upstream gets it: its own host, and signed anew or not at all."""
        query = sigv4_check.without_presigning(head.raw_query)
        headers: Headers = tuple(
            item for item in head.headers
            if item[0] not in _HOP_HEADERS and item[0] not in _AUTH_HEADERS and item[0] != "host"
        )  # fmt: skip
        headers = (("host", f"{self.upstream_host}:{self.upstream_port}"), *headers)
        request = RequestHead(head.method, head.raw_path, query, headers)
        if self.upstream_keys is not None:
            request.headers = sigv4_check.signing_headers(
                request,
                self.upstream_keys,
                region=self.upstream_region,
                now_unix_s=self.now_unix_s(),
            )
        return request


class _Connection:
    """One client and, while it lasts, one connection to upstream that belongs to it alone."""

    def __init__(self, exchanges: Exchanges, client: Wire) -> None:
        self._x = exchanges
        self._client = client
        self._upstream: Wire | None = None

    def close(self) -> None:
        self._client.close()
        self._drop_upstream()

    async def answer_one(self) -> bool:
        """Serve one request; return whether the client may send another."""
        raw_head = await self._client.read_head()
        if raw_head is None:
            return False
        head = parse_request(raw_head)
        kind = kind_of(head)
        verdict = self._x.judge(head)
        if isinstance(verdict, Refusal):
            record = self._x.requests.see(head, kind, verdict.code)
            self._x.denied.add(record)
            return await self._refuse_early(head, raw_head, record, verdict)
        effects = self._x.faults.effects(
            kind, head.key or head.params.get("prefix", ""), verdict.region
        )
        refusal = _injected(effects, verdict.region)
        record = self._x.requests.see(head, kind, refusal.code if refusal else "")
        if any(isinstance(effect, Hangup) for effect in effects):
            return False
        for effect in effects:
            if isinstance(effect, Stall) and effect.after_bytes is None:
                await trio.sleep(effect.seconds_s)
                if self._client.is_reset():
                    return False  # a load balancer gives it up, too
        if not await _held(effects, "request"):
            return False
        if refusal is not None:
            return await self._refuse_early(head, raw_head, record, refusal)
        order = _Order(head, raw_head, verdict.session, verdict.payload_hash, record, effects)
        return await self._forward(order)

    async def _refuse_early(
        self, head: RequestHead, raw_head: bytes, record: SeenRequest, refusal: Refusal
    ) -> bool:
        # Who waits for "100 Continue" sends no body after a refusal, or does: only a new
        # connection is unambiguous.
        keep = head.keep_alive and not head.expects_continue
        if keep:
            await self._relay_request_body(head, raw_head, None)
        await self._refuse(head, record, refusal, keep)
        return keep

    async def _refuse(
        self, head: RequestHead, record: SeenRequest, refusal: Refusal, keep: bool
    ) -> None:
        body = b"" if head.method == "HEAD" else refusal.body(head.raw_path)
        headers = [*self._x.own_headers(), *refusal.headers, ("content-type", "application/xml")]
        if head.method == "HEAD":
            headers.append(("transfer-encoding", "chunked"))  # as S3: no length, no body
        else:
            headers.append(("content-length", str(len(body))))
        if not keep:
            headers.append(("connection", "close"))
        record.status, record.verdict = refusal.status, refusal.code
        record.body_bytes = len(body)
        await self._client.send(response_bytes(refusal.status, headers) + body)

    async def _forward(self, order: _Order) -> bool:
        head = order.head
        if head.expects_continue:
            await self._client.send(response_bytes(100, ()))
        length_bytes = head.content_length_bytes
        if length_bytes is not None and length_bytes <= BUFFERED_BYTES_MAX:
            order.body = await self._client.read_exactly(length_bytes)
            refusal = _body_refusal(order)
            if refusal is not None:
                order.record.verdict = refusal.code
                self._x.denied.add(order.record)
                await self._refuse(head, order.record, refusal, head.keep_alive)
                return head.keep_alive
        try:
            raw_response = await self._ask(order)
        except (OSError, BadRequest) as exc:
            self._drop_upstream()
            gone = Refusal(503, "ServiceUnavailable", f"upstream: {exc}")
            await self._refuse(head, order.record, gone, keep=False)
            return False
        if any(isinstance(effect, LoseAnswer) for effect in order.effects):
            order.record.status = parse_response(raw_response).status
            self._drop_upstream()
            return False
        if not await _held(order.effects, "answer"):
            return False
        return await self._relay_answer(order, raw_response)

    async def _ask(self, order: _Order) -> bytes:
        """Send the request upstream; return the head of the answer."""
        request = self._x.forwarded(order.head)
        raw = request_bytes(request.method, request.raw_path, request.raw_query, request.headers)
        if order.body is None:
            self._drop_upstream()  # a body that streams cannot be sent twice: no stale connection
        for _ in range(2):
            reused = self._upstream is not None
            upstream = await self._connect()
            try:
                await upstream.send(raw + (order.body or b""))
                if order.body is None:
                    await self._relay_request_body(order.head, order.raw_head, upstream)
                answer = await upstream.read_head()
            except OSError:
                if not reused:
                    raise
                answer = None
            if answer is not None:
                return answer
            self._drop_upstream()
            if not reused:
                break
        raise ConnectionLost("closed without an answer")

    async def _relay_answer(self, order: _Order, raw_response: bytes) -> bool:
        assert self._upstream is not None
        head, record = order.head, order.record
        response = parse_response(raw_response)
        masked = (
            response.status == 404
            and record.kind in ("GET", "HEAD", "COPY")  # of a copy, the source is missing
            and bool(head.key)
            and session_policy.hides_missing_keys(order.session)
        )
        if masked:
            await self._relay_body(order, response, raw_response, None)
            denied = Refusal(403, "AccessDenied", "Access Denied")
            await self._refuse(head, record, denied, head.keep_alive)
            keep = head.keep_alive
        else:
            until_close = _until_close(head, response)
            keep = head.keep_alive and not until_close
            headers = [
                item for item in response.headers
                if item[0] not in _HOP_HEADERS and item[0] != "date"
            ]  # fmt: skip
            headers.append(("date", formatdate(self._x.now_unix_s(), usegmt=True)))
            if not keep:
                headers.append(("connection", "close"))
            record.status = response.status
            await self._client.send(response_bytes(response.status, headers))
            if not await self._relay_body(order, response, raw_response, self._client):
                return False
        if not response.keep_alive:
            self._drop_upstream()
        return keep

    async def _relay_body(
        self, order: _Order, response: ResponseHead, raw_response: bytes, target: Wire | None
    ) -> bool:
        """Move the answer's body; return False if a fault has cut it."""
        upstream, record = self._upstream, order.record
        assert upstream is not None
        if not _has_body(order.head, response):
            return True

        def tell(piece_bytes: int) -> None:
            record.body_bytes += piece_bytes

        if "chunked" in response.header("transfer-encoding"):
            await upstream.relay_chunked(raw_response, target, tell, response=True)
            return True
        length = response.header("content-length")
        length_bytes = int(length) if length else None
        for effect in order.effects if target is not None else ():
            after_bytes = _interruption(effect)
            if after_bytes is None or length_bytes is None or after_bytes >= length_bytes:
                continue
            await upstream.relay(target, max(0, after_bytes - record.body_bytes), tell)
            if isinstance(effect, CutBody):
                return False
            assert isinstance(effect, Stall)
            await trio.sleep(effect.seconds_s)
        left_bytes = None if length_bytes is None else length_bytes - record.body_bytes
        await upstream.relay(target, left_bytes, tell)
        return True

    async def _relay_request_body(
        self, head: RequestHead, raw_head: bytes, target: Wire | None
    ) -> None:
        length_bytes = head.content_length_bytes
        if length_bytes is None:
            await self._client.relay_chunked(raw_head, target, response=False)
        else:
            await self._client.relay(target, length_bytes)

    async def _connect(self) -> Wire:
        if self._upstream is None:
            stream = await trio.open_tcp_stream(self._x.upstream_host, self._x.upstream_port)
            self._upstream = Wire(stream.socket)
        return self._upstream

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None


async def _held(effects: Iterable[Effect], before: Literal["request", "answer"]) -> bool:
    """Wait while a test wants that; return whether to go on."""
    holds = [each for each in effects if isinstance(each, Hold) and each.before == before]
    return all([await each.wait() for each in holds])


def _injected(effects: Iterable[Effect], signed_region: str) -> Refusal | None:
    for effect in effects:
        if isinstance(effect, Answer):
            return effect.refusal
        if isinstance(effect, Region):
            return effect.refusal(signed_region)
    return None


def _interruption(effect: Effect) -> int | None:
    return effect.after_bytes if isinstance(effect, CutBody | Stall) else None


def _body_refusal(order: _Order) -> Refusal | None:
    assert order.body is not None
    if not sigv4_check.payload_matches(order.payload_hash, order.body):
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        return Refusal(400, "XAmzContentSHA256Mismatch", message)
    keys = xml_values(order.body, "Key") if order.record.kind == "DELETE_MANY" else []
    if session_policy.decide_deletes(keys, order.session):
        # S3 refuses key by key; a client that stays within the policy sees neither.
        return Refusal(403, "AccessDenied", "Access Denied")
    return None


def _has_body(head: RequestHead, response: ResponseHead) -> bool:
    return head.method != "HEAD" and response.status not in (204, 304)


def _until_close(head: RequestHead, response: ResponseHead) -> bool:
    framed = response.header("content-length") or "chunked" in response.header("transfer-encoding")
    return _has_body(head, response) and not framed
