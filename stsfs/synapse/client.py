"""The few calls of the Synapse REST API that a mount makes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from stsfs import values
from stsfs.synapse import records
from stsfs.synapse.endpoints import PRODUCTION, Endpoints
from stsfs.synapse.entities import EntityApi
from stsfs.synapse.records import MODEL, unix_s
from stsfs.synapse.transport import DEADLINE_S, RequestCounts, Transport, parsed

_DESTINATION_KINDS: dict[str, Literal["managed", "external"]] = {
    f"{MODEL}file.S3UploadDestination": "managed",
    f"{MODEL}file.ExternalS3UploadDestination": "external",
}

Permission = Literal["read_only", "read_write"]


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
        self._transport = Transport(
            endpoints, token=token, deadline_s=deadline_s, transport=transport
        )
        self.entities = EntityApi(self._transport)
        """The calls that show entities, at the same pace."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    @property
    def host(self) -> str:
        """The server's name, for `stsfs status`."""
        return self._transport.host

    @property
    def requests(self) -> RequestCounts:
        """How many requests were sent so far, for `stsfs status`."""
        return self._transport.counts

    async def user_profile(self) -> UserProfile:
        """Return the user of the token: the cheapest proof that it is accepted."""
        url = f"{self._transport.endpoints.repo_url}/userProfile"
        return parsed(await self._transport.get(url), "userProfile", _user_profile)

    async def sts_credentials(self, entity_id: str, permission: Permission) -> StsCredentials:
        """Return credentials for the storage location that governs this entity.

        They cover the whole location, whichever of its folders or files was named.
        """
        url = self._transport.entity_url(entity_id, "sts")
        body = await self._transport.get(
            url, entity_id=entity_id, params={"permission": permission}
        )
        return parsed(body, f"the STS request for {entity_id}", _sts_credentials)

    async def entity_header(self, entity_id: str) -> EntityHeader:
        """Return name and kind of one entity."""
        url = self._transport.entity_url(entity_id, "type")
        body = await self._transport.get(url, entity_id=entity_id)
        return parsed(body, f"the request for {entity_id}", _entity_header)

    async def entity_path(self, entity_id: str) -> tuple[EntityHeader, ...]:
        """Return the entities from the root of Synapse down to this one, itself included.

        Names that the user may not read are `Redacted`.
        """
        url = self._transport.entity_url(entity_id, "path")
        body = await self._transport.get(url, entity_id=entity_id)
        return parsed(
            body,
            f"the request for the path of {entity_id}",
            _entity_path,
        )

    async def upload_destination(
        self, entity_id: str, *, background: bool = False
    ) -> UploadDestination:
        """Return the storage location that governs this entity, set here or further up."""
        entity = quote(entity_id, safe="")
        url = f"{self._transport.endpoints.file_url}/entity/{entity}/uploadDestination"
        body = await self._transport.get(url, entity_id=entity_id, background=background)
        return parsed(
            body, f"the request for the storage location of {entity_id}", _upload_destination
        )


def _user_profile(answer: Any) -> UserProfile:
    name = answer.get("userName")
    return UserProfile(
        user_id=records.word(answer, "ownerId"),
        user_name="" if name is None else values.utf8(records.text(answer, "userName")),
    )


def _sts_credentials(answer: Any) -> StsCredentials:
    return StsCredentials(
        bucket=records.bucket(answer, "bucket"),
        base_key=records.base_key(answer, "baseKey"),
        access_key_id=records.word(answer, "accessKeyId"),
        secret_access_key=records.word(answer, "secretAccessKey"),
        session_token=records.word(answer, "sessionToken"),
        expires_at_unix_s=unix_s(answer["expiration"]),
    )


def _entity_header(answer: Any) -> EntityHeader:
    return EntityHeader(
        entity_id=records.entity_id(answer, "id"),
        name=records.entity_name(answer, "name"),
        kind=records.kind_of(records.text(answer, "type")),
    )


def _entity_path(answer: Any) -> tuple[EntityHeader, ...]:
    if len(answer["path"]) > records.PATH_ENTITIES_MAX:
        raise ValueError("the path is too long")
    return tuple(map(_entity_header, answer["path"]))


def _upload_destination(answer: Any) -> UploadDestination:
    return UploadDestination(
        kind=_DESTINATION_KINDS.get(records.text(answer, "concreteType"), "other"),
        storage_location_id=records.number(answer["storageLocationId"]),
        bucket=None if answer.get("bucket") is None else records.bucket(answer, "bucket"),
        base_key=records.base_key(answer, "baseKey"),
        sts_enabled=answer.get("stsEnabled") is True,
    )
