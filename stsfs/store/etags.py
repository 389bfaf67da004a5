"""ETags in one form, whatever a server or a proxy in front of it writes."""

import re

from stsfs.errors import StoreFailure
from stsfs.values import one_line

_NORMAL = re.compile(r'"[!#-~]{1,256}"')
_BARE = re.compile(r"[!#-~]{0,256}")
"""RFC 9110, 8.8.3, without what is not ASCII. A quote inside would make two of one in If-Match."""


def normal_etags(texts: list[str]) -> list[str]:
    """`normal_etag` of each; little work where all of them are normal, as on most pages."""
    return texts if all(map(_NORMAL.fullmatch, texts)) else [normal_etag(each) for each in texts]


def told_etag(etag: str, key: str) -> str:
    """The ETag of what is at a key. Raises StoreFailure where the server has told none.

    Without one nothing is asked of an object: an empty condition is none, and what is not known
    cannot be told from what another client puts in its place.
    """
    if not etag:
        raise StoreFailure(
            f"The server tells no ETag of {key!r}, so that a change would go unnoticed."
        )
    return etag


def normal_etag(text: str) -> str:
    """The ETag in quotes, without the mark of a weak one; empty where there is none.

    Some servers leave the quotes out in listings, and proxies that compress mark ETags as weak: it
    is the same object all the same, because ranges of it are never compressed. Raises StoreFailure
    for anything else than one ETag.
    """
    bare = text.strip(" \t\r\n").removeprefix("W/").strip('"')
    if not _BARE.fullmatch(bare):
        raise StoreFailure(f"The server sent an ETag that is none: {one_line(text, 80)}.")
    return f'"{bare}"' if bare else ""
