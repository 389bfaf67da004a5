"""What a crash leaves on disk."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern").read_text().strip()

HARD_LIMIT = resource.getrlimit(resource.RLIMIT_CORE)[1]

PROGRAM = """
import resource, sys
from stsfs.daemon.core_dumps import keep_memory_out_of_core_files
hard_limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard_limit, hard_limit))
secret = "".join(["the-secret", "-of-the", "-core"])
if sys.argv[1] == "no limit":  # as where core files are written by a program
    resource.setrlimit = lambda *_: None
if sys.argv[1] != "as usual":
    keep_memory_out_of_core_files()
print("ready", flush=True)
sys.stdin.read()
"""


def abort(directory, how):
    """Abort a process that holds a secret; returns its core file, or None."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGABRT)
        process.wait(60)
    return next((path.read_bytes() for path in directory.glob("core*")), None)


@pytest.mark.skipif(HARD_LIMIT == 0, reason="no core files here")
@pytest.mark.skipif(CORE_PATTERN not in ("core", "core.%p"), reason="cores go elsewhere")
def test_an_aborted_process_leaves_no_secret_on_disk(tmp_path):
    """Neither a file nor, where the limit does not bind, memory in the file."""
    cores = {}
    for how in ("as usual", "kept out", "no limit"):
        directory = tmp_path / how
        directory.mkdir()
        cores[how] = abort(directory, how)
    assert b"the-secret-of-the-core" in cores["as usual"]  # this test can find it
    assert cores["kept out"] is None
    assert b"the-secret" not in cores["no limit"]
