"""The few calls of the Synapse REST API that a mount makes."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import tenacity
import trio

import stsfs
from stsfs.errors import SynapseUnavailable
from stsfs.synapse import answers
from stsfs.synapse.endpoints import PRODUCTION, Endpoints
from stsfs.synapse.pace import CONCURRENT_REQUESTS_MAX, Pace

log = logging.getLogger(__name__)

DEADLINE_S = 30.0
"""How long one call may take, retries and waiting for our turn included."""

RETRY_PAUSE_MAX_S = 8.0
_CONNECT_TIMEOUT_S = 10.0
_MODEL = "org.sagebionetworks.repo.model."
_DESTINATION_KINDS: dict[str, Literal["managed", "external"]] = {
    f"{_MODEL}file.S3UploadDestination": "managed",
    f"{_MODEL}file.ExternalS3UploadDestination": "external",
}

Permission = Literal["read_only", "read_write"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UserProfile:
    """Who the token belongs to."""

    user_id: str
    user_name: str


@dataclass(frozen=True, slots=True)
class StsCredentials:
    """Temporary credentials for a whole storage location; secrets stay out of `repr`."""

    bucket: str
    base_key: str
    """Empty for the whole bucket; never begins or ends with `/`."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at_unix_s: float


@dataclass(frozen=True, slots=True)
class EntityHeader:
    """One entity, as lists and paths show it."""

    entity_id: str
    name: str
    kind: str
    """The last word of its class: `Project`, `Folder`, `FileEntity` …"""


@dataclass(frozen=True, slots=True)
class UploadDestination:
    """Where files below an entity are stored, as everyone with a token may know it."""

    kind: Literal["managed", "external", "other"]
    """Storage of Synapse itself, a bucket of one's own, or something that is not S3."""

    storage_location_id: int
    bucket: str | None
    """None for managed storage: there the STS credentials name the bucket."""

    base_key: str
    sts_enabled: bool


class SynapseClient:
    """Asks Synapse, patiently: paced, retried with jitter, and always with the current token.

    Every method raises TokenRejected, a SynapseRefusal, SynapseUnavailable (after the deadline,
    or for an answer that is not Synapse's) or what `token` raises; nothing else. Every method is
    a checkpoint and may be cancelled. Use it as an async context manager, or call `aclose`.
    """

    def __init__(
        self,
        endpoints: Endpoints = PRODUCTION,
        *,
        token: Callable[[], Awaitable[str]],
        deadline_s: float = DEADLINE_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._token = token
        self._deadline_s = deadline_s
        self._pace = Pace()
        # One session cookie for all requests: it is part of the key of the server's throttle.
        self._http = httpx.AsyncClient(
            headers={
                "Accept": "application/json",
                "User-Agent": f"stsfs/{stsfs.__version__}",
            },
            timeout=httpx.Timeout(deadline_s, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=CONCURRENT_REQUESTS_MAX),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def host(self) -> str:
        """The server's name, for `stsfs status`."""
        return urlsplit(self._endpoints.repo_url).netloc

    async def user_profile(self) -> UserProfile:
        """Return the user of the token: the cheapest proof that it is accepted."""
        url = f"{self._endpoints.repo_url}/userProfile"
        return _parsed(await self._get(url), "userProfile", _user_profile)

    async def sts_credentials(self, entity_id: str, permission: Permission) -> StsCredentials:
        """Return credentials for the storage location that governs this entity.

        They cover the whole location, whichever of its folders or files was named.
        """
        url = f"{self._endpoints.repo_url}/entity/{quote(entity_id, safe='')}/sts"
        body = await self._get(url, entity_id=entity_id, params={"permission": permission})
        return _parsed(body, f"the STS request for {entity_id}", _sts_credentials)

    async def entity_header(self, entity_id: str) -> EntityHeader:
        """Return name and kind of one entity."""
        url = f"{self._endpoints.repo_url}/entity/{quote(entity_id, safe='')}/type"
        body = await self._get(url, entity_id=entity_id)
        return _parsed(body, f"the request for {entity_id}", _entity_header)

    async def entity_path(self, entity_id: str) -> tuple[EntityHeader, ...]:
        """Return the entities from the root of Synapse down to this one, itself included.

        Names that the user may not read are `Redacted`.
        """
        url = f"{self._endpoints.repo_url}/entity/{quote(entity_id, safe='')}/path"
        body = await self._get(url, entity_id=entity_id)
        return _parsed(
            body,
            f"the request for the path of {entity_id}",
            lambda answer: tuple(_entity_header(entry) for entry in answer["path"]),
        )

    async def upload_destination(self, entity_id: str) -> UploadDestination:
        """Return the storage location that governs this entity, set here or further up."""
        entity = quote(entity_id, safe="")
        url = f"{self._endpoints.file_url}/entity/{entity}/uploadDestination"
        body = await self._get(url, entity_id=entity_id)
        return _parsed(
            body, f"the request for the storage location of {entity_id}", _upload_destination
        )

    async def _get(
        self, url: str, *, entity_id: str = "", params: dict[str, str] | None = None
    ) -> object:
        """Return the decoded body of a success, trying again until the deadline."""
        last: SynapseUnavailable | None = None
        with trio.move_on_after(self._deadline_s):
            async for attempt in tenacity.AsyncRetrying(
                sleep=trio.sleep,
                wait=tenacity.wait_random_exponential(multiplier=0.2, max=RETRY_PAUSE_MAX_S),
                retry=tenacity.retry_if_exception_type(SynapseUnavailable),
                reraise=True,
            ):
                with attempt:
                    try:
                        return await self._get_once(url, entity_id, params)
                    except SynapseUnavailable as exc:
                        log.info("%s %s", urlsplit(url).path, exc.sentence)
                        last = exc
                        raise
        cause = last.sentence if last else f"{self.host} does not answer."
        raise SynapseUnavailable(
            f"No success within {self._deadline_s:g} s: {cause}", remedy=last.remedy if last else ""
        )

    async def _get_once(self, url: str, entity_id: str, params: dict[str, str] | None) -> object:
        headers = {"Authorization": f"Bearer {await self._token()}"}
        async with self._pace.request():
            try:
                response = await self._http.get(url, params=params, headers=headers)
            except httpx.RequestError as exc:
                raise answers.unreachable(f"{self.host}: {exc or type(exc).__name__}") from exc
        body = _decoded(response)
        if response.is_success:
            return body
        raise answers.error_from(response.status_code, response.headers, body, entity_id=entity_id)


def _decoded(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return response.text


def _parsed(body: object, what: str, parse: Callable[[Any], T]) -> T:
    """Parse an answer; raises SynapseUnavailable where it has not the form it should have."""
    try:
        return parse(body)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise answers.not_understood(what) from None


def _user_profile(answer: Any) -> UserProfile:
    return UserProfile(user_id=str(answer["ownerId"]), user_name=str(answer.get("userName", "")))


def _sts_credentials(answer: Any) -> StsCredentials:
    expiration = datetime.fromisoformat(answer["expiration"])
    if expiration.tzinfo is None:
        expiration = expiration.replace(tzinfo=UTC)
    return StsCredentials(
        bucket=str(answer["bucket"]),
        base_key=str(answer.get("baseKey", "")).strip("/"),
        access_key_id=str(answer["accessKeyId"]),
        secret_access_key=str(answer["secretAccessKey"]),
        session_token=str(answer["sessionToken"]),
        expires_at_unix_s=expiration.timestamp(),
    )


def _entity_header(answer: Any) -> EntityHeader:
    return EntityHeader(
        entity_id=str(answer["id"]),
        name=str(answer["name"]),
        kind=str(answer["type"]).rpartition(".")[2],
    )


def _upload_destination(answer: Any) -> UploadDestination:
    return UploadDestination(
        kind=_DESTINATION_KINDS.get(answer["concreteType"], "other"),
        storage_location_id=int(answer["storageLocationId"]),
        bucket=answer.get("bucket"),
        base_key=str(answer.get("baseKey", "")).strip("/"),
        sts_enabled=answer.get("stsEnabled") is True,
    )
