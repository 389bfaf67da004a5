"""CRC32C of what arrives at the file server: compared, and shown as S3 shows it."""

import base64
from collections.abc import Iterable, Iterator

import crc32c

from stsfs.demo.file_server.store import Refused
from stsfs.demo.s3_wire import Refusal

HEADER = "x-amz-checksum-crc32c"
ALGORITHM = "x-amz-checksum-algorithm"


class Checksum:
    """The CRC32C of one body, in base64, once it has gone through `over`; empty if nobody asked."""

    def __init__(self, announced: str) -> None:
        """announced is what the client says that it will be; empty where it says nothing."""
        self.wanted = bool(announced)
        self.value = ""
        self._announced = announced

    def over(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass a body on. Raises Refused behind its end if it is another one than announced."""
        if not self.wanted:
            yield from pieces
            return
        crc = 0
        for piece in pieces:
            crc = crc32c.crc32c(piece, crc)
            yield piece
        self.value = base64.b64encode(crc.to_bytes(4, "big")).decode()
        if self._announced and self._announced != self.value:
            message = "The CRC32C you specified did not match the calculated checksum."
            raise Refused(Refusal(400, "BadDigest", message))

    def headers(self) -> list[tuple[str, str]]:
        """What an answer tells."""
        return [(HEADER, self.value)] if self.value else []

    def element(self) -> str:
        """What a document tells."""
        return f"<ChecksumCRC32C>{self.value}</ChecksumCRC32C>" if self.value else ""
