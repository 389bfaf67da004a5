"""A file larger than any budget, written with `dd` while sessions end, and read back.

`python -m tests.soak.large_write --help`. The servers run in threads of this process; the stream,
dd and sha256sum are processes of their own.
"""

import hashlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tests.bench.scale import GIB, MIB
from tests.mount.live_mount import Host
from tests.mount.stage import PATIENCE_S, Stage

NAME = "big"
RESIDENT_BYTES_MAX = 256 * MIB
"""The interpreter with its modules takes 60 MiB, the budget 128."""

COPIES = 3
"""Of the file on disk at once, at most: staged, as parts, joined to an object."""

SLOWEST_BYTES_PER_S = 5 * MIB
"""Below this something hangs."""

STREAM = """
import hashlib, random, sys
size_bytes, pieces = int(sys.argv[1]), int(sys.argv[2])
found, chance, sent, paused = hashlib.sha256(), random.Random(size_bytes), 0, 0
while sent < size_bytes:
    if sent * pieces >= paused * size_bytes:
        sys.stdin.readline()
        paused += 1
    block = chance.randbytes(min(1 << 20, size_bytes - sent))
    found.update(block)
    sys.stdout.buffer.write(block)
    sent += len(block)
sys.stdout.buffer.flush()
sys.stderr.write(found.hexdigest())
"""
"""Writes bytes that do not repeat and then tells their digest; waits for a line before each piece,
the first one included."""


@dataclass(frozen=True)
class Plan:
    """What is written, and under which conditions."""

    size_bytes: int
    lifetime_s: float
    renewals: int
    """A further piece is written when there is a new session."""

    memory_bytes: int
    resident_bytes_max: int


def plan_of(size_bytes, lifetime_s, renewals):
    """With the budget of memory that the long form has."""
    return Plan(size_bytes, lifetime_s, renewals, 128 * MIB, RESIDENT_BYTES_MAX)


def write_and_read(stage, folder, host, plan):
    """The report as JSON values; `problems` is empty if all is right."""
    stage.vendor.lifetime_s = plan.lifetime_s
    stage.denials_expected = True  # a request signed just before its session ended
    options = ("--rw", "--memory", f"{plan.memory_bytes // MIB}MiB")
    problems, denied = [], set()
    limit_s = PATIENCE_S + plan.size_bytes / SLOWEST_BYTES_PER_S

    def mounted(work):
        """What `work` returns of a mount of its own, and what that has cost."""
        stage.forget_requests()
        vended, live = stage.vendor.vended, host.mount(folder.syn_id, *options)
        try:
            begun_s = time.monotonic()
            digest = work(live)
            costs = {
                "elapsed_s": round(time.monotonic() - begun_s, 1),
                "resident_mib": resident_mib(live.pid),
                "sessions": stage.vendor.vended - vended,
                "requests": stage.requests,
            }
        except BaseException:
            live.destroy()
            raise
        problems.extend(live.audit())
        denied.update(each.verdict for each in stage.gate.denied)
        return digest, costs

    written, writing = mounted(lambda live: _write(stage, live, plan, limit_s))
    stored = folder.object_path(NAME)
    with stored.open("rb") as file:
        in_s3 = hashlib.file_digest(file, "sha256").hexdigest()
    read, reading = mounted(lambda live: _read(live, limit_s))
    if stored.stat().st_size != plan.size_bytes:
        problems.append(f"S3 has {stored.stat().st_size} bytes")
    if in_s3 != written:
        problems.append("S3 has other bytes than were written")
    if read != written:
        problems.append("what is read is not what was written")
    problems += [
        f"{what}: {costs['resident_mib']} MiB resident"
        for what, costs in (("writing", writing), ("reading", reading))
        if costs["resident_mib"] * MIB > plan.resident_bytes_max
    ]
    if forbidden := denied - {"ExpiredToken"}:
        problems.append(f"requests that the policy denies: {forbidden}")
    return {
        "plan": asdict(plan),
        "sha256": written,
        "writing": writing,
        "reading": reading,
        "problems": problems,
    }


def _write(stage, live, plan, limit_s):
    """The digest of what dd has written; when it ends, S3 has the bytes."""
    pieces = plan.renewals + 1
    stream = subprocess.Popen(
        [sys.executable, "-c", STREAM, str(plan.size_bytes), str(pieces)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    command = ["dd", f"of={live / NAME}", "bs=1M", "iflag=fullblock", "status=none"]
    with stream, subprocess.Popen(command, stdin=stream.stdout, stderr=subprocess.PIPE) as dd:
        stream.stdout.close()
        # dd waits in the mount, where it cannot be killed
        watchdog = threading.Timer(limit_s, live.signal, [signal.SIGKILL])
        watchdog.start()
        try:
            for number in range(pieces):
                if number:
                    stage.vendor.wait_for(stage.vendor.vended + 1)
                stream.stdin.write(b"\n")
                stream.stdin.flush()
            said = dd.communicate()[1].decode()
        finally:
            watchdog.cancel()
            dd.kill()
            stream.kill()
        assert dd.returncode == 0, f"dd: {said}"
        return stream.stderr.read().decode()


def _read(live, limit_s):
    done = subprocess.run(
        ["sha256sum", live / NAME], capture_output=True, text=True, timeout=limit_s, check=True
    )
    return done.stdout.split()[0]


def resident_mib(pid):
    """The most memory a process has had so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) // 1024


def text_of(report):
    """Some lines for people."""
    plan = report["plan"]
    lines = [
        f"{plan['size_bytes'] / GIB:.2f} GiB, sessions of {plan['lifetime_s']:g} s,"
        f" budget {plan['memory_bytes'] // MIB} MiB",
        f"sha256   {report['sha256']}",
    ]
    for what in ("writing", "reading"):
        costs = report[what]
        requests = ", ".join(f"{kind} {n}" for kind, n in sorted(costs["requests"].items()))
        lines.append(
            f"{what}  {costs['elapsed_s']:g} s,"
            f" {plan['size_bytes'] / MIB / max(costs['elapsed_s'], 0.1):.0f} MiB/s,"
            f" at most {costs['resident_mib']} MiB resident, {costs['sessions']} sessions,"
            f" requests: {requests}"
        )
    return "\n".join(lines + ([f"PROBLEM: {each}" for each in report["problems"]] or ["right"]))


def _size(text):
    found = re.fullmatch(r"(\d+)(MiB|GiB)", text)
    if found is None:
        raise click.BadParameter(f"{text} is not a size like 300MiB or 5GiB.")
    return int(found[1]) * (MIB if found[2] == "MiB" else GIB)


@click.command()
@click.option("--size", "size_text", default="5GiB", show_default=True, metavar="SIZE")
@click.option(
    "--lifetime",
    "lifetime_s",
    type=click.FloatRange(3, PATIENCE_S),
    default=20,
    show_default=True,
    metavar="S",
    help="Of credentials, in seconds.",
)
@click.option(
    "--renewals",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="Sessions at least that the writer sees end: it waits for them.",
)
def main(size_text: str, lifetime_s: float, renewals: int) -> None:
    """Write a large file through a mount with dd, read it back after a remount, compare.

    Needs room for three copies below the temporary directory. Ends with 1 if anything is wrong.
    """
    size_bytes = _size(size_text)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    if free_bytes < COPIES * size_bytes:
        raise click.ClickException(f"{free_bytes / GIB:.0f} GiB are free, not enough.")
    with tempfile.TemporaryDirectory(prefix="stsfs-large-") as name:
        root = Path(name)
        for each in ("s3", "home", "run"):
            (root / each).mkdir()
        with Stage(root / "s3") as stage:
            host = Host(root / "home", root / "run", stage)
            plan = plan_of(size_bytes, lifetime_s, renewals)
            report = write_and_read(stage, stage.folder(), host, plan)
    click.echo(text_of(report))
    sys.exit(1 if report["problems"] else 0)


if __name__ == "__main__":
    main()
