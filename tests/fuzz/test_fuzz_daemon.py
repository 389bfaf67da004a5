"""The control socket, and the records of mounts: whatever arrives there, the daemon lives."""

import json
import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.daemon import control, runtime_dir
from stsfs.daemon.control import CLIENTS_MAX, REQUEST_BYTES_MAX, serve_control
from stsfs.daemon.control_client import ask
from stsfs.daemon.runtime_dir import MountRecord
from stsfs.errors import StsfsError
from tests.fuzz.mutations import DEEP, ODD_TEXTS, ODD_VALUES, bounded, damaged_bytes, fuzz, mutated

REQUEST = {"command": "echo", "path": "/a", "hidden": True}


async def echo(request):
    return {"heard": request}


async def bug(request):
    return {1: {2, 3}}[request["path"]]


async def answered(path, pieces, *, ends=True):
    """What the daemon sends to a client that sends pieces, and then ends its side or not."""
    stream = await trio.open_unix_socket(path)
    received = b""
    async with stream:
        try:
            for piece in pieces:
                await stream.send_all(piece)
            if ends:
                await stream.send_eof()
        except (trio.BrokenResourceError, OSError):
            pass  # it has heard enough
        try:
            async for part in stream:
                received += part
        except trio.BrokenResourceError:
            pass  # closed while bytes of ours were unread
    return received


def served(client):
    """Run client(path) against a daemon of its own, which must be alive afterwards."""

    async def run():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "s"
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_control, path, {"echo": echo, "bug": bug})
                await client(path)
                alive = json.loads(await answered(path, [b'{"command":"echo"}\n']))
                assert alive == {"heard": {"command": "echo"}}
                nursery.cancel_scope.cancel()

    with bounded():
        trio.run(run)


@fuzz
@given(
    st.lists(damaged_bytes(json.dumps(REQUEST).encode() + b"\n"), max_size=3)
    | mutated(st.just(REQUEST)).map(lambda values: [json.dumps(values).encode() + b"\n"])
)
@example([DEEP[0][:60_000] + b"\n"])
@example([b'{"command":"bug","path":1}\n'])
@example([b'{"command":"\\ud800"}\n'])
@example([b"x" * (4 * REQUEST_BYTES_MAX)])
def test_any_request_gets_one_line_of_json_or_nothing(pieces):
    async def client(path):
        received = await answered(path, pieces)
        if received:
            assert received.count(b"\n") == 1
            assert isinstance(json.loads(received), dict)

    served(client)


def test_clients_that_say_nothing_keep_nobody_out(monkeypatch):
    held = []

    async def client(path):
        for _ in range(4 * CLIENTS_MAX):
            stream = await trio.open_unix_socket(path)
            held.append(stream)
            await stream.send_all(b'{"command"')
        received = await answered(path, [b'{"command":"echo"}\n'])
        assert json.loads(received)["heard"]
        for stream in held:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()

    served(client)


def test_a_line_that_does_not_end_is_read_no_further_than_a_request_may_be(monkeypatch):
    lengths = []
    real = control._read_line

    async def counted(connection):
        try:
            return await real(connection)
        finally:
            lengths.append(connection)

    monkeypatch.setattr(control, "_read_line", counted)

    async def client(path):
        received = await answered(path, [b"x" * REQUEST_BYTES_MAX] * 20, ends=False)
        if received:
            assert "at most" in json.loads(received)["error"]["sentence"]

    served(client)
    assert lengths


# The asking end.


@fuzz
@given(
    damaged_bytes(b'{"error":{"class":"MountBusy","sentence":"S.","remedy":"R."}}\n')
    | mutated(st.just({"error": {"class": "MountBusy", "sentence": "S.", "remedy": "R."}})).map(
        lambda values: json.dumps(values).encode() + b"\n"
    )
)
@example(DEEP[0] + b"\n")
def test_any_answer_is_a_dict_or_an_error(data):
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        path = Path(directory) / "s"
        listening.bind(str(path))
        listening.listen(1)

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                try:
                    connection.sendall(data)
                except OSError:
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        with bounded():
            try:
                assert isinstance(ask(path, "echo", timeout_s=120), dict)
            except StsfsError as exc:
                str(exc)
        thread.join()


# Records of mounts.

RECORD = {
    "location": "syn1", "uri": "s3://b/k", "mount_path": "/m", "pid": 7, "control_socket": "/s",
    "started_at_unix_s": 1.5, "log_file": "/l", "staging_dir": None,
}  # fmt: skip


def records_of(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(directory))
        (runtime_dir.runtime_dir() / "id.json").write_bytes(data)
        with bounded():
            found = runtime_dir._read(runtime_dir.runtime_dir() / "id.json")
            assert runtime_dir.records() == []
            runtime_dir.find(Path("/m"))
    if found is None:
        return
    assert found.mount_path.is_absolute()
    assert found.control_socket.is_absolute()
    assert 0 < found.pid < 2**31
    os.fsencode(f"{found.mount_path}{found.control_socket}{found.location}{found.uri}")
    assert MountRecord.from_json(found.to_json()) == found


@fuzz
@given(mutated(st.just(RECORD)))
@example(RECORD | {"pid": -1})
@example(RECORD | {"pid": 10**400})
@example(RECORD | {"pid": float("inf")})
@example(RECORD | {"started_at_unix_s": 10**400})
@example(RECORD | {"mount_path": "a\0b"})
@example(RECORD | {"control_socket": "/a\0b"})
@example(RECORD | {"control_socket": "/\ud800"})
@example([])
@example("x")
def test_a_record_of_a_mount_is_in_order_or_passed_over(tmp_path_factory, document):
    records_of(tmp_path_factory, json.dumps(document).encode())


@fuzz
@given(damaged_bytes(json.dumps(RECORD).encode()) | st.sampled_from(DEEP))
def test_bytes_are_a_record_of_a_mount_or_passed_over(tmp_path_factory, data):
    records_of(tmp_path_factory, data)


def test_a_record_makes_nobody_remove_a_file_elsewhere(tmp_path_factory, tmp_path):
    mine = tmp_path / "precious"
    mine.write_text("x")
    document = RECORD | {"control_socket": str(mine)}
    records_of(tmp_path_factory, json.dumps(document).encode())
    assert mine.read_text() == "x"


# What commands ask.


@fuzz
@given(ODD_TEXTS | ODD_VALUES)
@example("\ud800")
@example("a\0b")
def test_a_path_in_a_request_is_one_or_refused(path):
    from stsfs.daemon import questions

    try:
        found = questions._path({"path": path})
    except StsfsError:
        return
    os.fsencode(found)
    assert "\0" not in found
