"""Credentials for the storage location of a Synapse entity (`GET /entity/{id}/sts`)."""

from collections.abc import Callable
from typing import Literal, Protocol

from stsfs.credentials.credentials import Credentials
from stsfs.errors import AccessDenied, SynapseRefusal
from stsfs.values import bucket_name

Permission = Literal["read_only", "read_write"]


class StsGrant(Protocol):
    """What Synapse answers: credentials, and the storage location that they cover."""

    @property
    def bucket(self) -> str: ...  # noqa: D102
    @property
    def base_key(self) -> str:
        """Empty for the whole bucket."""

    @property
    def access_key_id(self) -> str: ...  # noqa: D102
    @property
    def secret_access_key(self) -> str: ...  # noqa: D102
    @property
    def session_token(self) -> str: ...  # noqa: D102
    @property
    def expires_at_unix_s(self) -> float: ...  # noqa: D102


class StsService(Protocol):
    """The one call of the Synapse client that this source needs."""

    async def sts_credentials(self, entity_id: str, permission: Permission, /) -> StsGrant:
        """Raises TokenRejected, SynapseRefusal, SynapseUnavailable or NoSynapseToken."""


class SynapseStsSource:
    """Fetches credentials from Synapse, always for one and the same storage location.

    Synapse tells where the data are with every set. The owner may point the entity elsewhere
    while it is mounted; cached bytes and open files belong to the old place, so the new one is
    refused rather than followed.
    """

    def __init__(
        self,
        client: StsService,
        token_place: Callable[[], str],
        entity_id: str,
        permission: Permission,
        expected: tuple[str, str] | None = None,
    ) -> None:
        """Take `expected` (bucket, base key); None accepts, and keeps, what comes first.

        `token_place` tells where the Synapse token comes from: it may be known only after a fetch.
        """
        self._client = client
        self._token_place = token_place
        self._entity_id = entity_id
        self._permission = permission
        self._expected = expected

    @property
    def description(self) -> str:
        """One line for `stsfs status`."""
        how = self._permission.replace("_", "-")
        return f"Synapse STS for {self._entity_id}, {how}, token from {self._token_place()}"

    @property
    def bucket_and_base_key(self) -> tuple[str, str] | None:
        """The storage location; None before the first fetch, unless given."""
        return self._expected

    async def fetch(self) -> Credentials:
        """Get a fresh set.

        Raises AccessDenied if Synapse now names another location, SynapseRefusal for what can be no
        credentials, or what the client raises.
        """
        grant = await self._client.sts_credentials(self._entity_id, self._permission)
        try:
            place = (bucket_name(grant.bucket), grant.base_key)
        except ValueError:
            raise _nonsense(self._entity_id) from None
        if self._expected is None:
            self._expected = place
        if place != self._expected:
            raise AccessDenied(
                f"{self._entity_id} has moved from {_uri(self._expected)} to {_uri(place)}"
                " since it was mounted.",
                remedy="Unmount it and mount it again to see its new storage location.",
            )
        try:
            return Credentials(
                access_key_id=grant.access_key_id,
                secret_access_key=grant.secret_access_key,
                session_token=grant.session_token,
                expires_at_unix_s=grant.expires_at_unix_s,
            )
        except ValueError:
            raise _nonsense(self._entity_id) from None


def _nonsense(entity_id: str) -> SynapseRefusal:
    return SynapseRefusal(f"What Synapse gives for {entity_id} can be no bucket or credentials.")


def _uri(place: tuple[str, str]) -> str:
    return "s3://" + "/".join(place).rstrip("/")
