"""Blocks on disk, through real mounts: what survives, what is noticed, what costs nothing."""

import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.live_mount import POLL_S
from tests.mount.stage import PATIENCE_S
from tests.schemas import checked

pytestmark = [pytest.mark.mount, pytest.mark.long]

MIB = 1 << 20
SEED = 20


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def files(folder):
    """Sixteen files of different lengths, by name."""
    lengths = random.Random(SEED)
    return {
        f"f{number:02}": folder.write(
            f"f{number:02}", random.Random(number).randbytes(lengths.randrange(MIB, 3 * MIB))
        )
        for number in range(16)
    }


def remount(host, folder, live, *options):
    """The same place again; returns when it is mounted."""
    done = host.try_mount(folder.syn_id, live.path, *options)
    assert done.returncode == 0, done.stderr


def fetched_bytes(stage):
    """Bytes of objects that S3 has been asked for since the log was forgotten."""
    lengths = []
    for each in stage.gate.requests.of_kind("GET"):
        first, last = each.range.removeprefix("bytes=").split("-")
        lengths.append(int(last) - int(first) + 1)
    return sum(length for length in lengths if length > 1)  # one byte: is it still there?


def chunk_files(cache_dir):
    return [path for path in cache_dir.rglob("chunks-*/*/*") if path.is_file()]


def disk_of(live):
    return live.status()["disk_cache"]


def wait_until(live, is_so):
    """The state of the disk cache once is_so(state); the daemon announces it to nobody."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so(disk := disk_of(live)):
        assert time.monotonic() < deadline_s, disk
        select.select([], [], [], POLL_S)
    return disk


def read_again(live, files, *, until):
    """Read everything past the kernel's pages, as often as it takes."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not until(disk := disk_of(live)):
        assert time.monotonic() < deadline_s, disk
        for name in files:
            with open(live / name, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert wrong_files(live, files) == []


def read_until_dead(live, files, stopped, reads=None):
    """Read file after file until the mount dies; returns the names with wrong bytes."""
    wrong = []
    while not stopped.is_set():
        for name, data in files.items():
            try:
                with open(live / name, "rb") as file:
                    read = file.read()
            except OSError:
                continue  # the daemon is gone
            if read != data:
                wrong.append(name)
            if reads is not None:
                reads.release()
    return wrong


def wrong_files(live, files):
    return [name for name, data in files.items() if (live / name).read_bytes() != data]


def test_what_was_read_before_a_kill_is_not_fetched_again(host, stage, folder, files, cache_dir):
    """kill -9 under load: ENOTCONN, a new mount, and the blocks on disk are used."""
    live = host.mount(folder.syn_id, "--cache-dir", cache_dir)
    try:
        assert wrong_files(live, files) == []
        wait_until(live, lambda disk: not disk["waiting_bytes"])
        stopped = threading.Event()
        with ThreadPoolExecutor(4) as readers:
            reading = [readers.submit(read_until_dead, live, files, stopped) for _ in range(4)]
            live.signal(signal.SIGKILL)
            live.wait_for_end()
            stopped.set()
            assert [each.result() for each in reading] == [[]] * 4
        with pytest.raises(OSError, match="not connected"):
            os.listdir(live.path)
        assert live.unmount().returncode == 0
        stage.forget_requests()
        remount(host, folder, live, "--cache-dir", cache_dir)
        assert wrong_files(live, files) == []
        assert fetched_bytes(stage) == 0
    finally:
        assert host.stsfs("unmount", live.path).returncode == 0
        live.destroy()


def test_ten_kills_at_random_moments_leave_no_wrong_byte(host, folder, files, cache_dir):
    live = host.mount(folder.syn_id, "--cache-dir", cache_dir)
    moments = random.Random(SEED)
    try:
        for _ in range(10):
            pid = host.record_of(live.path)["pid"]
            reads = threading.Semaphore(0)
            stopped = threading.Event()
            with ThreadPoolExecutor(4) as readers:
                reading = [
                    readers.submit(read_until_dead, live, files, stopped, reads) for _ in range(4)
                ]
                for _ in range(moments.randrange(1, 40)):
                    assert reads.acquire(timeout=PATIENCE_S)
                os.kill(pid, signal.SIGKILL)
                stopped.set()
                assert [each.result() for each in reading] == [[]] * 4
            assert live.unmount().returncode == 0
            remount(host, folder, live, "--cache-dir", cache_dir)
        assert wrong_files(live, files) == []
        status = json.loads(host.stsfs("status", "--json", live.path).stdout)
        assert status["disk_cache"]["state"] == "on"
    finally:
        assert host.stsfs("unmount", live.path).returncode == 0
        live.destroy()


def test_a_flipped_byte_is_noticed_and_fetched_again(stage, mount, folder, files, cache_dir):
    first = mount(folder.syn_id, "--cache-dir", cache_dir)
    assert wrong_files(first, files) == []
    assert first.unmount().returncode == 0
    first.wait_for_end()
    flipped = chunk_files(cache_dir)
    assert len(flipped) == len(files)
    for path in flipped:
        with open(path, "r+b") as file:
            file.seek(MIB // 2)
            byte = file.read(1)
            file.seek(MIB // 2)
            file.write(bytes([byte[0] ^ 0x10]))
    stage.forget_requests()
    second = mount(folder.syn_id, "--cache-dir", cache_dir)
    assert wrong_files(second, files) == []
    assert 0 < fetched_bytes(stage) < sum(map(len, files.values()))
    assert disk_of(second)["damaged"] == len(flipped)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, which can be filled and broken."""
    image, path = tmp_path / "image", tmp_path / "disk"
    path.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    for command in (
        ["mkfs.ext4", "-q", str(image)],
        ["mount", "-o", "loop,errors=remount-ro", str(image), str(path)],
    ):
        if shutil.which(command[0]) is None or subprocess.run(command, check=False).returncode:
            pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def full(disk):
    """Somebody else takes whatever becomes free."""
    ended = threading.Event()

    def take():
        with open(disk / "ballast", "wb", buffering=0) as ballast:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    ballast.write(bytes(MIB))

    with ThreadPoolExecutor(1) as neighbour:
        neighbour.submit(take)
        try:
            yield
        finally:
            ended.set()


@contextlib.contextmanager
def removed(disk):
    """What a person does who wants the space, while the cache goes on writing."""
    away = disk / "away"
    (disk / "cache").rename(away)  # at once: below a name that is gone nothing new appears
    while away.exists():  # but in directories that were open meanwhile
        shutil.rmtree(away, ignore_errors=True)
    yield


@contextlib.contextmanager
def read_only(disk):
    """What ext4 does after an error of the device."""
    source = Path(subprocess.check_output(["findmnt", "-no", "SOURCE", disk], text=True).strip())
    Path(f"/sys/fs/ext4/{source.name}/trigger_fs_error").write_text("1")
    yield


@pytest.mark.parametrize("trouble", [full, removed, read_only])
def test_a_cache_in_trouble_costs_speed_and_one_warning(mount, folder, files, small_disk, trouble):
    """Eight readers, and the disk fills, vanishes or becomes read-only under them."""
    live = mount(folder.syn_id, "--cache-dir", small_disk / "cache", "--memory", "16MiB")
    names = sorted(files)
    half_way = threading.Barrier(9, timeout=PATIENCE_S)
    done = threading.Barrier(9, timeout=PATIENCE_S)

    def read(number):
        wrong = wrong_files(live, {name: files[name] for name in names[number : number + 1]})
        half_way.wait()
        done.wait()
        return wrong + wrong_files(live, {name: files[name] for name in names[8 + number :]})

    with ThreadPoolExecutor(8) as readers:
        reading = [readers.submit(read, number) for number in range(8)]
        half_way.wait()
        with trouble(small_disk):
            done.wait()
            assert [each.result() for each in reading] == [[]] * 8
            read_again(live, files, until=lambda disk: disk["reason"])
    assert live.log().count("the disk cache") == 1


def test_mounts_share_a_directory_and_what_is_in_it(mount, stage, folder, files, cache_dir):
    mounts = [mount(folder.syn_id, "--cache-dir", cache_dir) for _ in range(3)]
    with ThreadPoolExecutor(3) as readers:
        assert list(readers.map(wrong_files, mounts, [files] * 3)) == [[]] * 3
    for live in mounts:
        wait_until(live, lambda disk: not disk["waiting_bytes"])
    late = mount(folder.syn_id, "--cache-dir", cache_dir)
    stage.forget_requests()
    assert wrong_files(late, files) == []
    assert fetched_bytes(stage) == 0


def test_a_replaced_object_is_never_read_from_disk(mount, folder, files, cache_dir):
    live = mount(folder.syn_id, "--cache-dir", cache_dir)
    assert wrong_files(live, files) == []
    wait_until(live, lambda disk: not disk["waiting_bytes"])
    changed = {name: data[::-1] for name, data in files.items()}
    for name, data in changed.items():
        folder.put(name, data)
    assert wrong_files(live, changed) == []
    again = mount(folder.syn_id, "--cache-dir", cache_dir)
    assert wrong_files(again, changed) == []


def test_cached_bytes_can_be_looked_at_and_given_up(host, mount, stage, folder, files, cache_dir):
    live = mount(folder.syn_id, "--cache-dir", cache_dir)
    assert wrong_files(live, files) == []
    wait_until(live, lambda disk: not disk["waiting_bytes"])
    held = checked("cache", host.stsfs("cache", "info", "--json").stdout)
    assert held["stored_bytes"] >= sum(map(len, files.values()))
    assert held["versions"] == len(files)
    assert held["mounts"] == [str(live.path)]
    shown = host.stsfs("cache", "info", cache_dir).stdout
    assert "of 16 objects" in shown
    assert str(live.path) in shown
    known = json.loads(host.stsfs("info", live / "f00", "--json").stdout)
    assert known["known"]["disk_bytes"] == len(files["f00"])
    done = host.stsfs("cache", "clear", cache_dir)
    assert (done.returncode, "given up" in done.stdout) == (0, True)
    assert chunk_files(cache_dir) == []
    again = mount(folder.syn_id, "--cache-dir", cache_dir)
    assert wrong_files(again, files) == []
    assert fetched_bytes(stage) >= 2 * sum(map(len, files.values()))
    nothing = host.stsfs("cache", "info", cache_dir / "elsewhere")
    assert (nothing.returncode, "holds no disk cache" in nothing.stderr) == (2, True)
