"""ETags in one form, whatever a server or a proxy in front of it writes."""

from stsfs.errors import StoreFailure


def normal_etag(text: str) -> str:
    """The ETag in quotes, without the mark of a weak one; empty where there is none.

    Some servers leave the quotes out in listings, and proxies that compress mark ETags as weak: it
    is the same object all the same, because ranges of it are never compressed. Raises StoreFailure
    for what can be no header.
    """
    bare = text.strip().removeprefix("W/").strip('"')
    if not (bare.isascii() and bare.isprintable()):
        raise StoreFailure(f"The server sent an ETag that is none: {text[:80]!r}.")
    return f'"{bare}"' if bare else ""
