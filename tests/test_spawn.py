"""Each test forks from a fresh interpreter, as the command does: no threads, nothing captured."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PARENT = """
import json, os, signal, sys
from pathlib import Path
from stsfs.daemon.spawn import run_in_background
from stsfs.errors import StsfsError, TokenRejected

def body(ready):
    {body}

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
try:
    pid = run_in_background(body, Path({log!r}))
    print(json.dumps({{"pid": pid}}))
except StsfsError as exc:
    print(json.dumps([type(exc).__name__, exc.sentence, "\\n".join([exc.remedy, *exc.details])]))
"""


@pytest.fixture
def spawn(tmp_path):
    """Run a body in the background; returns what the parent printed, decoded."""

    def run(body, **options):
        code = PARENT.format(body=body.replace("\n", "\n    "), log=str(tmp_path / "log"))
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
            **options,
        )
        return json.loads(done.stdout)

    return run


@pytest.fixture
def meeting(tmp_path):
    """Two pipes with names, on which a test and a daemon can wait for each other."""
    os.mkfifo(tmp_path / "to-test")
    os.mkfifo(tmp_path / "to-daemon")
    return str(tmp_path / "to-test"), str(tmp_path / "to-daemon")


def wait_for_end(pid):
    """Wait until a process that is not our child is gone."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([process], [], [], 30)[0]
    finally:
        os.close(process)


def test_the_caller_goes_on_when_the_daemon_is_ready(spawn, meeting):
    to_test, to_daemon = meeting
    pid = spawn(
        "import time\n"
        "ready(); ready()\n"
        f"open({to_daemon!r}).read()\n"
        "facts = {'cwd': os.getcwd(), 'sid': os.getsid(0), 'pid': os.getpid(),\n"
        "         'fds': sorted(map(int, os.listdir('/proc/self/fd')))[:-1],\n"
        "         'stdin': os.readlink('/proc/self/fd/0'), 'out': os.readlink('/proc/self/fd/1')}\n"
        f"with open({to_test!r}, 'w') as test: json.dump(facts, test)\n"
        "return 0"
    )["pid"]
    with open(to_daemon, "w"):
        pass  # the parent has ended, and the daemon lives
    with open(to_test) as daemon:
        facts = json.load(daemon)
    wait_for_end(pid)
    assert facts["pid"] == facts["sid"] == pid
    assert facts["cwd"] == "/"
    assert facts["fds"] == [0, 1, 2]
    assert facts["stdin"] == os.devnull
    assert facts["out"] == str(Path(to_test).with_name("log"))


def test_descriptors_of_the_caller_are_not_kept_open(spawn, meeting):
    reading, writing = os.pipe()
    _, to_daemon = meeting
    pid = spawn(f"ready()\nopen({to_daemon!r}).read()\nreturn 0", pass_fds=[writing])["pid"]
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b""  # the end of the pipe, while the daemon lives
    with open(to_daemon, "w"):
        pass
    wait_for_end(pid)


def test_a_refusal_is_raised_in_the_caller_as_what_it_was(spawn):
    assert spawn("raise TokenRejected('No.', remedy='Make a new one.')") == [
        "TokenRejected",
        "No.",
        "Make a new one.",
    ]


def test_a_refusal_in_a_group_of_one_is_raised_itself(spawn):
    assert spawn("raise ExceptionGroup('', [TokenRejected('No.')])")[0] == "TokenRejected"


def test_a_bug_is_named_and_its_traceback_logged(spawn, tmp_path):
    name, sentence, remedy = spawn("{}['surprise']")
    assert (name, sentence) == ("InternalError", "Internal error: KeyError: 'surprise'.")
    assert str(tmp_path / "log") in remedy
    assert "KeyError: 'surprise'" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "by SIGKILL"),
        ("os._exit(9)", "with exit code 9"),
        ("return 0", "with exit code 0"),
    ],
)
def test_a_death_without_a_word_is_told_with_the_last_lines_of_the_log(spawn, tmp_path, end, how):
    (tmp_path / "log").write_text("from an earlier life\n")
    lines = "for n in range(9): print('line', n, file=sys.stderr, flush=True)\n"
    name, sentence, remedy = spawn(lines + end)
    assert (name, sentence) == ("DaemonDied", f"The daemon ended {how} before the mount stood.")
    assert [line.strip() for line in remedy.splitlines()[1:]] == [f"line {n}" for n in range(4, 9)]


def test_a_crash_in_compiled_code_leaves_its_stack_in_the_log(spawn, tmp_path):
    _, sentence, _ = spawn("os.kill(os.getpid(), signal.SIGSEGV)")
    assert "SIGSEGV" in sentence
    assert "Fatal Python error: Segmentation fault" in (tmp_path / "log").read_text()


def test_the_last_words_are_those_of_the_log_that_was_opened_whatever_has_its_name(spawn, tmp_path):
    log = str(tmp_path / "log")
    told = spawn(
        "print('its own', file=sys.stderr, flush=True)\n"
        f"os.unlink({log!r}); os.mkfifo({log!r})\n"
        "os._exit(3)"
    )
    assert told[0] == "DaemonDied"
    assert "its own" in told[2]


def test_a_log_that_cannot_be_written_is_said_before_the_fork(spawn, tmp_path):
    (tmp_path / "log").mkdir()
    name, sentence, _ = spawn("return 0")
    assert name == "BadArgument"
    assert "cannot be written" in sentence


def test_interrupting_the_wait_ends_the_daemon(tmp_path, meeting):
    to_test, to_daemon = meeting
    body = (
        f"with open({to_test!r}, 'w') as test: test.write(str(os.getpid()))\n"
        f"    open({to_daemon!r}).read()"
    )
    code = PARENT.format(body=body, log=str(tmp_path / "log"))
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as parent:
        with open(to_test) as daemon:
            pid = int(daemon.read())
        parent.send_signal(signal.SIGINT)
        assert parent.wait(120) != 0
    wait_for_end(pid)
