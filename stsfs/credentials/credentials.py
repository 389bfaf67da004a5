"""The values that sign requests, and the protocol of whoever provides them."""

from dataclasses import dataclass, field
from typing import Protocol

from stsfs.redaction import register_secret
from stsfs.values import unix_s, word


@dataclass(frozen=True, slots=True)
class Credentials:
    """One set of AWS credentials; secrets stay out of `repr`, and are never shown (`redaction`).

    Raises ValueError, which shows none of them, for what is no word or no time: each value goes
    into headers, files of settings and commands of a shell.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at_unix_s: float | None = None
    """Wall-clock end of the session; None for keys that do not end."""

    def __post_init__(self) -> None:
        register_secret(self.secret_access_key)
        register_secret(self.session_token)
        token = "-" if self.session_token is None else self.session_token
        for text in (self.access_key_id, self.secret_access_key, token):
            if not word(text):
                raise ValueError("one of the credentials is empty")
        if self.expires_at_unix_s is not None:
            unix_s(self.expires_at_unix_s)


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
