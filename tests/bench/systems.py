"""The file systems that are compared, and how each is mounted: with its defaults.

Read-only, but for the jobs that write. Where rclone writes, its close does not wait for S3; it
would then let five seconds pass before it begins, and here it begins at once.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stsfs.daemon import mountinfo
from tests.bench import processes
from tests.bench.objects import BUCKET
from tests.bench.processes import JobFailed
from tests.bench.server import ObjectServer

_READY_S = 60.0
_UNMOUNT_S = 60.0
_KEY, _SECRET = "bench", "bench-secret"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a command line depends on."""

    server: ObjectServer
    url: str
    mount_path: Path
    directory: Path
    """Private, for the files of this mount."""

    tls: bool
    writes: bool


Command = Callable[[Setting], tuple[list[str], dict[str, str]]]


@dataclass(frozen=True, slots=True)
class System:
    """A file system: the program that must be there, and how it is started in the foreground."""

    name: str
    program: str
    command: Command
    version_arguments: tuple[str, ...] = ("--version",)
    only_reads: bool = False
    """Whether it has nothing to show where files are written."""

    @property
    def installed(self) -> bool:
        """Whether its program can be found."""
        return shutil.which(self.program) is not None

    def version(self) -> str:
        """The first line it says of itself."""
        done = subprocess.run(
            [self.program, *self.version_arguments], capture_output=True, text=True, check=False
        )
        return (done.stdout.splitlines() or ["?"])[0]


def _stsfs(setting: Setting, python: str = sys.executable) -> tuple[list[str], dict[str, str]]:
    run = setting.directory / "run"
    run.mkdir(mode=0o700)
    env = {
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _SECRET,
        "AWS_REGION": "us-east-1",
        "XDG_RUNTIME_DIR": str(run),
        "XDG_STATE_HOME": str(setting.directory / "state"),
    }
    if setting.tls:
        env["AWS_CA_BUNDLE"] = str(setting.server.ca_file)
    # -P: what the interpreter has installed, not what lies in the current directory.
    command = [python, "-P", "-m", "stsfs", "mount", "--foreground"]
    command += [f"s3://{BUCKET}", str(setting.mount_path), "--endpoint-url", setting.url]
    if setting.writes:
        command += ["--rw", "--conditional-writes", "on"]
        command += ["--staging-dir", str(setting.directory / "staging")]
    return command, env


def _stsfs_disk(setting: Setting) -> tuple[list[str], dict[str, str]]:
    command, env = _stsfs(setting)
    return [*command, "--cache-dir", str(setting.directory / "cache")], env


def _s3fs(setting: Setting) -> tuple[list[str], dict[str, str]]:
    secrets = setting.directory / "passwd"
    secrets.touch(mode=0o600)
    secrets.write_text(f"{_KEY}:{_SECRET}\n")
    # Our server knows version 2 of LIST only, which S3 recommends.
    options = f"url={setting.url},use_path_request_style,listobjectsv2,passwd_file={secrets}"
    if not setting.writes:
        options += ",ro"
    if setting.tls:
        options += ",no_check_certificate,ssl_verify_hostname=0"
    return ["s3fs", BUCKET, str(setting.mount_path), "-f", "-o", options], {}


def _rclone(setting: Setting) -> tuple[list[str], dict[str, str]]:
    env = {
        "RCLONE_CONFIG": str(setting.directory / "rclone.conf"),
        "RCLONE_CACHE_DIR": str(setting.directory / "cache"),
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
        "RCLONE_CONFIG_BENCH_ENDPOINT": setting.url,
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": _KEY,
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": _SECRET,
        "RCLONE_CONFIG_BENCH_LIST_VERSION": "2",
    }
    command = ["rclone", "mount", f"bench:{BUCKET}", str(setting.mount_path)]
    if setting.writes:
        command += ["--vfs-cache-mode", "writes", "--vfs-write-back", "0s"]
    else:
        command += ["--read-only"]
    if setting.tls:
        command += ["--ca-cert", str(setting.server.ca_file)]
    return command, env


def before(python: str) -> System:
    """The stsfs that another checkout's interpreter runs."""
    return System(
        "before", python, partial(_stsfs, python=python), ("-P", "-m", "stsfs", "--version")
    )


STSFS = System("stsfs", sys.executable, _stsfs, ("-m", "stsfs", "--version"))
STSFS_DISK = System(
    "stsfs+disk", sys.executable, _stsfs_disk, ("-m", "stsfs", "--version"), only_reads=True
)
PEERS = [STSFS_DISK, System("rclone", "rclone", _rclone), System("s3fs", "s3fs", _s3fs)]


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount that answers."""

    path: Path
    pid: int
    ready_s: float
    """From the start of the program to the first answer."""

    env: dict[str, str]
    """The environment of the daemon, for commands that talk to it."""


@contextlib.contextmanager
def mounted(
    system: System,
    server: ObjectServer,
    directory: Path,
    *,
    tls: bool,
    writes: bool = False,
    options: Sequence[str] = (),
) -> Iterator[Mounted]:
    """Mount the bucket, and take the mount away again. `directory` is a new one."""
    path = directory / "mnt"
    path.mkdir(parents=True)
    url = server.tls_url if tls else server.url
    command, extra = system.command(Setting(server, url, path, directory, tls, writes))
    env = processes.own_environment() | extra
    log = directory / "log"
    begun_s = time.perf_counter()
    process = processes.start([*command, *options], log, env=env)
    try:
        outside = directory.stat().st_dev
        processes.wait_for(
            lambda: process.poll() is not None or _is_mounted(path, outside), "mount", _READY_S
        )
        if process.poll() is not None:
            raise JobFailed(f"{system.name} did not mount: {log.read_text()[-500:]}")
        yield Mounted(path, process.pid, time.perf_counter() - begun_s, env)
    finally:
        _take_away(path, process)
    shutil.rmtree(directory)


def _is_mounted(path: Path, outside: int) -> bool:
    with contextlib.suppress(OSError):
        return path.stat().st_dev != outside
    return False


def free_readers(pid: int) -> None:
    """End a daemon at once, so that whoever waits in its mount gets an error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)


def _take_away(path: Path, process: "subprocess.Popen[str]") -> None:
    """Unmount, and see the daemon end; raises JobFailed rather than leave a mount behind."""
    give_up_s = time.monotonic() + _UNMOUNT_S
    while mountinfo.mount_at(path) is not None:
        late = time.monotonic() > give_up_s - _UNMOUNT_S / 2 or process.poll() is not None
        flags = "-uz" if late else "-u"
        subprocess.run(["fusermount3", flags, str(path)], capture_output=True, check=False)
        if mountinfo.mount_at(path) is not None:
            if time.monotonic() > give_up_s:
                processes.stop(process)
                raise JobFailed(f"{path} cannot be unmounted")
            time.sleep(0.05)
    try:
        process.wait(_UNMOUNT_S)
    except subprocess.TimeoutExpired:
        processes.stop(process)
        raise JobFailed(f"the daemon of {path} did not end with its mount") from None
