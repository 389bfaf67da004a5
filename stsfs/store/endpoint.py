"""Where the requests of one bucket go: host, port, TLS, and the path in front of a key."""

import os
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from stsfs import values
from stsfs.errors import BadArgument
from stsfs.store.sigv4 import encode_path

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a bucket in one region."""

    host: str
    port: int
    tls: bool
    region: str
    bucket_path: str
    """`/bucket` when the bucket is named in the path, empty when the host names it."""

    @property
    def host_header(self) -> str:
        """The Host header, which is signed: the port only where it is not the usual one."""
        usual = 443 if self.tls else 80
        return self.host if self.port == usual else f"{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """How certificates are checked, where there are any."""
        return checked_tls() if self.tls else None


def checked_tls() -> ssl.SSLContext:
    """Certificates checked against the system's authorities, or AWS_CA_BUNDLE's."""
    return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))


def endpoint_for(bucket: str, region: str | None, endpoint_url: str | None) -> Endpoint:
    """The endpoint of a bucket: AWS's own, or the one at endpoint_url, by path.

    On AWS a bucket whose name has a dot is named in the path, because the wildcard certificate
    covers one label only. An unknown region begins as us-east-1, which answers with the right one.
    Raises BadArgument for what cannot be part of an address.
    """
    try:
        values.bucket_name(bucket)
    except ValueError:
        raise BadArgument(f"{bucket!r} is not the name of a bucket.") from None
    known = region or DEFAULT_REGION
    try:
        values.region_name(known)
    except ValueError:
        raise BadArgument(
            f"{known!r} is not the name of a region.", remedy="See --region."
        ) from None
    if endpoint_url is None:
        host, path = f"s3.{known}.amazonaws.com", f"/{bucket}"
        if "." not in bucket:
            host, path = f"{bucket}.{host}", ""
        return Endpoint(host, 443, True, known, path)
    try:
        parts = urlsplit(values.server_url(endpoint_url))
        host = parts.hostname or ""
    except ValueError:
        raise BadArgument(
            f"{endpoint_url!r} is not an endpoint URL.", remedy="Give one like https://host:port."
        ) from None
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return Endpoint(host, port, tls, known, encode_path(parts.path.rstrip("/")) + f"/{bucket}")
