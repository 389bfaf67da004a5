"""What an attack, or an ordinary set-up, has found once: answers, paths, variables."""

import os

import pytest
import trio

from stsfs import owned_dir
from stsfs.daemon import logs, pinning, runtime_dir
from stsfs.errors import ForeignPath, StoreFailure
from stsfs.store import retry
from tests.attacks.other_user import as_other, needs_two_users, new_machine
from tests.attacks.test_hostile_s3 import ALL, PAGE, VERSION, hostile
from tests.fakes import Sink
from tests.scripted_server import with_length

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.001)
    monkeypatch.setattr(retry, "FAILURES_MAX", 2)


async def test_a_change_of_protocol_is_no_answer_and_no_bug(quick):
    async with hostile(lambda _: [SWITCHING]) as server:
        with pytest.raises(StoreFailure, match="change of protocol"):
            await server.store.list_page("p/")
        with pytest.raises(StoreFailure, match="change of protocol"):
            await server.store.read_range(VERSION, 0, 100_000, Sink(100_000))


@pytest.mark.parametrize("before", [(CONTINUE,), (HINTS + CONTINUE,), (HINTS[:20], HINTS[20:])])
async def test_heads_that_are_not_the_last_are_passed_over(before):
    async with hostile(lambda _: [*before, with_length(PAGE)]) as server:
        assert (await server.store.list_page("p/")).objects == []
    async with hostile(lambda _: [*before, 0.01, ALL + b"x" * 100_000]) as server:
        await server.store.read_range(VERSION, 0, 100_000, Sink(100_000))
    async with hostile(lambda _: [b"".join(before) + ALL + b"x" * 100_000]) as server:
        await server.store.read_range(VERSION, 0, 100_000, Sink(100_000))


async def test_a_date_of_a_proxy_beside_that_of_the_server_is_no_harm():
    dates = [b"Date: Sat, 28 Nov 2026 15:00:0%d GMT" % number for number in range(2)]
    async with hostile(lambda _: [with_length(PAGE, *dates)]) as server:
        with trio.fail_after(120):
            assert (await server.store.list_page("p/")).objects == []


@needs_two_users
def test_a_directory_above_a_log_that_is_swapped_meanwhile_leads_nowhere_else(monkeypatch):
    with new_machine() as machine:
        theirs, aim = machine.shared / "logs", machine.home / "private"
        aim.mkdir()
        as_other('mkdir "$1"', theirs)
        real = owned_dir.resolved

        def swapped(path):
            found = real(path)
            as_other('mv "$1" "$1-gone"; ln -s "$2" "$1"', theirs, aim)
            return found

        monkeypatch.setattr(owned_dir, "resolved", swapped)
        with pytest.raises((ForeignPath, OSError)):
            os.close(owned_dir.open_log(theirs / "mount.log", os.O_WRONLY | os.O_CREAT))
        assert list(aim.iterdir()) == []


def test_a_runtime_directory_that_is_not_absolute_is_none(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    assert runtime_dir.runtime_dir().is_absolute()
    assert list((tmp_path / "run").iterdir()) == []


@needs_two_users
def test_a_lock_is_written_through_no_link_of_others(monkeypatch):
    monkeypatch.setattr(pinning, "render", lambda _: ["{}\n"])
    with new_machine() as machine:
        theirs, aim = machine.shared / "theirs", machine.home / "private"
        aim.mkdir()
        as_other('mkdir "$1"; ln -s "$2" "$1/away"', theirs, aim)
        with pytest.raises(ForeignPath):
            pinning.write_lock(theirs / "away" / "data.lock", None)
        assert list(aim.iterdir()) == []
        pinning.write_lock(theirs / "data.lock", None)
        pinning.write_lock(theirs / "data.lock", None)
        assert [each.name for each in theirs.iterdir() if each.is_file()] == ["data.lock"]


@needs_two_users
def test_a_log_is_put_aside_through_no_link_of_others():
    with new_machine() as machine:
        theirs, aim = machine.shared / "logs", machine.home / "private"
        aim.mkdir()
        (aim / "mount.log").write_text("of root's")
        as_other('mkdir "$1"', theirs)
        log = logs.PrivateRotatingFileHandler(theirs / "mount.log", backupCount=2)
        log.doRollover()
        log.doRollover()
        log.doRollover()
        assert len(list(theirs.iterdir())) == 3
        as_other('mv "$1" "$1-gone"; ln -s "$2" "$1"', theirs, aim)
        with pytest.raises(ForeignPath):
            log.doRollover()
        log.close()
        assert [each.name for each in aim.iterdir()] == ["mount.log"]
