"""Trees are copied, moved and removed through the mount, as root and as another user.

What counts is what S3 has in the end: each test looks at the objects, not only through the mount.
"""

import filecmp
import os
import stat

import pytest

from tests.mount.tools.tool_stage import (
    TREE,
    needs,
)
from tests.mount.writing_stage import RW, changes

pytestmark = pytest.mark.mount


@pytest.mark.parametrize(
    "command",
    [
        "cp -a $SRC/d .",
        "rsync -a $SRC/d .",
        "rsync -a --inplace $SRC/d .",
        "tar --format=posix -C $SRC -cf - d | tar xf -",
    ],
)
def test_trees_are_copied_with_modes_and_times(work, command):
    work.run(TREE)
    work.run(command)
    assert work.looks_alike("d")
    work.settle()
    assert work.stored_as("d")


@needs("rsync")
@pytest.mark.parametrize("options", ["", "--inplace"])
def test_a_second_rsync_sends_nothing_and_a_third_what_has_changed(work, options):
    work.run(TREE)
    rsync = f"rsync -a --itemize-changes {options} $SRC/d ."
    work.run(rsync)
    with work.desk.asking() as seen:
        assert work.run(rsync) == ""
    assert changes(seen) == {}
    work.run("echo more >> $SRC/d/a.txt; rm $SRC/d/nothing")
    with work.desk.asking() as seen:
        shown = work.run(f"{rsync} --delete").splitlines()
    assert sorted(line.split()[1] for line in shown if " d/" in line) == [
        "d/", "d/a.txt", "d/nothing"
    ]  # fmt: skip
    assert seen["PUT"] == 1
    work.settle()
    assert work.stored_as("d")
    assert work.looks_alike("d")


@needs("rsync")
def test_rsync_changes_a_part_of_a_large_file_in_place(work):
    work.run("head -c 20000000 /dev/urandom > $SRC/big; mkdir d; cp $SRC/big d/big")
    work.run("printf changed | dd of=$SRC/big bs=1 seek=9000000 conv=notrunc status=none")
    work.run("touch -d 2021-01-01 $SRC/big")
    with work.desk.asking() as seen:
        work.run("rsync -a --inplace --no-whole-file $SRC/big d/big")
    assert work.desk.bytes_of("PUT", "PART")[0] < 12_000_000, seen
    assert filecmp.cmp(work.source / "big", work.stored_path("d/big"), shallow=False)


def test_tar_replaces_what_is_there(work):
    work.run(TREE + "tar --format=posix -C $SRC -cf $SRC/t.tar d")
    work.run("mkdir -p d/sub; echo old > d/a.txt; echo > d/sub/b.sh; tar xf $SRC/t.tar")
    assert work.looks_alike("d")
    assert work.stored_as("d")
    assert work.run("tar df $SRC/t.tar") == ""


def test_rm_removes_a_tree_and_leaves_no_key(work):
    work.run(TREE + "cp -a $SRC/d .; rm -r d")
    assert work.desk.stored_keys() == []
    assert work.run("ls") == "kept\n"


def test_mv_renames_and_moves_in_and_out(work):
    work.run(TREE + "mv $SRC/d .; mv d/a.txt d/renamed; mv d e; mkdir d; mv e/sub d/; ls e d")
    assert sorted(key for key in work.desk.stored_keys() if not key.endswith("/")) == [
        "d/sub/b.sh", "d/sub/deep/numbers", "d/sub/ü + %.txt", "e/nothing", "e/renamed"
    ]  # fmt: skip
    work.run("mv d $SRC/back; rm -r e")
    assert work.desk.stored_keys() == []
    assert (work.source / "back/sub/b.sh").read_text() == "two\n"
    assert stat.S_IMODE((work.source / "back/sub/b.sh").stat().st_mode) == 0o755


FOREIGN = TREE + "chown -R 4711:4712 $SRC/d; "


@pytest.mark.parametrize("work", ["root"], indirect=True)
def test_owners_that_cannot_be_kept_fail_with_a_sentence_and_may_be_left_out(work):
    work.run(FOREIGN)
    said = work.run("cp -a $SRC/d .", ends=1)
    assert "Operation not permitted" in said
    work.settle()
    assert work.stored_as("d"), "the bytes are there"
    explained = work.mounted.stsfs("explain", work.desk / "d/a.txt")
    assert "--no-preserve=ownership" in explained.stdout
    for command in (
        "cp -a --no-preserve=ownership $SRC/d .",
        "rsync -a --no-o --no-g $SRC/d .",
        "tar --format=posix -C $SRC -cf - d | tar xf - --no-same-owner",
    ):
        work.run(f"rm -r d; {command}")
        assert work.looks_alike("d")
    assert work.stored_as("d")
    with work.desk.asking() as seen:
        assert work.run("rsync -a --no-o --no-g --itemize-changes $SRC/d .") == ""
    assert changes(seen) == {}


@pytest.mark.parametrize("work", ["user"], indirect=True)
def test_a_user_keeps_owners_of_others_out_without_a_word(work):
    work.run(TREE)
    for path in (work.source / "d", *(work.source / "d").rglob("*")):
        os.chown(path, 4711, 4712)
        path.chmod(path.stat().st_mode | 0o055)
    for command in ("cp -a $SRC/d .", "rsync -a $SRC/d .", "tar -C $SRC -cf - d | tar xf -"):
        work.run(command)
        work.settle()
        assert work.stored_as("d")
        work.run("rm -r d")


@pytest.mark.parametrize("work", ["user"], indirect=True)
def test_permission_bits_hold_for_the_owner(work):
    work.run("echo a > f; chmod 400 f; mkdir d; chmod 500 d")
    for command in ("echo b > f", "echo b >> f", "truncate -s 0 f", "touch d/new", "mkdir d/new"):
        assert "denied" in work.run(command, ends=1 if command[0] in "tm" else 2)
    assert work.run("cat f; rm -f f; chmod 700 d; rmdir d") == "a\n"


def test_permission_bits_hold_for_others_who_are_let_in(users, stage):
    own, folder = users.people[1], stage.folder()
    users.allow_other(True)
    try:
        done = own.mount(folder.syn_id, *RW, "--allow-other")
        assert done.returncode == 0, done.stderr
        made = "cd $0; mkdir open; chmod 777 open; for i in r w x; do echo $i > $i; done"
        assert own.run("sh", "-ec", f"{made}; chmod 666 w; chmod 600 x", own.place).stderr == ""
        look = "cd $0; cat r; echo no > r; echo yes > w; cat x; echo no > new; echo yes > open/new"
        done = users.run(users.people[0].uid, "sh", "-c", look, own.place)
        assert done.stdout == "r\n"
        assert done.stderr.count("denied") == 3
        assert users.run(0, "cat", own.place / "x").stdout == "x\n"
    finally:
        own.end()
        users.allow_other(False)
    stored = {path.name: path.read_text() for path in folder.path.rglob("*") if path.is_file()}
    assert stored == {"r": "r\n", "w": "yes\n", "x": "x\n", "new": "yes\n"}
