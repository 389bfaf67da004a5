"""The values that sign requests, and the protocol of whoever provides them."""

from dataclasses import dataclass, field
from typing import Protocol

from stsfs.redaction import register_secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """One set of AWS credentials; secrets stay out of `repr`, and are never shown (`redaction`)."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at_unix_s: float | None = None
    """Wall-clock end of the session; None for keys that do not end."""

    def __post_init__(self) -> None:
        register_secret(self.secret_access_key)
        register_secret(self.session_token)


class CredentialSource(Protocol):
    """Where credentials come from. Owned by the lease, implemented by the sources."""

    @property
    def description(self) -> str:
        """One line for `stsfs status`: which source, which place, never a secret."""

    async def fetch(self) -> Credentials:
        """Get a fresh set.

        Raises TokenRejected, SynapseRefusal, SynapseUnavailable, NoSynapseToken or
        AwsCredentialsMissing. Is a checkpoint; may be cancelled.
        """
