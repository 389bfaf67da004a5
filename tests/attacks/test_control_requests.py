"""The control socket: only the mount's user and root are heard, and nobody holds it up."""

import contextlib
import json
import os
import socket
import tempfile
from pathlib import Path

import pytest
import trio

from stsfs.daemon import control
from stsfs.daemon.control import CLIENTS_MAX, REQUEST_BYTES_MAX, serve_control
from stsfs.daemon.notify import ServiceManager
from tests.attacks.on_terminal import ORDERS, assert_obeys_nothing
from tests.mount import conftest as mounts

servers, stage, host, mount = mounts.servers, mounts.stage, mounts.host, mounts.mount

SOMEBODY = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]

ASK = """
import contextlib, socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    try:
        asking.connect(sys.argv[1])
    except OSError as exc:
        sys.exit(type(exc).__name__)
    with contextlib.suppress(BrokenPipeError):  # refused before we have asked
        asking.sendall(b'{"command": "echo"}\\n')
    print(asking.makefile().readline())  # its end may be a reset
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def path():
    # pytest's own directories can be too long for the name of a socket
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "s"


async def echo(request):
    return {"heard": request}


async def asked_by_somebody(path):
    # The base interpreter: that of a virtual environment may lie where others cannot go.
    interpreter = Path("/usr/bin/python3")
    command = [*SOMEBODY, interpreter, "-I", "-c", ASK, path]
    return await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, cwd="/"
    )


async def heard(path):
    """What somebody is answered who asks as our commands do."""
    stream = await trio.open_unix_socket(path)
    async with stream:
        await stream.send_all(b'{"command": "echo"}\n')
        return json.loads(b"".join([part async for part in stream]))


@as_root
async def test_another_user_does_not_get_as_far_as_the_socket(nursery, path):
    await nursery.start(serve_control, path, {"echo": echo})
    done = await asked_by_somebody(path)
    assert done.stderr.strip() == b"PermissionError"
    path.parent.chmod(0o755)
    done = await asked_by_somebody(path)
    assert done.stderr.strip() == b"PermissionError"


@as_root
async def test_another_user_is_refused_even_where_the_socket_is_open(nursery, path):
    await nursery.start(serve_control, path, {"echo": echo})
    path.parent.chmod(0o755)
    path.chmod(0o666)
    done = await asked_by_somebody(path)
    assert json.loads(done.stdout)["error"]["class"] == "AccessDenied"


async def test_many_who_talk_slowly_keep_nobody_waiting(nursery, path):
    """Without a clock: who asks at once is heard at once, whoever came before."""
    await nursery.start(serve_control, path, {"echo": echo})
    slow = []
    for _ in range(10 * CLIENTS_MAX):
        slow.append(await trio.open_unix_socket(path))
        await slow[-1].send_all(b'{"comm')
        await trio.testing.wait_all_tasks_blocked()
    assert (await heard(path))["heard"]
    first = b"".join([part async for part in slow[0]])
    assert "No whole request" in json.loads(first)["error"]["sentence"]
    for each in slow:
        await each.aclose()


async def test_who_says_one_letter_after_the_other_is_cut_off(nursery, path, autojump_clock):
    await nursery.start(serve_control, path, {"echo": echo})
    stream = await trio.open_unix_socket(path)
    began_s = trio.current_time()

    async def talk():
        while True:
            await stream.send_all(b" ")
            await trio.sleep(0.5)

    with pytest.raises(trio.BrokenResourceError):
        await talk()
    assert trio.current_time() - began_s < control.REQUEST_S + 2
    await stream.aclose()


async def test_who_does_not_read_the_answer_keeps_nobody_waiting(nursery, path, autojump_clock):
    async def large(request):
        return {"much": "x" * 50_000_000}

    await nursery.start(serve_control, path, {"echo": echo, "large": large})
    deaf = []
    for _ in range(CLIENTS_MAX):
        deaf.append(await trio.open_unix_socket(path))
        await deaf[-1].send_all(b'{"command": "large"}\n')
    await trio.testing.wait_all_tasks_blocked()
    assert (await heard(path))["heard"]
    for each in deaf:
        await each.aclose()


FORGED = [
    {"command": ORDERS},
    {"command": "x" * 60_000},
    {"command": "status", "hidden": ORDERS},
    {"command": "unmount2"},
    {"command": "explain"},
    {"command": "explain", "path": ["/"]},
    {"command": "explain", "path": "\ud800" * 1000},
    {"command": "explain", "path": "a/" * 20_000},
    {"command": "explain", "path": f"../../{ORDERS}"},
    {"command": "info", "path": f"../../../etc/{ORDERS}"},
    {"command": "info", "path": "a\0b"},
    {"command": "refresh", "path": {"a": 1}},
    {"command": "rules", "path": 1e308},
    {"command": "digests", "paths": "etc"},
    {"command": "digests", "paths": ["x"] * 101},
    {"command": "digests", "paths": [None]},
    {"command": "unsaved", "path": ORDERS},
]
RAW = [
    b"\0" * 1000, b"[" * 60_000, b'{"a":' * 10_000, b'{"command":1e999}', b"9" * 50_000,
    b"\xff\xfe", b'{"command":"status"}' * 2, b'{"command":"status","command":["x"]}',
    b"x" * (REQUEST_BYTES_MAX + 1), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
]  # fmt: skip


@pytest.mark.mount
def test_forged_requests_get_one_line_and_the_mount_goes_on(stage, host, mount):
    folder = stage.folder()
    folder.write("a", b"data")
    live = mount(folder.syn_id)
    where = host.record_of(live.path)["control_socket"]
    lines = [json.dumps(each).encode() for each in FORGED]
    for line in [*lines, *RAW]:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(30)
            asking.connect(where)
            asking.sendall(line + b"\n")
            answer = b""
            with contextlib.suppress(ConnectionResetError):  # it did not want to hear all
                while data := asking.recv(1 << 16):
                    answer += data
        assert answer.count(b"\n") == 1, line[:80]
        told = json.loads(answer)
        assert_obeys_nothing(answer)
        if "error" in told:
            assert told["error"]["class"] in ("BadArgument", "NotFound"), told
            assert len(answer) < 2000
    assert (live / "a").read_bytes() == b"data"
    assert live.status()["bugs"]["count"] == 0
    assert live.bad_lines() == []


def test_the_words_of_a_server_are_no_assignments_for_the_service_manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        ServiceManager(str(tmp_path / "n")).tell("READY=1", "STATUS=It said: x\nMAINPID=1\udcff")
        assert manager.recv(1000) == b"READY=1\nSTATUS=It said: x\\nMAINPID=1\\udcff"
