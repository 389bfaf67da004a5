"""A staging directory on a disk that is really full."""

import contextlib
import subprocess

import pytest

from stsfs.errors import StagingFull
from stsfs.staging.directory import StagingDirectory
from tests.staging_fakes import record

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path):
    """A file system of 16 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "none", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(staged):
    """Write as long as it is taken; returns how many bytes were."""
    written = 0
    with contextlib.suppress(StagingFull):
        while True:
            staged.write(written, bytes(64 * 1024))
            written += 64 * 1024
    return written


def test_a_full_disk_stops_the_writer_and_nothing_else(disk):
    directory = StagingDirectory.open(disk)
    first, second = directory.create(), directory.create()
    first.write(0, b"first")
    first.keep(record(reason="first"))
    written = fill(second)
    assert 14 * MIB < written < 16 * MIB
    assert second.read(written - 4, 4) == bytes(4)
    with pytest.raises(StagingFull):
        first.write(5, bytes(MIB))
    second.keep(record(reason="second", size_bytes=written), durable=True)  # there is room for it
    first.keep(record(reason="first again"))
    assert first.load().record.reason == "first again"
    second.discard()
    first.write(5, b" more")
    assert first.read(0, 10) == b"first more"
    first.discard()
    directory.close()


def test_a_disk_that_others_fill_to_the_last_byte_leaves_what_was_kept(disk):
    directory = StagingDirectory.open(disk)
    staged = directory.create()
    staged.write(0, b"data")
    staged.keep(record(reason="before"))
    with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass
    with pytest.raises(StagingFull):
        staged.keep(record(reason="after", path="x" * 10_000))
    other = directory.create()
    with pytest.raises(StagingFull):
        other.write(0, b"a byte more")
    other.discard()
    staged.rest()
    directory.close()
    (disk / "ballast").unlink()
    after = StagingDirectory.open(disk)
    (found,) = after.left_behind()
    assert (found.record.reason, found.data_path.read_bytes()) == ("before", b"data")
    after.adopt(found).discard()
    after.close()
