"""Where the services of one Synapse are: three base URLs that belong together."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stsfs import values
from stsfs.errors import BadArgument
from stsfs.synapse import config_file

log = logging.getLogger(__name__)

_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Base URLs without a slash at the end, each with the service's own prefix."""

    repo_url: str
    auth_url: str
    file_url: str

    @classmethod
    def chosen(cls, url: str | None) -> "Endpoints":
        """Return `single(url)`, or without a URL what the configuration says. Raises like both."""
        return cls.single(url) if url else cls.from_config()

    @property
    def are_loopback(self) -> bool:
        """Whether the user named a Synapse on this machine: every address says so by itself.

        What a name leads to does not count.
        """
        urls = (self.repo_url, self.auth_url, self.file_url)
        return all(urlsplit(each).hostname in _LOOPBACK_HOSTS for each in urls)

    @classmethod
    def single(cls, url: str) -> "Endpoints":
        """Return the services below one host: what `--synapse-endpoint URL` names.

        Raises BadArgument where url is not an http(s) URL.
        """
        base = _checked(url)
        return cls(f"{base}/repo/v1", f"{base}/auth/v1", f"{base}/file/v1")

    @classmethod
    def from_config(cls, path: Path | None = None) -> "Endpoints":
        """Return what `[endpoints]` of the Synapse configuration names, else production.

        Raises BadArgument for an unreadable file or a value that is not an http(s) URL.
        """
        sections = config_file.read_sections(path or config_file.default_path()) or {}
        named = sections.get("endpoints", {})
        found = {
            attribute: _checked(named[key])
            for attribute, key in _CONFIG_KEYS.items()
            if named.get(key, "").strip()
        }
        return dataclasses.replace(PRODUCTION, **found)


PRODUCTION = Endpoints(
    repo_url="https://repo-prod.prod.sagebase.org/repo/v1",
    auth_url="https://auth-prod.prod.sagebase.org/auth/v1",
    file_url="https://file-prod.prod.sagebase.org/file/v1",
)
"""As in `PRODUCTION_ENDPOINTS` of the Python client."""

_CONFIG_KEYS = {
    "repo_url": "repoendpoint",
    "auth_url": "authendpoint",
    "file_url": "filehandleendpoint",
}


def _checked(url: str) -> str:
    base = url.strip().rstrip("/")
    try:
        parts = urlsplit(values.server_url(base))
    except ValueError:  # a port out of range, a broken IPv6 address, a blank
        raise BadArgument(
            f"{url!r} is not the address of a Synapse server.",
            remedy="It looks like https://host or http://host:port.",
        ) from None
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK_HOSTS:
        log.warning("the Synapse token travels to %s without encryption", parts.hostname)
    return base
