"""URLs from a hostile Synapse that lead into the network of whoever mounts; rebinding too."""

import re
import socket
from contextlib import asynccontextmanager

import pytest
import trio

from stsfs.errors import AccessDenied
from stsfs.store.object_store import ObjectVersion
from stsfs.store.presigned_store import PresignedStore
from stsfs.store.reach import Reach
from tests.fakes import Sink
from tests.scripted_server import served, with_length

PUBLIC = "52.217.0.1"
ETAG = b'ETag: "1"'


class Resolver(trio.abc.HostnameResolver):
    """Each look-up of a name gives the next of these lists of addresses; the last one stays."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        self.asked += 1
        found = self.answers[min(self.asked, len(self.answers)) - 1]
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "",
             (each, port, 0, 0) if ":" in each else (each, port))
            for each in found
        ]  # fmt: skip

    async def getnameinfo(self, sockaddr, flags):
        raise AssertionError


@asynccontextmanager
async def store_at(script, url, reach):
    """A store whose URLs lead to a port that a server has here, at whatever host they name."""
    async with served(script) as (_, port):
        scheme, host, path = re.fullmatch(r"(\w+)://([^/]+)(/.*)", url).groups()

        async def url_of(name):
            return f"{scheme}://{host}:{port}{path}"

        store = PresignedStore(url_of, reach=reach, deadline_s=5)
        try:
            yield store
        finally:
            store.close()


async def nobody(peer):
    raise AssertionError("somebody connected")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"],
     ["64:ff9b::7f00:1"], ["10.0.0.1"], ["0.0.0.0"]],
)  # fmt: skip
async def test_a_name_that_leads_to_one_address_inside_is_not_asked(scheme, addresses):
    trio.socket.set_custom_hostname_resolver(Resolver(addresses))
    async with store_at(nobody, f"{scheme}://evil.example/k?X-Amz-Expires=900", Reach()) as store:
        with pytest.raises(AccessDenied):
            await store.probe("syn1/2")
        version = ObjectVersion(0, "syn1/2", '"1"', 7)
        with pytest.raises(AccessDenied):
            await store.read_range(version, 0, 7, Sink(7))


async def test_a_name_is_looked_up_once_and_what_was_judged_is_what_is_asked():
    judged = []

    class Judge(Reach):
        def check(self, address, *, tls):
            judged.append(address)
            super().check(address, tls=tls)

    async def script(peer):
        answer = b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-0/7\r\nContent-Length: 1\r\n"
        await peer.answer(answer + ETAG + b"\r\n\r\nx")

    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    trio.socket.set_custom_hostname_resolver(resolver)
    async with store_at(script, "http://a.example/k", Judge(loopback=True)) as store:
        assert (await store.probe("syn1/2")).size_bytes == 7
    assert (resolver.asked, judged) == (1, ["127.0.0.1"])


async def test_a_name_that_leads_inside_at_the_second_connection_is_judged_again():
    async def script(peer):
        await peer.answer(with_length(b"x" * 7, ETAG, b"Connection: close"))

    trio.socket.set_custom_hostname_resolver(Resolver(["127.0.0.1"], ["169.254.169.254"]))
    async with store_at(script, "http://a.example/k", Reach(loopback=True)) as store:
        assert (await store.probe("syn1/2")).size_bytes == 7
        with pytest.raises(AccessDenied):
            await store.probe("syn1/2")


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1"])
async def test_no_way_to_write_an_address_of_this_machine_gets_there(address):
    async with store_at(nobody, f"https://{address}/k", Reach()) as store:
        with pytest.raises(AccessDenied):
            await store.probe("syn1/2")
