"""Records, and processes that are killed: for the tests of what survives on the local disk."""

import os
import signal
import time

from stsfs.staging.record import BaseVersion, Record
from stsfs.store.object_store import Expected, Part, Traits

LOCATION = "s3://bucket/base"

# What the staging code changes a disk with; a process may be killed before each of them.
STEPS = (
    "open",
    "rename",
    "unlink",
    "rmdir",
    "mkdir",
    "pwrite",
    "write",
    "fsync",
    "fdatasync",
    "close",
)


def base_key(location_uri):
    return location_uri.removeprefix("s3://").partition("/")[2]


def record(**changes):
    values = {
        "location_uri": LOCATION,
        "endpoint_url": None,
        "label": "syn123",
        "key": f"{base_key(changes.get('location_uri', LOCATION))}/dir/file",
        "path": "dir/file",
        "size_bytes": 4,
        "present": ((0, 4),),
        "expected": Expected(None),
    }
    return Record(**(values | changes))


def full_record():
    """One with something in every field."""
    return record(
        endpoint_url="https://s3.example",
        key="base/dir/\u00fc\n",
        present=((0, 2), (3, 4)),
        base=BaseVersion(key="base/old", etag='"e"', size_bytes=10, limit_bytes=4),
        expected=Expected('"e"'),
        exclusive=True,
        mode=0o640,
        mtime_ns=1_700_000_000_123_456_789,
        traits=Traits({"colour": "blue"}, "text/plain", "STANDARD_IA"),
        lacks_traits=True,
        write_id="w1",
        earlier=(("w0", 3),),
        upload_id="u1",
        upload_write_id="w2",
        parked=((2, 3),),
        parts=(Part(1, '"p1"', "AAAA"),),
        state="failed",
        reason="The policy forbids it.",
        changed_unix_s=1_700_000_000.5,
    )


def in_a_child(work, *, killed_before=None):
    """Run work(said) in a child that kills itself before its n-th step; what it said, and steps.

    None for the steps means that it was killed.
    """
    heard, told = os.pipe()
    child = os.fork()
    if not child:
        os.close(heard)
        status = 70
        try:
            counter = _count_steps(killed_before)
            work(lambda text: os.write(told, text.encode() + b"\n"))
            os.write(told, f"steps {counter[0]}\n".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(told)
    with open(heard, "rb") as pipe:
        said = pipe.read().decode().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return said, None
    assert os.waitstatus_to_exitcode(status) == 0, said
    return said[:-1], int(said[-1].split()[1])


def _count_steps(killed_before):
    counter = [0]

    def counted(real):
        def step(*args, **kwargs):
            if counter[0] == killed_before:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # the signal is on its way
            counter[0] += 1
            return real(*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    return counter
