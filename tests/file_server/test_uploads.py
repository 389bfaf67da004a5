"""Requests of one upload at the same time: it is there, or it is not, and nothing in between."""

import pytest

from stsfs.demo.file_server import uploads
from stsfs.demo.file_server.checksums import Checksum
from stsfs.demo.file_server.store import UPLOADS, Conditions, FileStore, Refused

KEY = b"key"


@pytest.fixture
def bucket(tmp_path):
    (tmp_path / "lab").mkdir()
    return FileStore(tmp_path).bucket("lab")


def part(bucket, upload_id, pieces=(b"data",), number="1"):
    return uploads.put_part(bucket, KEY, upload_id, number, pieces, Checksum(""))


def complete(bucket, upload_id, etag):
    document = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>".encode()
    return uploads.complete(bucket, KEY, upload_id, document, Conditions(), part_bytes_min=1)


def left(tmp_path):
    """Every file but the objects."""
    names = (UPLOADS.decode(), ".s3-staging")
    return [each for name in names for each in (tmp_path / "lab" / name).rglob("*")]


def no_such_upload():
    return pytest.raises(Refused, match="NoSuchUpload")


def test_a_part_whose_upload_is_aborted_meanwhile_is_refused_and_leaves_nothing(bucket, tmp_path):
    upload_id = uploads.create(bucket, KEY, {})

    def pieces():
        yield b"some"
        uploads.abort(bucket, KEY, upload_id)
        yield b"more"

    with no_such_upload():
        part(bucket, upload_id, pieces())
    assert left(tmp_path) == []


@pytest.mark.parametrize("ends", ["abort", "complete"])
def test_while_the_parts_of_an_ended_upload_are_removed_it_is_there_no_more(
    bucket, tmp_path, monkeypatch, ends
):
    upload_id = uploads.create(bucket, KEY, {})
    etag = part(bucket, upload_id)
    rmtree, looked = uploads.shutil.rmtree, []

    def removing(directory):
        for ask in (uploads.abort, uploads.parts, uploads.refuse_checked):
            with no_such_upload():
                ask(bucket, KEY, upload_id)
        with no_such_upload():
            part(bucket, upload_id)
        assert uploads.pending(bucket) == []
        looked.append(directory)
        rmtree(directory)

    monkeypatch.setattr(uploads.shutil, "rmtree", removing)
    if ends == "abort":
        uploads.abort(bucket, KEY, upload_id)
    else:
        complete(bucket, upload_id, etag)
    assert len(looked) == 1
    assert left(tmp_path) == []
