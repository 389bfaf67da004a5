"""What reads answer on a read-only mount, row by row of the contract; here: what goes well."""

import fcntl
import hashlib
import mmap
import os
import random
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mount.entity_folder import new_folder

pytestmark = pytest.mark.mount
VIEWS = ("keys", "entities")

KIB, MIB = 1024, 1 << 20
BLOCK_BYTES = 64 * KIB
"""The unit of the cache in these mounts."""

SIZES = sorted(
    {0, 1, 2, 4095, 4096, 4097}
    | {n * BLOCK_BYTES + d for n in (1, 2, 8) for d in (-1, 0, 1)}
    | {256 * KIB - 1, 256 * KIB + 1, MIB - 1, MIB, MIB + 1}
)
BIG_BYTES = 9 * MIB + 12_345


@pytest.fixture(scope="module")
def data():
    rng = random.Random(7)
    found = {f"sizes/{size}": rng.randbytes(size) for size in SIZES}
    return found | {"big": rng.randbytes(BIG_BYTES), "dir/sub/deep": b"deep", "empty": b""}


@pytest.fixture(scope="module")
def shown(servers, data, view):
    """The folder behind `live`."""
    folder = new_folder(servers, view)
    for name, content in data.items():
        folder.write(name, content)
    (folder.path / "owner.txt").write_bytes(b"ada\n")  # no entity, in any view
    folder.write("dir/owner.txt", b"not at the root: a file as any other\n")
    return folder


@pytest.fixture(scope="module")
def live(shown, module_mount):
    return module_mount(shown.syn_id, "--block-size", "64KiB", "--memory", "16MiB")


@pytest.fixture
def fresh(folder, mount, data):
    """A mount that has cached nothing, of the big file."""
    folder.write("big", data["big"])
    return mount(folder.syn_id, "--block-size", "64KiB", "--memory", "16MiB")


def offsets(count, size_bytes):
    rng = random.Random(11)
    return [rng.randrange(BIG_BYTES - size_bytes) for _ in range(count)]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_is_read_whole(live, data, size):
    """ "open, read: works": empty files, and one byte around each unit of the cache."""
    path = live / "sizes" / str(size)
    assert path.stat().st_size == size
    assert path.read_bytes() == data[f"sizes/{size}"]


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES + 1, MIB])
def test_reads_at_and_beyond_the_end_are_short_or_empty(live, data, size):
    with open(live / "sizes" / str(size), "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, size) == b""
        assert os.pread(file.fileno(), 100, size + MIB) == b""
        assert os.pread(file.fileno(), 100, max(0, size - 1)) == data[f"sizes/{size}"][-1:]


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["buffered", "O_DIRECT"])
@pytest.mark.parametrize("size_bytes", [1, 4096, 100_000, MIB])
def test_random_reads_give_the_right_bytes(fresh, data, flags, size_bytes):
    """ "O_DIRECT (bypasses caches)" and buffered reads agree with the object."""
    descriptor = os.open(fresh / "big", os.O_RDONLY | flags)
    try:
        for offset in offsets(40, size_bytes):
            piece = os.pread(descriptor, size_bytes, offset)
            assert piece == data["big"][offset : offset + size_bytes]
    finally:
        os.close(descriptor)


def test_o_direct_bypasses_the_caches(stage, fresh, data):
    """Each read of O_DIRECT asks S3 for what it wants, and leaves nothing in memory."""
    descriptor = os.open(fresh / "big", os.O_RDONLY | os.O_DIRECT)
    try:
        stage.forget_requests()
        for _ in range(3):
            assert os.pread(descriptor, 4096, MIB) == data["big"][MIB : MIB + 4096]
    finally:
        os.close(descriptor)
    assert [each.range for each in stage.gate.requests.of_kind("GET")] == [
        f"bytes={MIB}-{MIB + 4095}"
    ] * 3
    assert fresh.status()["cache"]["used_bytes"] == 0


def test_what_was_read_once_costs_no_request_again(stage, fresh, data):
    """The page cache keeps it; an open asks the server whether the version stands, no more."""
    assert (fresh / "big").read_bytes() == data["big"]
    stage.forget_requests()
    with open(fresh / "big", "rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(data["big"]).digest()
    assert stage.requests.get("GET", 0) <= 1
    assert sum(each.body_bytes for each in stage.gate.requests) <= 256 * KIB


def test_a_mapping_shows_the_file(live, reader, data):
    """ "mmap: works", at random places and as a whole."""
    file = reader.open(live / "big", "mmap")
    for offset in offsets(40, 10_000):
        assert file.read(offset, 10_000) == data["big"][offset : offset + 10_000]
    assert file.read(0, BIG_BYTES) == data["big"]
    file.close()


def test_sendfile_and_splice_give_the_right_bytes(fresh, data, tmp_path):
    """ "sendfile: works"."""
    with open(fresh / "big", "rb") as file, open(tmp_path / "copy", "wb") as copy:
        sent = 0
        while count := os.sendfile(copy.fileno(), file.fileno(), sent, MIB):
            sent += count
    assert (tmp_path / "copy").read_bytes() == data["big"]


def test_many_readers_at_once_each_get_the_right_bytes(fresh, data):
    """ "concurrent readers without limit": of one file, with far less memory than they ask for."""

    def read(number):
        rng, wrong = random.Random(number), 0
        with open(fresh / "big", "rb", buffering=0) as file:
            for _ in range(20):
                size_bytes = rng.choice([100, 70_000, 500_000])
                offset = rng.randrange(BIG_BYTES - size_bytes)
                piece = os.pread(file.fileno(), size_bytes, offset)
                wrong += piece != data["big"][offset : offset + size_bytes]
        return wrong

    with ThreadPoolExecutor(40) as pool:
        assert sum(pool.map(read, range(40))) == 0


def test_several_streams_of_one_handle_are_right(fresh, data):
    """Interleaved sequential reads through one descriptor, a small step each."""
    step, starts = 50_000, [0, 3 * MIB, 6 * MIB + 1]
    with open(fresh / "big", "rb", buffering=0) as file:
        for position in range(0, 2 * MIB, step):
            for start in starts:
                begin = start + position
                assert os.pread(file.fileno(), step, begin) == data["big"][begin : begin + step]


def test_attributes_are_those_of_an_object(live, shown, view):
    """ "st_mtime is LastModified, st_nlink 1, st_blocks from the size, st_blksize 1 MiB"."""
    status = (live / "big").stat()
    assert status.st_size == BIG_BYTES
    assert status.st_blocks == -(-BIG_BYTES // 512)
    assert (status.st_nlink, status.st_blksize) == (1, MIB)
    assert int(status.st_mtime) - int(shown.object_path("big").stat().st_mtime) in {0, 1}
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert stat.filemode(status.st_mode) == "-r--r--r--"
    assert stat.filemode((live / "dir").stat().st_mode) == "dr-xr-xr-x"
    if view == "keys":  # Synapse's folders have times of their own
        assert (live / "dir").stat().st_mtime == live.path.stat().st_mtime
    assert (live / "empty").stat().st_blocks == 0


def test_owner_and_mode_are_options(folder, mount):
    folder.write("x", b"x")
    live = mount(folder.syn_id, "--uid", "1234", "--gid", "2345", "--umask", "044")
    status = (live / "x").stat()
    assert (status.st_uid, status.st_gid) == (1234, 2345)
    assert stat.filemode(status.st_mode) == "-r--------"


def test_statfs_shows_a_large_nearly_empty_filesystem(live):
    status = os.statvfs(live.path)
    assert status.f_bavail * status.f_frsize >= 1 << 60
    assert status.f_bavail == status.f_blocks
    assert status.f_namemax == 255


def test_extended_attributes_are_not_supported(live):
    """ "Without --xattrs ENOSYS, once", which callers see as ENOTSUP."""
    for ask in (lambda: os.getxattr(live / "big", "user.x"), lambda: os.listxattr(live / "big")):
        with pytest.raises(OSError, match="not supported"):
            ask()


def test_locks_hold_on_this_host(live):
    """ "locks: as the kernel falls back without us: they hold on this host only"."""
    probe = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", probe, str(live / "big")]
    with open(live / "big", "rb") as file:
        fcntl.lockf(file, fcntl.LOCK_SH)
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "BlockingIOError" in refused.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_a_file_is_all_data_to_lseek(live):
    """ "lseek holes: as the kernel falls back without us"."""
    with open(live / "big", "rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == BIG_BYTES


def test_the_proof_of_ownership_is_hidden_at_the_root_only(live):
    """ "owner.txt at the root: ENOENT to look at"; the policy would deny it anyway."""
    assert "owner.txt" not in os.listdir(live.path)
    for look in (os.stat, os.listdir, lambda path: os.open(path, os.O_RDONLY)):
        with pytest.raises(FileNotFoundError):
            look(live / "owner.txt")
    assert (live / "dir/owner.txt").read_bytes().startswith(b"not at the root")


def test_a_name_that_is_not_utf8_does_not_exist(live):
    with pytest.raises(FileNotFoundError):
        os.stat(os.fsencode(live.path) + b"/caf\xe9")


def test_a_name_over_255_bytes_is_too_long(live):
    with pytest.raises(OSError, match="File name too long"):
        (live / ("x" * 256)).stat()
    with pytest.raises(FileNotFoundError):
        (live / ("x" * 255)).stat()


def test_a_file_is_no_directory_and_a_directory_no_file(live):
    with pytest.raises(NotADirectoryError):
        os.listdir(live / "big")
    with pytest.raises(NotADirectoryError):
        (live / "big" / "x").stat()
    with pytest.raises(IsADirectoryError):
        (live / "dir").read_bytes()


CHANGES = {
    "create": lambda d, f: os.open(d / "new", os.O_WRONLY | os.O_CREAT),
    "write": lambda d, f: os.open(f, os.O_WRONLY),
    "read-write": lambda d, f: os.open(f, os.O_RDWR),
    "append": lambda d, f: os.open(f, os.O_WRONLY | os.O_APPEND),
    "O_TRUNC": lambda d, f: os.open(f, os.O_WRONLY | os.O_TRUNC),
    "O_TMPFILE": lambda d, f: os.open(d, os.O_WRONLY | os.O_TMPFILE),
    "truncate": lambda d, f: os.truncate(f, 0),
    "mkdir": lambda d, f: os.mkdir(d / "new"),
    "rmdir": lambda d, f: os.rmdir(d / "sub"),
    "unlink": lambda d, f: os.unlink(f),
    "rename": lambda d, f: os.rename(f, d / "new"),
    "rename-over": lambda d, f: os.rename(f, d / "sub" / "deep"),
    "symlink": lambda d, f: os.symlink("target", d / "new"),
    "link": lambda d, f: os.link(f, d / "new"),
    "mkfifo": lambda d, f: os.mkfifo(d / "new"),
    "chmod": lambda d, f: os.chmod(f, 0o600),
    "chown": lambda d, f: os.chown(f, os.getuid(), os.getgid()),
    "utime": lambda d, f: os.utime(f, (0, 0)),
    "setxattr": lambda d, f: os.setxattr(f, "user.x", b"x"),
    "removexattr": lambda d, f: os.removexattr(f, "user.x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_erofs(stage, live, change):
    """ "any change on a read-only mount: EROFS"."""
    with pytest.raises(OSError, match="Read-only file system"):
        change(live / "dir", live / "dir" / "owner.txt")
    assert set(stage.requests) <= {"GET", "LIST"}


def test_a_shared_mapping_for_writing_is_refused(live):
    with open(live / "big", "rb") as file, pytest.raises(PermissionError):
        mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_a_private_mapping_may_be_written_to(live, data):
    """Copy on write: the change is the process's own."""
    script = (
        "import mmap, sys; file = open(sys.argv[1], 'rb');"
        "m = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE);"
        "m[0:4] = b'mine'; assert m[0:4] == b'mine'"
    )
    subprocess.run([sys.executable, "-c", script, str(live / "big")], check=True)
    with open(live / "big", "rb") as file:
        assert file.read(4) == data["big"][:4]


def test_plain_s3_is_read_the_same_way(stage, mount, data):
    """The same mount by static keys and an `s3://` location."""
    folder = stage.folder()
    folder.write("big", data["big"])
    live = mount(folder.uri)
    assert (live / "big").read_bytes() == data["big"]
    assert os.listdir(live.path) == ["big"]
