"""The file server, moto, and a client of each."""

import pytest
from moto.server import ThreadedMotoServer

from stsfs.demo.file_server.server import FileServer
from tests.file_server.clients import s3_client


@pytest.fixture(scope="module")
def moto_url():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def server(tmp_path):
    (tmp_path / "data").mkdir()
    with FileServer(tmp_path, part_bytes_min=5) as server:
        yield server


@pytest.fixture
def s3(server):
    client = s3_client(server.url)
    yield client
    client.close()


@pytest.fixture
def moto(moto_url, request):
    client = s3_client(moto_url)
    client.create_bucket(Bucket="data")
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="data"):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket="data", Key=entry["Key"])
    client.delete_bucket(Bucket="data")
    client.close()
