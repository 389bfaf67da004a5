"""A storage location: where the bytes are, whoever told us."""

from dataclasses import dataclass

from stsfs import values
from stsfs.errors import BadArgument


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket below a base key, and what is special about it.

    Raises BadArgument for what can be no bucket, region or address: they become parts of requests,
    and of the output of `stsfs credentials`.
    """

    label: str
    """What the user typed: `syn12345`, `s3://bucket/prefix`."""

    bucket: str
    base_key: str
    """Empty for the whole bucket; never begins or ends with `/`."""

    region: str | None = None
    endpoint_url: str | None = None
    """None for AWS itself."""

    synapse_id: str | None = None
    reserved_names: frozenset[bytes] = frozenset()
    """Names in the root that exist for Synapse alone: hidden, and never created."""

    def __post_init__(self) -> None:
        for check, text in (
            (values.bucket_name, self.bucket or "-"),  # not everybody is told it
            (values.region_name, self.region or "-"),
            (values.server_url, self.endpoint_url or "https://-"),
        ):
            try:
                check(text)
            except ValueError as exc:
                raise BadArgument(f"{text!r} cannot be used: {exc}.") from None

    @property
    def prefix(self) -> str:
        """What every key begins with: the base key and a slash, or nothing."""
        return f"{self.base_key}/" if self.base_key else ""

    @property
    def uri(self) -> str:
        """`s3://bucket/base_key`: the same for everyone who mounts it."""
        return f"s3://{self.bucket}/{self.base_key}".rstrip("/")
