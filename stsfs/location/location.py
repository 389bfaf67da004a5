"""A storage location: where the bytes are, whoever told us."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket below a base key, and what is special about it."""

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

    @property
    def prefix(self) -> str:
        """What every key begins with: the base key and a slash, or nothing."""
        return f"{self.base_key}/" if self.base_key else ""

    @property
    def uri(self) -> str:
        """`s3://bucket/base_key`: the same for everyone who mounts it."""
        return f"s3://{self.bucket}/{self.base_key}".rstrip("/")
