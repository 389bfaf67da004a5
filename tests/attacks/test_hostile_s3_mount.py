"""A mount of a server of objects that means harm: what it shows, and that it lives on."""

import errno
import os
import re
import socketserver
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, quote_plus, urlsplit

import pytest

from tests.mount.live_mount import Host

pytestmark = pytest.mark.mount

MIB = 1 << 20
GROWTH_MAX_BYTES = 96 * MIB
"""Of a daemon that was sent a listing without end: a page as large as one may be, as a tree."""

CONTENT = b"hello\n"
ROW = (
    "<Contents><Key>{}</Key><ETag>&quot;e&quot;</ETag><Size>{}</Size>"
    "<LastModified>{}</LastModified></Contents>"
)
DATE = "2024-01-01T00:00:00.000Z"
LATE_ROWS = 1000


def row(key, size=6, date=DATE):
    return ROW.format(quote_plus(key, safe="/%"), size, date)


def whole(body, status="200 OK", *more):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def page(*rows, prefixes=(), token=""):
    shared = [f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in prefixes]
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    inner = "<EncodingType>url</EncodingType>" + "".join([*rows, *shared]) + more * bool(token)
    return f"<ListBucketResult>{inner}</ListBucketResult>".encode()


def endless(begin):
    """Rows that grow, in chunks."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = b"<ListBucketResult>"
    for number in range(10_000):
        yield b"%x\r\n%s\r\n" % (len(data), data)
        data = "".join(row(f"{begin}{number:06}-{each:03}") for each in range(1000)).encode()


def behind(at):
    """A page, and lines without end behind its last chunk."""
    data = page(row(f"{at}a.txt"))
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield b"%x\r\n%s\r\n0\r\n" % (len(data), data)
    for number in range(100_000):
        yield b"".join(b"x%d-%d: y\r\n" % (number, each) for each in range(5000))


def slowly():
    yield b"HTTP/1.1 200 OK\r\n\r\n<ListBucketResult>"
    for _ in range(300):
        time.sleep(0.1)
        yield b" "


REFUSED = (
    b"<Error><Code>RequestTimeTooSkewed</Code><Message>no\x1b[2J</Message></Error>",
    "403 Forbidden",
    "Date: Sat, 28 Nov 99999 11:00:00 GMT",
)
LISTINGS = {
    "good/": lambda at, _: [whole(page(row(f"{at}a.txt"), row(f"{at}b.txt")))],
    "endless/": lambda at, _: endless(at),
    "behind/": lambda at, _: behind(at),
    "slowly/": lambda _, __: slowly(),
    "equal/": lambda at, _: [whole(page(row(f"{at}a"), row(f"{at}a"), token="more"))],
    "falling/": lambda at, _: [whole(page(row(f"{at}b"), row(f"{at}a")))],
    "circle/": lambda at, token: [whole(page(row(f"{at}a"), token=f"{token}1"))],
    "outside/": lambda at, _: [whole(page(row("z" * len(at) + "secret.txt")))],
    "late/": lambda at, token: (
        [whole(*REFUSED)]
        if token
        else [whole(page(*(row(f"{at}{n:04}") for n in range(LATE_ROWS)), token="more"))]
    ),
    "bad/": lambda at, _: [
        whole(
            page(
                row(f"{at}%FF"), row(f"{at}a.txt"), row(f"{at}date", date="99999-01-01T00:00:00Z"),
                row(f"{at}size", size=-1), row(f"{at}size2", size=2**64), row(f"{at}z.txt"),
            )
        )
    ],
}  # fmt: skip


class Hostile(socketserver.ThreadingTCPServer):
    """Answers each request by what is asked for, and closes."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.serve)
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, sock, _address, _server):
        with sock, sock.makefile("rb") as lines:
            while line := lines.readline():
                method, target, _ = line.decode().split()
                span = None
                while head := lines.readline().strip():
                    span = re.fullmatch(rb"Range: bytes=(\d+)-(\d+)", head) or span
                self.asked.append((method, target))
                try:
                    for piece in self.answer(method, urlsplit(target), span):
                        sock.sendall(piece)
                except OSError:
                    return

    def answer(self, method, target, span):
        asked = {name: values[0] for name, values in parse_qs(target.query).items()}
        if method != "GET":
            return [whole(b"", "204 No")]
        if "list-type" not in asked:
            first, last = map(int, span.groups())
            told = f"Content-Range: bytes {first}-{last}/{len(CONTENT)}"
            return [whole(CONTENT[first : last + 1], "206 OK", 'ETag: "e"', told)]
        prefix = asked.get("prefix", "")
        kind = prefix.removeprefix("base/").partition("/")[0] + "/"
        if kind in LISTINGS and prefix == f"base/{kind}":
            return LISTINGS[kind](prefix, asked.get("continuation-token", ""))
        shared = [f"base/{each}" for each in sorted(LISTINGS) if f"base/{each}".startswith(prefix)]
        return [whole(page(prefixes=shared if asked.get("delimiter") else ()))]

    def handle_error(self, *_):
        """Who has heard enough closes."""

    def has_seen(self, method):
        return [each for each in self.asked if each[0] == method]


@pytest.fixture
def server():
    with Hostile() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def mount(server, tmp_path):
    """mount(*options) -> LiveMount; at the end it must answer, and end without a word of a bug."""
    mounts = []
    with tempfile.TemporaryDirectory(prefix="stsfs-run-") as runtime:
        there = SimpleNamespace(url=server.url)
        host = Host(tmp_path, Path(runtime), SimpleNamespace(gate=there, synapse=there))

        def made(*options):
            mounts.append(host.mount("s3://lab/base", *options))
            mounts[-1].allow_in_log("ERROR stsfs.fuse.operations")  # what users were answered
            return mounts[-1]

        yield made
        problems = [each for live in mounts for each in live.audit()]
        assert problems == []


def run(*command):
    """What a command says; it must come to an end."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=90, check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return done.returncode, done.stdout.split(), done.stderr


def peak_bytes(live):
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{live.pid}/status").read_text())
    return int(found[1]) * 1024


def check_alive(live):
    assert run("ls", live / "good") == (0, ["a.txt", "b.txt"], "")
    assert run("cat", live / "good" / "a.txt")[:2] == (0, ["hello"])


def test_a_listing_without_end_takes_a_bounded_memory(mount):
    live = mount("--memory", "16M")
    check_alive(live)
    before_bytes = peak_bytes(live)
    for _ in range(2):
        code, _, error = run("ls", live / "endless")
        assert code
        assert os.strerror(errno.EIO) in error
    assert peak_bytes(live) - before_bytes < GROWTH_MAX_BYTES
    assert "more XML elements than any page needs" in live.status()["errors"][0]["sentence"]
    check_alive(live)


def test_lines_without_end_behind_a_page_do_not_stop_the_others(mount):
    """They come as fast as they are taken: whoever takes them all does nothing else."""
    live = mount("--memory", "16M")
    before_bytes = peak_bytes(live)
    code, _, error = run("ls", live / "behind")
    assert code
    assert os.strerror(errno.EIO) in error
    assert peak_bytes(live) - before_bytes < GROWTH_MAX_BYTES
    check_alive(live)


def test_a_page_that_comes_a_byte_at_a_time_does_not_stop_the_others(mount):
    live = mount("--deadline", "2")
    code, _, error = run("ls", live / "slowly")
    assert code
    assert os.strerror(errno.ETIMEDOUT) in error
    check_alive(live)


@pytest.mark.parametrize("kind", ["equal", "falling", "circle"])
def test_keys_that_do_not_grow_are_an_error_and_no_endless_listing(mount, server, kind):
    live = mount()
    code, _, error = run("ls", live / kind)
    assert code
    assert os.strerror(errno.EIO) in error
    assert len(server.asked) < 40
    check_alive(live)


def test_keys_of_another_place_are_neither_shown_nor_removed(mount, server):
    live = mount("--rw", "--conditional-writes", "on")
    name = live / "outside" / "secret.txt"
    assert run("ls", live / "outside")[:2] == (2, [])
    assert run("cat", name)[0]
    assert run("rm", "-f", name)[0]
    assert run("mv", name, live / "good" / "mine")[0]
    assert server.has_seen("DELETE") == []
    assert server.has_seen("PUT") == []
    check_alive(live)


def test_a_date_of_a_huge_year_on_a_page_read_ahead_ends_that_listing_only(mount, server):
    live = mount()
    code, names, error = run("ls", live / "late")
    assert code
    assert os.strerror(errno.EACCES) in error
    assert all(re.fullmatch(r"\d{4}", name) for name in names)
    assert any("continuation-token" in target for _, target in server.asked)
    assert not any(char in live.log() for char in "\x1b\x07")
    check_alive(live)


def test_rows_that_make_no_sense_are_hidden_and_counted_and_the_rest_is_shown(mount):
    live = mount()
    assert run("ls", live / "bad") == (0, ["a.txt", "date", "z.txt"], "")
    assert run("stat", "-c", "%Y", live / "bad" / "date")[:2] == (0, ["0"])
    assert run("cat", live / "bad" / "z.txt")[:2] == (0, ["hello"])
    assert run("stat", live / "bad" / "size")[0]
    done = live.host.stsfs("status", "--hidden", live.path)
    assert done.returncode == 0
    for key, why in {
        "size": "no number", "size2": "out of range", "\ufffd": "not UTF-8"
    }.items():  # fmt: skip
        assert re.search(rf"bad/{key}\W.*{why}", done.stdout), done.stdout
    told = live.host.stsfs("explain", live / "bad" / "size")
    assert "its size is no number" in told.stdout
    check_alive(live)


def test_a_directory_of_which_not_all_can_be_told_is_not_removed_or_renamed(mount, server):
    live = mount("--rw", "--conditional-writes", "on")
    run("rm", "-f", live / "bad" / "a.txt", live / "bad" / "z.txt")
    removed = len(server.has_seen("DELETE"))
    assert run("rmdir", live / "bad")[0]
    assert run("mv", live / "bad", live / "elsewhere")[0]
    assert len(server.has_seen("DELETE")) == removed
    assert server.has_seen("PUT") == []
