"""What is stored beside the bytes of an object. Pure."""

import stat

from stsfs.store.object_store import Traits

MTIME, MODE = "mtime", "mode"
"""The names that rclone (mtime: seconds, with a fraction; rclone.org/s3, "Modification times and
hashes") and s3fs (both; mode in decimal, with the file type; s3fs `metaheader.cpp`) use."""

_OF_OLD_BYTES = frozenset({"md5chksum", "s3cmd-attrs"})
"""Checksums that rclone and s3cmd keep there: they are those of other bytes now."""

_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def kept_traits(found: Traits, storage_class: str) -> Traits:
    """What a changed object keeps of what was stored with it; storage_class is as listed."""
    metadata = {name: text for name, text in found.metadata.items() if name not in _OF_OLD_BYTES}
    return Traits(metadata, found.content_type, kept_class(found.storage_class or storage_class))


def kept_class(storage_class: str) -> str:
    """The storage class of what takes the place of an object of this class.

    Empty for the bucket's own, and for archives: whoever has just written a file can read it.
    """
    return "" if storage_class == "STANDARD" or storage_class in _ARCHIVES else storage_class


def object_traits(kept: Traits, mode: int | None, modified_ns: int | None) -> Traits:
    """What is stored with an object; None: not known."""
    metadata: dict[str, str] = dict(kept.metadata)
    for name in (MTIME, MODE):
        metadata.pop(name, None)
    if modified_ns is not None:
        metadata[MTIME] = seconds_text(modified_ns)
    if mode is not None:
        metadata[MODE] = str(stat.S_IFREG | mode)
    elif MODE in kept.metadata:
        metadata[MODE] = kept.metadata[MODE]
    return Traits(metadata, kept.content_type, kept.storage_class)


def seconds_text(time_ns: int) -> str:
    """Seconds since 1970 with as many digits of a fraction as it takes."""
    sign = "-" if time_ns < 0 else ""
    seconds, fraction = divmod(abs(time_ns), 1_000_000_000)
    return f"{sign}{seconds}.{fraction:09d}".rstrip("0").rstrip(".")
