"""How long signed URLs are used, how often they are asked for, and that they are not shown."""

import pytest
import trio
import trio.testing

from stsfs.errors import StoreFailure, SynapseUnavailable
from stsfs.store.counters import StoreCounters
from stsfs.store.http_pool import HostPools
from stsfs.store.reach import Reach
from stsfs.store.signed_urls import LIFE_UNKNOWN_S, SLACK_S, SignedUrls, parse_signed_url

NOW_UNIX_S = 1_700_000_000.0  # 2023-11-14 22:13:20
URL = "https://bucket.example/key?X-Amz-Signature=5ec2e7"


@pytest.mark.parametrize(
    ("query", "life_s"),
    [
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=900", 900),
        ("X-Amz-Date=20231114T221310Z&X-Amz-Expires=900", 890),
        ("X-Amz-Expires=30&x-amz-date=20231114T221320Z", 30),
        ("X-Amz-Date=20231114T201320Z&X-Amz-Expires=900", 900),  # our clock is fast
        ("X-Amz-Date=20231115T001320Z&X-Amz-Expires=900", 900),  # our clock is slow
        ("X-Amz-Date=nonsense&X-Amz-Expires=900", LIFE_UNKNOWN_S),
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=soon", LIFE_UNKNOWN_S),
        ("Expires=1700000060&Signature=x&Key-Pair-Id=K", 60),
        ("Expires=1600000000", LIFE_UNKNOWN_S),
        ("Expires=" + "9" * 400, LIFE_UNKNOWN_S),
        ("Policy=x&Signature=x", LIFE_UNKNOWN_S),
        ("", LIFE_UNKNOWN_S),
    ],
)
def test_a_url_is_used_until_shortly_before_it_ends(query, life_s):
    url = parse_signed_url(f"https://bucket.example/key?{query}", NOW_UNIX_S)
    assert url.last_use_unix_s == NOW_UNIX_S + life_s - SLACK_S


@pytest.mark.parametrize(
    ("url", "address", "host_header", "target"),
    [
        ("https://h/a/%2Bb?c=d%2F", ("h", 443, True), "h", "/a/%2Bb?c=d%2F"),
        ("http://u:p@H.example:8080#f", ("h.example", 8080, False), "H.example:8080", "/"),
        ("https://[::1]:443/k", ("::1", 443, True), "[::1]:443", "/k"),
    ],
)
def test_a_url_is_sent_as_it_was_signed(url, address, host_header, target):
    found = parse_signed_url(url, NOW_UNIX_S)
    assert (found.host, found.port, found.tls) == address
    assert (found.host_header, found.target) == (host_header, target)


@pytest.mark.parametrize(
    "url",
    ["", "sftp://h/5ec2e7", "https:///5ec2e7", "https://h:port/5ec2e7", "https://h:99999/5ec2e7",
     "https://h/5ec2e7 HTTP/1.1", "https://h/5ec2e7\r\nX: y", "https://h/5ec2e7ü", "https://[h/5ec2e7"],
)  # fmt: skip
def test_what_is_no_url_is_refused_and_not_shown(url):
    with pytest.raises(StoreFailure, match="not an HTTP URL") as caught:
        parse_signed_url(url, NOW_UNIX_S)
    assert "5ec2e7" not in str(caught.value)


def test_a_url_does_not_show_its_signature():
    assert "5ec2e7" not in repr(parse_signed_url(URL, NOW_UNIX_S))


class Signer:
    """Takes a second for a URL, or for an error."""

    def __init__(self, error=None):
        self.asked, self.error = 0, error

    async def __call__(self, key):
        self.asked += 1
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return f"{URL}{self.asked}"


async def test_a_url_is_asked_for_once_however_many_wait(autojump_clock):
    signer, got = Signer(), []
    urls = SignedUrls(signer)

    async def get():
        got.append(await urls.get("k"))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(get)
    kept = await urls.get("k")
    assert got == [(kept[0], True)] * 5
    assert (kept[1], signer.asked, trio.current_time()) == (False, 1, 1.0)


async def test_all_who_wait_hear_why_there_is_none_and_the_next_asks_again(autojump_clock):
    signer, told = Signer(SynapseUnavailable("Down.", remedy="Wait.")), []
    urls = SignedUrls(signer)

    async def get():
        with pytest.raises(SynapseUnavailable, match=r"Down\. Wait\.") as caught:
            await urls.get("k")
        told.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(get)
    assert (len(set(map(id, told))), signer.asked) == (3, 1)
    signer.error = None
    assert (await urls.get("k"))[1]


@pytest.mark.parametrize(("cancelled", "asked", "ready_s"), [("first", 2, 1.5), ("other", 1, 1.0)])
async def test_one_who_is_cancelled_leaves_the_asking_to_the_others(
    autojump_clock, cancelled, asked, ready_s
):
    signer, got = Signer(), {}
    urls = SignedUrls(signer)

    async def get(name):
        with trio.move_on_after(0.5 if name == cancelled else 9):
            got[name] = (await urls.get("k"), trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(get, "other")
    ((_, when_s),) = got.values()
    assert cancelled not in got
    assert (signer.asked, when_s) == (asked, ready_s)


async def test_a_refused_url_is_dropped_and_a_newer_one_is_not(autojump_clock):
    urls = SignedUrls(Signer())
    old, _ = await urls.get("k")
    urls.drop("k", old)
    new, is_new = await urls.get("k")
    assert is_new
    assert new.target != old.target
    urls.drop("k", old)
    assert await urls.get("k") == (new, False)


def test_the_host_asked_for_longest_ago_is_forgotten():
    pools = HostPools(dict, hosts_max=2, connections_max=1, counters=StoreCounters(), reach=Reach())
    a, b = pools.of("a", 80, tls=False), pools.of("b", 80, tls=False)
    assert pools.of("a", 80, tls=False) is a
    pools.of("c", 80, tls=False)
    assert pools.of("a", 80, tls=False) is a
    assert pools.of("b", 80, tls=False) is not b


def test_another_port_is_another_host_and_tls_is_made_once():
    made = []
    pools = HostPools(
        lambda: made.append(1),
        hosts_max=9,
        connections_max=1,
        counters=StoreCounters(),
        reach=Reach(),
    )
    found = {pools.of("a", port, tls=tls) for port in (80, 443) for tls in (False, True)}
    assert (len(found), made) == (4, [1])
