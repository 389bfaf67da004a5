import json
import os
import socket
import stat
import tempfile
import threading
from pathlib import Path

import pytest
import trio

from stsfs.daemon import control, control_client
from stsfs.daemon.control import CLIENTS_MAX, REQUEST_BYTES_MAX, serve_control
from stsfs.daemon.control_client import ask
from stsfs.daemon.error_record import InternalError, from_record, to_record
from stsfs.errors import (
    AccessDenied,
    BadArgument,
    DeadlineExceeded,
    MountBusy,
    MountPointUnusable,
    NoSuchMount,
    StsfsError,
)


@pytest.fixture
def path():
    # pytest's own directories can be too long for the name of a socket
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "s"


async def client(path, command, **arguments):
    return await trio.to_thread.run_sync(
        lambda: ask(path, command, timeout_s=120, arguments=arguments)
    )


async def say(path, data):
    """What a client gets that sends these bytes and then waits."""
    stream = await trio.open_unix_socket(path)
    async with stream:
        await stream.send_all(data)
        return b"".join([part async for part in stream])


async def echo(request):
    return {"heard": request}


async def test_a_command_and_its_arguments_reach_the_handler(nursery, path):
    await nursery.start(serve_control, path, {"echo": echo})
    answer = await client(path, "echo", lazy=True)
    assert answer == {"heard": {"command": "echo", "lazy": True}}


async def test_the_socket_is_private_and_gone_after_the_end(nursery, path):
    scope = trio.CancelScope()

    async def serve(task_status):
        with scope:
            await serve_control(path, {}, task_status=task_status)
        ended.set()

    ended = trio.Event()
    await nursery.start(serve)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    scope.cancel()
    await ended.wait()
    assert not path.exists()


async def test_errors_are_raised_at_the_client_as_what_they_were(nursery, path):
    async def busy(request):
        raise MountBusy("In use.", remedy="Close it.")

    await nursery.start(serve_control, path, {"unmount": busy})
    with pytest.raises(MountBusy) as raised:
        await client(path, "unmount")
    assert (raised.value.sentence, raised.value.remedy) == ("In use.", "Close it.")
    with pytest.raises(BadArgument, match="no command 'fly'"):
        await client(path, "fly")


@pytest.mark.parametrize("answer", [KeyError("x"), {"not": object()}])
async def test_a_bug_in_a_handler_is_told_and_logged_and_survived(nursery, path, caplog, answer):
    async def broken(request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    await nursery.start(serve_control, path, {"broken": broken, "echo": echo})
    with pytest.raises(InternalError, match="Internal error"):
        await client(path, "broken")
    assert "a bug in a control command" in caplog.text
    assert await client(path, "echo")


@pytest.mark.parametrize(
    "data", [b"status\n", b"[]\n", b'{"command": 1}\n', b"\xff\n", b"[" * 60000 + b"\n"]
)
async def test_nonsense_is_answered_with_what_is_expected(nursery, path, data):
    await nursery.start(serve_control, path, {})
    assert json.loads(await say(path, data))["error"]["class"] == "BadArgument"


async def test_a_request_without_end_is_cut_off(nursery, path):
    await nursery.start(serve_control, path, {})
    answer = await say(path, b"x" * (REQUEST_BYTES_MAX + 1))
    assert "at most" in json.loads(answer)["error"]["sentence"]


async def test_a_silent_client_is_dropped_at_its_deadline(nursery, path, autojump_clock):
    await nursery.start(serve_control, path, {})
    for data in (b"", b'{"command"'):
        began_s = trio.current_time()
        answer = json.loads(await say(path, data))
        assert "No whole request" in answer["error"]["sentence"]
        assert trio.current_time() - began_s == pytest.approx(control.REQUEST_S)


async def test_clients_that_leave_early_do_no_harm(nursery, path):
    await nursery.start(serve_control, path, {"echo": echo})
    for data in (b"", b'{"command": "echo"}\n'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as rude:
            rude.connect(str(path))
            rude.sendall(data)
    assert await client(path, "echo")


async def test_more_clients_than_allowed_are_turned_away(nursery, path):
    waiting, release = [], trio.Event()
    all_wait = trio.Event()

    async def wait(request):
        waiting.append(request)
        if len(waiting) == CLIENTS_MAX:
            all_wait.set()
        await release.wait()
        return {}

    await nursery.start(serve_control, path, {"wait": wait})
    async with trio.open_nursery() as clients:
        for _ in range(CLIENTS_MAX):
            clients.start_soon(client, path, "wait")
        await all_wait.wait()
        answer = json.loads(await say(path, b'{"command": "wait"}\n'))
        assert "at once" in answer["error"]["sentence"]
        release.set()


async def test_other_users_are_refused(nursery, path, monkeypatch):
    monkeypatch.setattr(control, "peer_uid", lambda connection: os.geteuid() + 4711)
    await nursery.start(serve_control, path, {"echo": echo})
    with pytest.raises(AccessDenied):
        await client(path, "echo")


async def test_a_refusal_that_comes_before_the_request_is_heard(path, monkeypatch):
    refused = threading.Event()

    class LateSender(socket.socket):
        def connect(self, address):
            super().connect(address)
            assert refused.wait(120)

    def refuse(listening):
        connection, _address = listening.accept()
        with connection:
            connection.sendall(json.dumps({"error": to_record(AccessDenied("Not you."))}).encode())
            connection.sendall(b"\n")
        refused.set()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        monkeypatch.setattr(control_client.socket, "socket", LateSender)
        async with trio.open_nursery() as peers:
            peers.start_soon(trio.to_thread.run_sync, refuse, listening)
            with pytest.raises(AccessDenied, match="Not you"):
                await client(path, "echo")


async def test_the_kernel_says_who_asks():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with left, right:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(left))
        assert control.peer_uid(stream) == os.geteuid()


async def test_a_command_that_ends_the_daemon_is_still_answered(nursery, path):
    scope = trio.CancelScope()

    async def unmount(request):
        scope.cancel()
        return {"unmounted": True}

    async def serve(task_status):
        with scope:
            await serve_control(path, {"unmount": unmount}, task_status=task_status)

    await nursery.start(serve)
    assert await client(path, "unmount") == {"unmounted": True}


async def test_a_socket_left_by_a_dead_daemon_is_replaced_a_living_one_is_not(nursery, path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    await nursery.start(serve_control, path, {"echo": echo})
    with pytest.raises(MountPointUnusable, match="already listens"):
        await serve_control(path, {})
    assert await client(path, "echo")


def test_nobody_there_is_no_such_mount(path):
    with pytest.raises(NoSuchMount):
        ask(path, "status", timeout_s=1)


def test_a_daemon_that_does_not_answer_is_given_up(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        with pytest.raises(DeadlineExceeded):
            ask(path, "status", timeout_s=0.01)


def test_a_daemon_without_a_sign_of_life_is_given_up_before_its_time_is_over(path, monkeypatch):
    monkeypatch.setattr(control_client, "SIGN_OF_LIFE_S", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        with pytest.raises(control_client.DaemonSilent) as raised:
            ask(path, "status", timeout_s=1e6, silence_s=0.01, name="It", remedy="Kill it.")
    assert str(raised.value) == "It does not answer: it hangs, or was stopped. Kill it."


async def test_a_daemon_that_is_slow_and_alive_is_waited_for(nursery, path):
    asked, goes_on = trio.Event(), trio.Event()

    async def slow(request):
        asked.set()
        await goes_on.wait()
        return {}

    signs = []
    is_answering = control_client.is_answering

    def noted(path):
        signs.append(is_answering(path))
        if len(signs) == 3:
            trio.from_thread.run_sync(goes_on.set)
        return signs[-1]

    await nursery.start(serve_control, path, {"slow": slow})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control_client, "is_answering", noted)
        answer = await trio.to_thread.run_sync(
            lambda: ask(path, "slow", timeout_s=1e6, silence_s=0.01)
        )
    assert (answer, set(signs)) == ({}, {True})


async def test_whether_a_daemon_is_at_work_is_told_without_a_command(nursery, path):
    async def answers():
        return await trio.to_thread.run_sync(control_client.is_answering, path)

    assert not await answers()
    await nursery.start(serve_control, path, {})
    assert await answers()


async def test_a_daemon_that_ends_without_an_answer(nursery, path):
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listening.bind(str(path))
    listening.listen()

    async def hang_up():
        connection, _ = await listening.accept()
        await connection.recv(1000)
        connection.close()
        listening.close()

    nursery.start_soon(hang_up)
    with pytest.raises(NoSuchMount, match="ended without an answer"):
        await client(path, "status")


def test_an_error_of_a_class_unknown_here_keeps_its_words():
    error = from_record({"class": "sole", "sentence": "S.", "remedy": "R."})
    assert type(error) is StsfsError
    assert str(error) == "S. R."


def test_an_error_in_a_group_of_one_is_described_itself():
    record = to_record(ExceptionGroup("nursery", [MountBusy("In use.")]))
    assert record == {"class": "MountBusy", "sentence": "In use.", "remedy": ""}
