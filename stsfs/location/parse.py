"""What a user types for a storage location. Pure."""

import ipaddress
import re
from dataclasses import dataclass

from stsfs.errors import BadArgument
from stsfs.rules.question import KEY_BYTES_MAX

_WHAT_TO_TYPE = (
    "Type a Synapse id (syn12345), its page (https://www.synapse.org/Synapse:syn12345),"
    " or a place in S3 (s3://bucket/prefix)."
)
_SYNAPSE_ID = re.compile(r"syn([0-9]+)", re.IGNORECASE | re.ASCII)
_SYNAPSE_VERSION = re.compile(r"syn[0-9]+\.[0-9]+", re.IGNORECASE | re.ASCII)
_SYNAPSE_PAGE = re.compile(
    r"(?:https?://)?(?:[a-z0-9-]+\.)*synapse\.org/(?:#!)?Synapse:([^/?#]+)(?:[/?#].*)?",
    re.IGNORECASE | re.ASCII,
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)


@dataclass(frozen=True, slots=True)
class SynapseTarget:
    """An entity whose storage location is meant."""

    synapse_id: str
    """`syn` in lower case, and digits."""

    def __str__(self) -> str:
        return self.synapse_id


@dataclass(frozen=True, slots=True)
class S3Target:
    """A bucket, or the keys below a prefix of it."""

    bucket: str
    prefix: str
    """Empty for the whole bucket; never begins or ends with `/`."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


Target = SynapseTarget | S3Target


def parse_target(text: str) -> Target:
    """Read a Synapse id, the address of its page, or an `s3://` URI.

    Raises BadArgument, with what to type instead.
    """
    typed = text.strip()
    if typed[:5].lower() == "s3://":
        return _s3_target(typed)
    page = _SYNAPSE_PAGE.fullmatch(typed)
    name = page.group(1) if page else typed
    if match := _SYNAPSE_ID.fullmatch(name):
        return SynapseTarget(f"syn{match.group(1)}")
    if _SYNAPSE_VERSION.fullmatch(name):
        raise BadArgument(
            f"{text!r} names one version of an entity, and a storage location has no versions.",
            remedy=f"Type {name.partition('.')[0]}.",
        )
    if name.isascii() and name.isdigit():
        raise BadArgument(f"{text!r} is only a number.", remedy=f"Type syn{name} for the entity.")
    raise BadArgument(f"{text!r} is not a storage location.", remedy=_WHAT_TO_TYPE)


def _s3_target(typed: str) -> S3Target:
    """Split an S3 URI. Nothing in it is escaped: `%`, `?` and `#` stand for themselves."""
    bucket, _, prefix = typed[5:].partition("/")
    if reason := _bucket_fault(bucket):
        raise BadArgument(
            f"{bucket!r} cannot be the name of a bucket: {reason}.", remedy=_WHAT_TO_TYPE
        )
    prefix = prefix.removesuffix("/")
    if reason := _prefix_fault(prefix):
        raise BadArgument(
            f"The prefix {prefix!r} cannot be mounted: {reason}.",
            remedy="Mount a prefix above it, or the bucket.",
        )
    return S3Target(bucket, prefix)


def _bucket_fault(bucket: str) -> str:
    """Say why S3 has no such bucket; empty if it may have one.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    """
    if not bucket:
        return "it is empty"
    if not 3 <= len(bucket) <= 63:
        return "it must have 3 to 63 characters"
    if not _BUCKET.fullmatch(bucket):
        return (
            "it must consist of lower-case letters, digits, dots and hyphens,"
            " and begin and end with a letter or digit"
        )
    if ".." in bucket:
        return "it must not have two dots in a row"
    try:
        ipaddress.IPv4Address(bucket)
    except ValueError:
        return ""
    return "it must not look like an IP address"


def _prefix_fault(prefix: str) -> str:
    """Say why there can be no files below this prefix; empty if there can."""
    if not prefix:
        return ""
    components = prefix.split("/")
    if "" in components:
        return "it has an empty component (//), which no path can name"
    if "." in components or ".." in components:
        return "it has a component . or .., which means another directory in a path"
    if "\0" in prefix:
        return "it contains a NUL character"
    try:
        length_bytes = len(f"{prefix}/".encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if length_bytes >= KEY_BYTES_MAX:
        return f"keys below it would be longer than {KEY_BYTES_MAX} bytes"
    return ""
