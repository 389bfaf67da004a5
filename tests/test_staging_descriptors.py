"""Files open for writing but idle give their descriptor back, and lose nothing by it."""

import errno
import os
import threading

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stsfs.errors import StagingFailure, StsfsError
from stsfs.staging import file as file_module
from stsfs.staging.descriptors import Descriptors
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.file import StagingFile
from stsfs.staging.room import Room
from tests.staging_fakes import record

HELD_MAX = 3


@pytest.fixture
def directory(tmp_path):
    made = StagingDirectory.open(tmp_path / "staging", descriptors_max=HELD_MAX)
    yield made
    made.close()


@pytest.fixture
def files(directory):
    made = [directory.create() for _ in range(10)]
    yield made
    for each in made:
        each.discard()


def held(path):
    """How many descriptors this process has of data files below path."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # that of the folder itself
        count += target.startswith(f"{path}/") and ".data" in target
    return count


def test_more_files_than_descriptors_are_written_and_read(directory, files):
    for turn in range(3):
        for number, each in enumerate(files):
            each.write(turn * 4, b"%04d" % (1000 * turn + number))
            assert held(directory.path) <= HELD_MAX
    for number, each in enumerate(files):
        assert each.read(0, 100) == b"%04d%04d%04d" % (number, 1000 + number, 2000 + number)
        each.keep(record(size_bytes=12), durable=True)
    assert held(directory.path) <= HELD_MAX


def test_the_file_in_use_longest_ago_rests(files):
    for each in files:
        each.rest()
    a, b, c, d = files[:4]
    for each in (a, b, c, a, d):
        each.write(0, b"x")
    assert [each._descriptor >= 0 for each in (a, b, c, d)] == [True, False, True, True]


def test_a_file_that_rests_or_is_discarded_leaves_its_place_to_others(directory, files):
    for each in files[:4]:
        each.discard()
    for each in files[4:]:
        each.rest()
    assert held(directory.path) == 0
    for each in files[4:7]:
        each.write(0, b"x")
    assert held(directory.path) == HELD_MAX
    assert all(each._descriptor >= 0 for each in files[4:7])


def test_files_without_a_name_keep_their_descriptors(directory, files):
    for number, each in enumerate(files[:5]):
        each.write(0, b"%d" % number)
        each.forget()
    for each in files[5:]:
        each.write(0, b"x")
        each.write(1, b"y")
    for number, each in enumerate(files[:5]):
        each.rest()
        assert each.read(0, 9) == b"%d" % number
    assert held(directory.path) == 5 + 1
    for each in files[:5]:
        each.discard()
    assert held(directory.path) == 1


def test_a_file_that_is_to_rest_while_it_loses_its_name_keeps_its_bytes(directory, monkeypatch):
    staged = directory.create()
    staged.write(0, b"bytes")
    real = os.pread

    def pread(descriptor, size_bytes, offset):
        monkeypatch.undo()
        staged.rest()
        staged.forget()
        return real(descriptor, size_bytes, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert staged.read(0, 5) == b"bytes"
    assert staged.read(0, 5) == b"bytes"
    staged.discard()
    assert held(directory.path) == 0


def test_a_file_in_use_is_not_closed_by_the_use_of_others(directory, files, monkeypatch):
    real = os.pread
    files[0].write(0, b"bytes")

    def pread(descriptor, size_bytes, offset):
        monkeypatch.undo()
        for each in files[1:]:
            each.write(0, b"other")
        return real(descriptor, size_bytes, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert files[0].read(0, 5) == b"bytes"
    files[1].write(0, b"x")
    assert held(directory.path) <= HELD_MAX


def test_what_fails_when_a_file_rests_is_told_to_its_next_user_and_to_nobody_else(
    files, monkeypatch
):
    real = os.close
    files[0].write(0, b"bytes")
    bad = files[0]._descriptor

    def close(descriptor):
        real(descriptor)
        if descriptor == bad:
            monkeypatch.undo()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(file_module.os, "close", close)
    for each in files[1:]:
        each.write(0, b"x")
    for _ in range(2):
        with pytest.raises(StagingFailure, match="Input/output error"):
            files[0].keep(record(size_bytes=5), durable=True)
    files[1].write(0, b"x")


def test_threads_that_use_files_at_the_same_time_lose_no_bytes(directory, files):
    problems = []

    def work(first):
        try:
            for turn in range(200):
                each = files[(first + turn) % len(files)]
                at = first * 1000 + turn * 4
                each.write(at, b"%04d" % turn)
                assert each.read(at, 4) == b"%04d" % turn
        except (AssertionError, StsfsError, OSError) as exc:
            problems.append(exc)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not problems
    assert held(directory.path) <= HELD_MAX


STEPS = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from(["write", "read", "truncate", "rest", "forget", "keep"]),
        st.integers(0, 20),
    ),
    max_size=40,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(STEPS, st.integers(1, 3))
@example([(0, "write", 1), (1, "write", 1), (0, "forget", 0), (1, "write", 2), (0, "read", 0)], 1)
def test_whatever_is_done_the_bytes_are_those_that_were_written(tmp_path, steps, descriptors_max):
    room, descriptors = Room(tmp_path), Descriptors(descriptors_max)
    stems = [tmp_path / f"{number}" for number in range(5)]
    files = [StagingFile.create(stem, room, descriptors=descriptors) for stem in stems]
    books, nameless = [bytearray() for _ in files], set()
    try:
        for count, (number, what, at) in enumerate(steps):
            take(files[number], books[number], nameless, what, at, bytes([count + 1]))
            assert held(tmp_path) <= max(descriptors_max, len(nameless) + 1)
        for each, book in zip(files, books, strict=True):
            assert each.read(0, 100) == book
    finally:
        for each in files:
            each.discard()
    assert held(tmp_path) == 0


def take(staged, book, nameless, what, at, data):
    """One step, of the file and of the books about it."""
    match what:
        case "write":
            staged.write(at, data)
            book.extend(bytes(max(0, at + 1 - len(book))))
            book[at : at + 1] = data
        case "read":
            assert staged.read(at, 100) == book[at:]
        case "truncate":
            staged.truncate(at)
            book[:] = book[:at].ljust(at, b"\0")
        case "rest":
            staged.rest()
        case "forget":
            staged.forget()
            nameless.add(staged)
        case "keep" if staged not in nameless:
            staged.keep(record(size_bytes=len(book)))


@pytest.mark.parametrize(
    ("number", "sentence", "remedy"),
    [
        (errno.EMFILE, "no file descriptors are left", "ulimit -n; LimitNOFILE="),
        (errno.ENFILE, "whole machine has no file descriptors", "fs.file-max"),
    ],
)
def test_a_limit_of_descriptors_is_called_so(directory, monkeypatch, number, sentence, remedy):
    def no_more(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(file_module.os, "open", no_more)
    with pytest.raises(StagingFailure, match=sentence) as refused:
        directory.create()
    assert remedy in refused.value.remedy
