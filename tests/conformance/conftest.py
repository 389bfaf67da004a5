"""The houses, each of them built once per module."""

from contextlib import contextmanager

import pytest
import trio
from moto.server import ThreadedMotoServer

from stsfs.demo.file_server.answers import EVERY_CONDITION, Habits
from stsfs.demo.file_server.server import FileServer
from stsfs.demo.gate.gate import Gate
from stsfs.demo.gate.sessions import SessionBook
from tests.conformance.houses import (
    BUCKET,
    KEYS,
    LISTING,
    MemoryHouse,
    MotoHouse,
    S3House,
    SignedHouse,
)


@contextmanager
def moto_house():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    made = MotoHouse("http://{}:{}".format(*server.get_host_and_port()))
    yield made
    made.close()
    server.stop()


@contextmanager
def file_house(kind, root):
    (root / BUCKET).mkdir()
    book = SessionBook()
    book.add(KEYS)
    habits = Habits(EVERY_CONDITION if kind.startswith("careless") else frozenset())
    with FileServer(root, habits=habits) as server, Gate(server.url, book) as gate:
        if kind == "signed URLs":
            made = SignedHouse(gate.url)
        elif kind == "Synapse session":
            session = book.vend(BUCKET, "base", "read_write", 3600)
            acl = "bucket-owner-full-control"
            made = S3House(gate.url, session=session, base="base/", acl=acl)
        else:
            made = S3House(gate.url, conditions=kind == "file server")
            if kind.endswith("asked"):
                trio.run(made.ask)
        yield made
        assert [seen for seen in gate.denied if seen.verdict == "AccessDenied"] == []
        made.close()


@pytest.fixture(scope="module", params=[*LISTING, "signed URLs"])
def made_house(request, tmp_path_factory):
    if request.param == "memory":
        yield MemoryHouse()
    elif request.param == "moto":
        with moto_house() as made:
            yield made
    else:
        with file_house(request.param, tmp_path_factory.mktemp("s3")) as made:
            yield made


@pytest.fixture
def house(made_house):
    yield made_house
    made_house.leave()
