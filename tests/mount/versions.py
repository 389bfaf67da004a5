"""Bytes that tell on every page which version of an object they belong to."""

PAGE_BYTES = 4096
_MARK_BYTES = 18


def content(version, size_bytes):
    """The bytes of a version."""
    pages = -(-size_bytes // PAGE_BYTES)
    return b"".join(page_of(version, page) for page in range(pages))[:size_bytes]


def page_of(version, page):
    return (b"v%07d p%07d;" % (version, page) * (PAGE_BYTES // _MARK_BYTES + 1))[:PAGE_BYTES]


def versions_in(data, offset=0):
    """The versions whose pages lie in data, read from offset, a multiple of the page size."""
    found = set()
    for begin in range(0, len(data), PAGE_BYTES):
        piece = data[begin : begin + PAGE_BYTES]
        version, page = int(piece[1:8]), (offset + begin) // PAGE_BYTES
        assert piece == page_of(version, page)[: len(piece)], f"foreign bytes at {offset + begin}"
        found.add(version)
    return found
