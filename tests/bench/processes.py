"""Processes that do not outlive the benchmark, and work that cannot hang it."""

import contextlib
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).parent.parent.parent
_FORK = multiprocessing.get_context("fork")
_STOP_S = 10.0


class JobFailed(Exception):
    """A job did not do its work; the message says why."""


def start(
    command: list[str], log_file: Path, *, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start a program that gets SIGTERM when we die, whatever we die of."""
    with log_file.open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            stdout=options.pop("stdout", log),
            stderr=log,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            env=env,
            cwd=REPOSITORY,
            text=True,
            **options,
        )


def stop(process: subprocess.Popen[str], timeout_s: float = _STOP_S) -> None:
    """End a program of ours, gently first."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Poll a condition of another process. Raises JobFailed."""
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise JobFailed(f"{what}: not after {timeout_s:.0f} s")
        time.sleep(0.001)


def own_environment() -> dict[str, str]:
    """Ours without what it says of accounts and proxies, which nobody here may use."""
    foreign = ("AWS", "SYNAPSE_", "STSFS_", "RCLONE_", "S3FS_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }


def run_in_child(work: Callable[[], T], timeout_s: float, on_timeout: Callable[[], None]) -> T:
    """What `work` returns, done in a process of its own.

    A reader that hangs in a mount cannot be killed: on_timeout must free it. Raises JobFailed with
    what went wrong there.
    """
    receiver, sender = _FORK.Pipe(duplex=False)
    child = _FORK.Process(target=_tell, args=(sender, work))
    child.start()
    sender.close()
    try:
        if not receiver.poll(timeout_s):
            raise JobFailed(f"not ready after {timeout_s:.0f} s")
        result: T = _received(receiver)
    except BaseException:
        on_timeout()
        child.terminate()
        raise
    finally:
        child.join(_STOP_S)
        if child.is_alive():
            child.kill()
            child.join()
        receiver.close()
    return result


def in_processes(count: int, work: Callable[[int], T]) -> tuple[list[T], float]:
    """Do `work(number)` in that many processes at once: what they return, seconds for all."""
    barrier = _FORK.Barrier(count + 1)

    def work_in_step(number: int) -> T:
        barrier.wait()
        return work(number)

    with contextlib.ExitStack() as stack:
        receivers = []
        for number in range(count):
            receiver, sender = _FORK.Pipe(duplex=False)
            process = _FORK.Process(
                target=_tell, args=(sender, lambda number=number: work_in_step(number)), daemon=True
            )
            process.start()
            sender.close()
            receivers.append(receiver)
            stack.callback(process.join)
            stack.callback(process.terminate)
            stack.callback(receiver.close)
        barrier.wait()
        begun_s = time.perf_counter()
        results = [_received(receiver) for receiver in receivers]
        return results, time.perf_counter() - begun_s


def _tell(sender: Connection, work: Callable[[], Any]) -> None:
    try:
        sender.send((work(), None))
    except Exception as exc:  # noqa: BLE001 - the parent raises it again, as text
        sender.send((None, f"{type(exc).__name__}: {exc}"))


def _received(receiver: Connection) -> Any:
    try:
        result, failure = receiver.recv()
    except EOFError:
        raise JobFailed("the process died") from None
    if failure is not None:
        raise JobFailed(failure)
    return result


@contextlib.contextmanager
def running(command: list[str], stdout: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs beside the measurement, and is ended with it."""
    process = subprocess.Popen(command, stdout=stdout, env=os.environ | {"LC_ALL": "C"})
    try:
        yield process
    finally:
        process.kill()
        process.wait()
