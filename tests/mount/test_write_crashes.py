"""kill -9 of the daemon at each step of an upload, of a rename, and of what puts both right.

Contract: S3 has the old object or the new one, whole; what was closed or synced is in S3 after the
next mount, or `stsfs recover` lists it; no upload stays behind.
"""

import contextlib
import os
from pathlib import Path

import pytest

from tests.mount.crash_stage import (
    MIB,
    RW,
    Foreground,
    at_once,
    copies_noted,
    kill,
    left_in,
    objects,
    pending_uploads,
    put_all,
    recover,
    wait_until,
    write,
)
from tests.mount.stage import PATIENCE_S

pytestmark = [pytest.mark.mount, pytest.mark.long]

LONG = 20 * MIB
"""Three parts: 8, 8 and 4 MiB."""

STEPS = {
    # name: size, kind of request, which of them, held before it or after it has happened
    "small-request": (1000, "PUT", 1, "request"),
    "small-answer": (1000, "PUT", 1, "answer"),
    "create-request": (LONG, "MULTIPART", 1, "request"),
    "create-answer": (LONG, "MULTIPART", 1, "answer"),
    "first-part-request": (LONG, "PART", 1, "request"),
    "first-part-answer": (LONG, "PART", 1, "answer"),
    "last-part-request": (LONG, "PART", 3, "request"),
    "last-part-answer": (LONG, "PART", 3, "answer"),
    "complete-request": (LONG, "MULTIPART", 2, "request"),
    "complete-answer": (LONG, "MULTIPART", 2, "answer"),
}
HAPPENED = {"small-answer", "complete-answer"}
"""Where the object is the new one when the daemon dies."""


def new_bytes(name):
    size = STEPS[name][0]
    return (name.encode() * (size // len(name) + 1))[:size]


def hold_all(stage, folder, steps):
    """Hold the request of each of these steps, as in STEPS, until all are let go."""
    return [
        stage.gate.faults.hold(before, nth, kinds=[kind], key_prefix=folder.key_of(name))
        for name, (_, kind, nth, before) in steps.items()
    ]


def closed(host, names):
    """Whether a flush of each of these files has begun, and said so on the disk."""
    left = left_in(host)
    return all(left.get(name) == "closed" for name in names)


def ignoring_errors(call, *arguments):
    with contextlib.suppress(OSError):
        call(*arguments)


def let_go_all(holds):
    for each in holds:
        each.let_go(goes_on=False)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_kill_at_each_step_of_an_upload_loses_nothing(host, mount, stage, folder, is_new):
    """All steps at the same moment, each with a file of its own."""
    old = {} if is_new else {name: folder.write(name, f"old {name}".encode()) for name in STEPS}
    new = {name: new_bytes(name) for name in STEPS}
    live = mount(folder.syn_id, *RW)
    holds = hold_all(stage, folder, STEPS)
    with at_once([(write, live / name, data) for name, data in new.items()]) as writing:
        for each in holds:
            each.wait_reached(PATIENCE_S)
        wait_until(lambda: closed(host, STEPS))
        kill(live)
        let_go_all(holds)
        assert all(isinstance(each.exception(), OSError) for each in writing)
    assert objects(folder) == old | {name: new[name] for name in HAPPENED}
    assert closed(host, STEPS)

    stage.gate.faults.clear()
    again = mount(folder.syn_id, *RW)
    wait_until(lambda: not left_in(host))
    assert objects(folder) == new
    # Whoever dies before the answer to its beginning came cannot know the upload by name.
    assert set(pending_uploads(folder)) <= {"create-answer"}
    assert {name: (again / name).read_bytes() for name in new} == new


def test_an_upload_that_arrives_long_after_its_daemon_died_replaces_nothing(
    host, mount, stage, folder
):
    live = mount(folder.syn_id, *RW)
    late = stage.gate.faults.hold("request", kinds=["PUT"])
    with at_once([(write, live / "a", b"left")]) as writing:
        late.wait_reached(PATIENCE_S)
        kill(live)
        assert isinstance(writing[0].exception(), OSError)
    after = mount(folder.syn_id, *RW)
    wait_until(lambda: not left_in(host))
    assert (after / "a").read_bytes() == b"left"
    write(after / "a", b"newer")
    stage.server.requests.reset()
    late.let_go()
    wait_until(lambda: 412 in [each.status for each in stage.server.requests.of_kind("PUT")])
    assert (after / "a").read_bytes() == b"newer"


def test_what_was_synced_and_not_closed_is_listed_after_a_kill(host, mount, stage, folder):
    """fsync, a descriptor that processes share, and writes after a close: none is published."""
    live = mount(folder.syn_id, *RW)
    flags = os.O_RDWR | os.O_CREAT
    with contextlib.ExitStack() as open_files:

        def begin(name):
            descriptor = os.open(live / name, flags, 0o644)
            open_files.callback(ignoring_errors, os.close, descriptor)
            put_all(descriptor, name.encode())
            return descriptor

        os.fsync(begin("synced"))
        shared = begin("shared")
        os.close(os.dup(shared))  # publishes
        put_all(shared, b" by two")
        os.close(os.dup(shared))  # is shared by now: keeps
        again = begin("again")
        os.close(os.dup(again))
        os.truncate(live / "again", 2)
        os.fsync(again)
        begin("unsynced")
        kill(live)
    assert objects(folder) == {"shared": b"shared", "again": b"again"}

    after = mount(folder.syn_id, *RW)
    assert sorted(os.listdir(after.path)) == ["again", "shared"]
    left = {name: state for name, state in left_in(host).items() if state != "damaged"}
    assert left == dict.fromkeys(("synced", "shared", "again"), "writing")
    saved = host.home / "saved"
    done = recover(host, "--save", saved)
    assert done.returncode == 0, done.stderr
    told = {name: (saved / name).read_bytes() for name in left}
    assert told == {"synced": b"synced", "shared": b"shared by two", "again": b"ag"}


MOVES = {
    # name: kind of request, which of them, held before it or after it has happened
    "copy-request": ("COPY", 1, "request"),
    "copy-answer": ("COPY", 1, "answer"),
    "delete-request": ("DELETE", 1, "request"),
    "delete-answer": ("DELETE", 1, "answer"),
}
TREE_MOVES = MOVES | {
    "last-copy-request": ("COPY", 3, "request"),
    "last-copy-answer": ("COPY", 3, "answer"),
    "last-delete-request": ("DELETE", 3, "request"),
    "last-delete-answer": ("DELETE", 3, "answer"),
}
UNDONE = {"copy-request", "copy-answer", "last-copy-request", "last-copy-answer"}
UNKNOWN = {"copy-answer", "last-copy-answer"}
"""Where the ETag of a copy, which is another than that of its source, died with the daemon."""


def hold_moves(stage, folder, moves, sources, targets):
    return [
        stage.gate.faults.hold(
            before,
            nth,
            kinds=[kind],
            key_prefix=folder.key_of((targets if kind == "COPY" else sources).format(name)),
        )
        for name, (kind, nth, before) in moves.items()
    ]


def kill_in(live, moves, holds, *, objects_each):
    """Kill the daemon when all of these renames are held; each of them fails.

    Not before the copies that are not held are noted: their answers may be on their way.
    """
    copies = {
        f"{name}/old": objects_each - (kind == "COPY") for name, (kind, _, _) in moves.items()
    }
    calls = [(os.rename, live / name / "old", live / name / "new") for name in moves]
    with at_once(calls) as moving:
        for each in holds:
            each.wait_reached(PATIENCE_S)
        wait_until(lambda: copies_noted(live.host) == copies)
        kill(live)
        let_go_all(holds)
        assert all(isinstance(each.exception(), OSError) for each in moving)


@pytest.mark.parametrize("replaces", [False, True])
def test_a_kill_at_each_step_of_a_rename_leaves_one_of_both_names(
    host, mount, stage, folder, replaces
):
    """Each in directories of their own: the kernel renames one file of a directory at a time."""
    old = {name: folder.write(f"{name}/old", f"old {name}".encode()) for name in MOVES}
    for name in MOVES if replaces else ():
        folder.write(f"{name}/new", b"replaced")
    live = mount(folder.syn_id, *RW)
    holds = hold_moves(stage, folder, MOVES, "{}/old", "{}/new")
    kill_in(live, MOVES, holds, objects_each=1)
    for name, data in old.items():
        assert data in objects(folder, name).values()

    stage.gate.faults.clear()
    after = mount(folder.syn_id, *RW)
    assert left_in(host) == {}
    finished = {name: {"new": data} for name, data in old.items()}
    target = {"new": b"replaced"} if replaces else {}
    finished["copy-request"] = {"old": old["copy-request"]} | target
    # Whether that is our copy nobody can tell: it has an ETag of its own, and it may be another's.
    finished["copy-answer"]["old"] = old["copy-answer"]
    assert {name: objects(folder, name) for name in MOVES} == finished
    assert {name: set(os.listdir(after / name)) for name in MOVES} == {
        name: set(found) for name, found in finished.items()
    }


def test_a_kill_at_each_step_of_the_rename_of_a_directory_leaves_all_of_one_name(
    host, mount, stage, folder
):
    """Undone before the last copy is known to be there, finished after that."""
    content = {"a": b"a", "below/b": b"b", "c": b"c"}
    for name in TREE_MOVES:
        for inside, data in content.items():
            folder.write(f"{name}/old/{inside}", data)
    live = mount(folder.syn_id, *RW)
    holds = hold_moves(stage, folder, TREE_MOVES, "{}/old/", "{}/new/")
    kill_in(live, TREE_MOVES, holds, objects_each=3)
    for name in TREE_MOVES:
        found = objects(folder, name)
        assert {inside.partition("/")[2] for inside in found} == set(content)

    stage.gate.faults.clear()
    after = mount(folder.syn_id, *RW)
    assert left_in(host) == {}
    for name in TREE_MOVES:
        kept = "old" if name in UNDONE else "new"
        expected = {f"{kept}/{inside}": data for inside, data in content.items()}
        found = objects(folder, name)
        if name in UNKNOWN:
            assert expected.items() <= found.items()
            assert len(found) == len(content) + 1  # the copy stays: it may be another client's
        else:
            assert (name, found) == (name, expected)
            assert os.listdir(after / name) == [kept]


RECOVERED = {name: step for name, step in STEPS.items() if not name.startswith("first")}
"""As many as are put right at a time."""


def test_a_kill_at_each_step_of_putting_uploads_right_loses_nothing(host, mount, stage, folder):
    """The mount that publishes what another one has left dies at it, too."""
    old = {name: folder.write(name, b"old") for name in RECOVERED}
    new = {name: new_bytes(name) for name in RECOVERED}
    live = mount(folder.syn_id, *RW)
    first = [
        stage.gate.faults.hold(
            "request", kinds=["PUT", "MULTIPART"], key_prefix=folder.key_of(name)
        )
        for name in RECOVERED
    ]
    with at_once([(write, live / name, data) for name, data in new.items()]):
        wait_until(lambda: closed(host, RECOVERED))
        kill(live)
        let_go_all(first)
    assert objects(folder) == old

    stage.gate.faults.clear()
    holds = hold_all(stage, folder, RECOVERED)
    with Foreground(host, folder.syn_id, *RW) as second:
        for each in holds:
            each.wait_reached(PATIENCE_S)
        second.kill()
        let_go_all(holds)
    assert objects(folder) == old | {name: new[name] for name in HAPPENED}

    stage.gate.faults.clear()
    mount(folder.syn_id, *RW)
    wait_until(lambda: not left_in(host))
    assert objects(folder) == new
    assert set(pending_uploads(folder)) <= {"create-answer"}


@pytest.mark.parametrize(("before", "deaths_max"), [("request", 3), ("answer", 2)])
def test_a_kill_at_each_step_of_putting_renames_right_leaves_all_of_one_name(
    host, mount, stage, folder, before, deaths_max
):
    """One has to be finished and one undone; each mount dies at the next removal.

    What has gone already is not removed again: of each rename that can be held once.
    """
    content = {"a": b"a", "b": b"b", "c": b"c"}
    for name in ("delete-request", "last-copy-request"):
        for inside, data in content.items():
            folder.write(f"{name}/old/{inside}", data)
    moves = {name: TREE_MOVES[name] for name in ("delete-request", "last-copy-request")}
    live = mount(folder.syn_id, *RW)
    holds = hold_moves(stage, folder, moves, "{}/old/", "{}/new/")
    kill_in(live, moves, holds, objects_each=3)
    deaths = 0
    while left_in(host) and deaths < deaths_max:
        stage.gate.faults.clear()
        held = stage.gate.faults.hold(before, kinds=["DELETE"], key_prefix=folder.key_of(""))
        with Foreground(host, folder.syn_id, *RW) as next_one:
            held.wait_reached(PATIENCE_S)
            next_one.kill()
            held.let_go(goes_on=False)
        deaths += 1
        for name in moves:
            assert {Path(inside).name for inside in objects(folder, name)} == set(content)
    stage.gate.faults.clear()
    after = mount(folder.syn_id, *RW)
    assert (left_in(host), deaths) == ({}, deaths_max)
    assert objects(folder, "delete-request") == {f"new/{n}": data for n, data in content.items()}
    assert objects(folder, "last-copy-request") == {f"old/{n}": d for n, d in content.items()}
    assert os.listdir(after / "last-copy-request") == ["old"]
