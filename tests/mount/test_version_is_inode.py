"""A file's inode is its version: no reader ever sees bytes of two.

Contract: "object replaced or gone under an open handle: ESTALE".
"""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.entity_folder import new_folder
from tests.mount.reader_client import BusError
from tests.mount.stage import Folder
from tests.mount.storm import storm
from tests.mount.versions import PAGE_BYTES, content, versions_in

pytestmark = pytest.mark.mount
VIEWS = ("keys", "entities")

MIB = 1 << 20
SIZES = [100, 4 * MIB]
HOWS = ["buffered", "direct", "mmap"]


@pytest.fixture(scope="module")
def places(servers, view, module_mount, tmp_path_factory):
    """Directories of version 1 of files of each size; one directory for each test."""
    folder, models = new_folder(servers, view), tmp_path_factory.mktemp("models")
    names = [f"d{number:02}" for number in range(60)]
    for size_bytes in (*SIZES, MIB):
        model = models / str(size_bytes)
        model.write_bytes(content(1, size_bytes))
        for name in names:
            (folder.path / name).mkdir(exist_ok=True)
            os.link(model, folder.path / name / model.name)
    folder.adopt()
    live = module_mount(folder.syn_id)
    return iter([Place(folder, name, live / name) for name in names])


@dataclass
class Place:
    """A directory of a test's own."""

    folder: Folder
    name: str
    directory: Path
    size_bytes: int = 0

    def file(self, size_bytes):
        """The path of the file of that size: the one that is meant from now on."""
        self.size_bytes = size_bytes
        return self.directory / str(size_bytes)

    def put(self, data):
        self.folder.put(f"{self.name}/{self.size_bytes}", data)

    def delete(self):
        self.folder.delete(f"{self.name}/{self.size_bytes}")


@pytest.fixture
def place(places):
    return next(places)


def read_by_parts(file, size_bytes):
    """The versions of all pages that can still be read; the others must be ESTALE or SIGBUS."""
    found = set()
    for offset in range(0, size_bytes, 64 * PAGE_BYTES):
        try:
            found |= versions_in(file.read(offset, 64 * PAGE_BYTES), offset)
        except BusError:
            break
        except OSError as exc:
            if exc.errno != errno.ESTALE:
                raise
    return found


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_a_replaced_object_is_never_mixed_with_the_old_one(place, reader, how, size_bytes, cache):
    """ "One reader never sees bytes of two versions", of the same size, within a second."""
    path = place.file(size_bytes)
    old = reader.open(path, how)
    if cache == "warm":
        assert versions_in(old.read(0, size_bytes)) == {1}
    place.put(content(2, size_bytes))
    new = reader.open(path, how)
    assert new.read(0, size_bytes) == content(2, size_bytes)
    assert read_by_parts(old, size_bytes) <= {1}


@pytest.mark.parametrize("size_bytes", SIZES)
def test_an_old_handle_keeps_the_pages_it_has_read(place, size_bytes):
    """ "An old handle stays with its version: what is cached stays readable"."""
    path = place.file(size_bytes)
    with open(path, "rb", buffering=0) as old:
        assert old.readall() == content(1, size_bytes)
        place.put(content(2, size_bytes))
        assert path.read_bytes() == content(2, size_bytes)
        old.seek(0)
        assert old.readall() == content(1, size_bytes)


@pytest.mark.parametrize("how", HOWS)
def test_a_replaced_object_has_another_inode_and_the_open_repeats_unseen(place, reader, how):
    """ "open of an outdated inode answers ESTALE; the kernel repeats the open, unseen"."""
    path = place.file(MIB)
    before = path.stat().st_ino
    for version in range(2, 6):
        place.put(content(version, MIB))
        file = reader.open(path, how)
        assert versions_in(file.read(0, MIB)) == {version}
        file.close()
    assert path.stat().st_ino != before


def test_an_unchanged_object_keeps_its_inode_over_new_listings(folder, mount):
    """The page cache survives: "the kernel keeps pages across opens of one version"."""
    folder.write("x", content(1, MIB))
    live = mount(folder.syn_id, "--metadata-ttl", "0")
    before = (live / "x").stat().st_ino
    assert (live / "x").read_bytes() == content(1, MIB)
    os.listdir(live.path)
    assert (live / "x").stat().st_ino == before


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size_bytes", SIZES)
def test_an_object_deleted_under_a_reader_is_estale_and_then_gone(place, reader, how, size_bytes):
    """ "gone is known by a LIST": S3 answers 403 to this session for a key that is not there."""
    path = place.file(size_bytes)
    old = reader.open(path, how)
    place.delete()
    assert read_by_parts(old, size_bytes) <= {1}
    with pytest.raises(FileNotFoundError):
        os.open(path, os.O_RDONLY)
    if how == "direct":
        with pytest.raises(OSError, match="Stale"):
            old.read(0, 100)


def test_the_far_end_of_a_replaced_file_is_estale(place):
    """ "what is cached stays readable, the rest is ESTALE", in a file nobody read to its end."""
    path = place.file(4 * MIB)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        place.put(content(2, 4 * MIB))
        with pytest.raises(OSError, match="Stale") as raised:
            os.pread(descriptor, PAGE_BYTES, 3 * MIB)
        assert raised.value.errno == errno.ESTALE
    finally:
        os.close(descriptor)


def test_a_size_that_changed_is_seen_by_the_next_open(place):
    """Close-to-open consistency, growing and shrinking."""
    path = place.file(100)
    assert path.read_bytes() == content(1, 100)
    for version, size_bytes in enumerate([5000, 3 * MIB, 0, 20_000, 1], start=2):
        place.put(content(version, size_bytes))
        with open(path, "rb") as file:
            assert os.fstat(file.fileno()).st_size == size_bytes
            assert file.read() == content(version, size_bytes)


def test_readers_of_a_file_opened_at_once_agree_on_a_version(place):
    """Concurrent opens after a replacement all find the new object."""
    path = place.file(MIB)
    assert versions_in(path.read_bytes()) == {1}
    place.put(content(2, MIB))
    with ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda _: path.read_bytes(), range(32)))
    assert all(each == content(2, MIB) for each in read)


@pytest.mark.parametrize(
    ("size_bytes", "replacements", "pause_gets"),
    [
        pytest.param(100, 200, 0, id="tiny-without-pause"),
        pytest.param(100, 60, 12, id="tiny"),
        pytest.param(4 * MIB, 40, 0, id="4MiB-without-pause"),
        pytest.param(4 * MIB, 6, 60, id="4MiB"),
    ],
)
@pytest.mark.parametrize("how", ["buffered", "direct"])
def test_in_a_storm_of_replacements_every_reader_sees_one_version(
    stage, place, view, how, size_bytes, replacements, pause_gets
):
    """Whole-file reads see one version, none older than what stood when they opened; ESTALE comes
    only to those whose object was replaced meanwhile."""
    if view == "entities" and not pause_gets:
        pytest.skip("each replacement costs questions to a Synapse in this very process")
    path, seen_by_s3 = place.file(size_bytes), stage.server.requests

    def replace(version):
        seen_by_s3.wait_for(seen_by_s3.count("GET") + pause_gets, "GET")
        place.put(content(version, size_bytes))

    seen = storm(path, how, replace, replacements)
    assert seen.wrong == []
    assert seen.whole > (replacements if pause_gets else 0)
