"""Modes and times of the last moment before a process is killed: the next one takes them over."""

import os
import select
import signal
import subprocess
import sys

import pytest

from stsfs.staging import attribute_changes
from stsfs.staging.attribute_changes import Change, ChangeJournal
from stsfs.staging.attribute_rows import Attributes
from stsfs.staging.attributes import AttributeIndex
from tests.test_attribute_index import of, put

PROCESS = """
import os, signal, sys
from pathlib import Path
from stsfs.staging import attribute_changes, attributes
from stsfs.staging.attributes import AttributeIndex
HERE = ("s3://bucket/base", None)
index = AttributeIndex(Path(sys.argv[1]))
def put(key, mode):
    index.put(HERE, key, "e", mode=mode, mtime_ns=None)
def known(key):
    return index.of_keys(HERE, key, key).get(key)
{body}
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "attributes.sqlite"


@pytest.fixture
def killed(path):
    """Run some lines in a process that is killed at their end."""

    def run(body):
        program = PROCESS.replace("{body}", body)
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    return run


@pytest.fixture
def opened(path):
    """Indexes over the same file, closed at the end."""
    made = []

    def make():
        made.append(AttributeIndex(path))
        return made[-1]

    yield make
    for each in made:
        each.close()


def journals(path):
    return sorted(path.parent.glob("*.changes-*"))


def test_what_was_set_just_before_a_kill_is_known_to_the_next_process(path, killed, opened):
    """No transaction has begun by then; the calls were answered."""
    killed("""
attributes.GATHER_S = 60
put("a", 0o600); put("b", 0o644); put("dir/x", 0o640); put("gone", 0o600)
index.move(HERE, "b", "c", "e2"); index.move_prefix(HERE, "dir/", "new/")
index.forget(HERE, "gone")
""")
    assert len(journals(path)) == 1
    index = opened()
    assert of(index, "a") == Attributes("e", 0o600, None)
    assert (of(index, "b"), of(index, "gone"), of(index, "dir/x")) == (None, None, None)
    assert of(index, "c") == Attributes("e2", 0o644, None)
    assert of(index, "new/x").mode == 0o640
    index.close()
    assert journals(path) == []


def test_whatever_was_answered_survives_a_kill_at_any_moment(path, opened):
    """The process tells each change when it has returned, and is killed in the middle."""
    body = """
for number in range(100_000):
    put(f"f{number}", number % 0o777)
    if number % 100 == 0: print(number, flush=True)
"""
    program = PROCESS.replace("{body}", body)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert select.select([process.stdout], [], [], 60)[0]
        heard = b"".join(process.stdout.readline() for _ in range(60))
        process.kill()
        heard += process.stdout.read()
    last = int(heard.splitlines()[-1])
    index = opened()
    for number in range(0, last + 1, 97):
        assert of(index, f"f{number}") == Attributes("e", number % 0o777, None)
    assert of(index, f"f{last}") is not None


def test_a_change_that_was_done_before_the_kill_is_not_done_again(path, killed, opened):
    """A rename that is done twice would remove what it has moved."""
    killed("""
attribute_changes.ChangeJournal.done = lambda self, number: None
put("a", 0o600); index.move(HERE, "a", "b", "e")
assert known("b") is not None
""")
    index = opened()
    assert of(index, "b") == Attributes("e", 0o600, None)


def test_what_another_mount_has_set_since_stays(path, killed, opened):
    mine = opened()
    put(mine, "a")
    assert of(mine, "a") is not None
    killed("""
assert known("a") is not None
attributes.GATHER_S = 60
put("a", 0o600); put("b", 0o600)
""")
    put(mine, "a", mode=0o444)
    assert of(mine, "a").mode == 0o444
    after = opened()
    assert of(after, "a").mode == 0o444
    assert of(after, "b").mode == 0o600


def test_what_the_process_itself_had_written_before_is_no_other_mounts(path, killed, opened):
    """A change that waits behind a transaction of its own process is the younger one."""
    killed("""
put("a", 0o600)
assert known("a") is not None
attributes.GATHER_S = 60
put("a", 0o640); index.forget(HERE, "b"); put("b", 0o640)
""")
    index = opened()
    assert (of(index, "a").mode, of(index, "b").mode) == (0o640, 0o640)


def test_the_journal_of_a_living_process_is_left_alone(path, opened, monkeypatch):
    monkeypatch.setattr("stsfs.staging.attributes.GATHER_S", 60)
    living = opened()
    put(living, "a")
    before = journals(path)
    other = opened()
    assert of(other, "a") is None
    assert set(before) < set(journals(path))
    assert of(living, "a") is not None


@pytest.mark.parametrize("rest", [b'[7, 0, "put", "s3', b"\xff\n{}\n[]\n[1]\n", b"0\n" * 3,
     b'[9, "put", "s3://bucket/base", null, "a", "e", 99999999999999999999999, 1]\n',
     b'[9, "put", "s3://bucket/base", null, "a", "\\udcff", 1, 1]\n',
     b'[9, "move_prefix", "s3://bucket/base", null, "a", "b"]\n'],
    ids=range(6))  # fmt: skip
def test_a_line_that_was_torn_counts_as_not_written(path, killed, opened, rest):
    killed("attributes.GATHER_S = 60; put('a', 0o600)")
    (journal,) = journals(path)
    with journal.open("ab") as file:
        file.write(rest)
    index = opened()
    assert of(index, "a").mode == 0o600
    assert len(journals(path)) == 1


def test_a_journal_does_not_grow_without_end(path, opened, monkeypatch):
    monkeypatch.setattr(attribute_changes, "FULL_BYTES", 2000)
    index = opened()
    for number in range(500):
        put(index, f"f{number}", mode=number)
        if number % 50 == 0:
            assert of(index, f"f{number}").mode == number
    assert sum(each.stat().st_size for each in journals(path)) < 500 * 50
    assert [of(index, f"f{number}").mode for number in range(500)] == list(range(500))
    assert len(journals(path)) == 1
    index.close()
    assert journals(path) == []


def test_a_change_is_read_as_it_was_written(path):
    changes = [
        Change("put", ("s3://b", "https://x"), ("k\udcff", "e", None, -5)),
        Change("forget", ("s3://b", None), ("k",)),
        Change("move", ("s3://b", None), ("k", "l", "e")),
        Change("move_prefix", ("s3://b", None), ("k/", "l/")),
    ]
    for number, change in enumerate(changes):
        assert Change.from_line(change.to_line(number)) == (number, change)


def test_without_room_for_a_line_the_ones_before_stay_whole(path, monkeypatch):
    journal = ChangeJournal(path)
    change = Change("forget", ("s3://b", None), ("k",))
    journal.add(1, change)
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:5]))
    with pytest.raises(OSError, match="No space left"):
        journal.add(2, change)
    monkeypatch.undo()
    journal.add(3, change)
    (file,) = journals(path)
    assert file.read_bytes() == change.to_line(1) + change.to_line(3)
    journal.close()
