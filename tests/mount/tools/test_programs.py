"""Real programs write through the mount what they write elsewhere, as root and as another user.

What counts is what S3 has in the end: each test looks at the objects, not only through the mount.
"""

import filecmp
import shutil
import sqlite3
import subprocess
import sys

import pytest

from tests.mount.sequences import programs
from tests.mount.sequences.__main__ import MAKE_SAM, environment
from tests.mount.sequences.cases import python
from tests.mount.tools.tool_stage import TREE, needs

pytestmark = [pytest.mark.mount, pytest.mark.long]


@needs("git")
def test_git_clones_finds_nothing_changed_and_commits(work):
    work.run(TREE + "cd $SRC/d; git init -q -b main .; git add .; git commit -qm first")
    work.run("git clone -q file://$SRC/d c")
    assert work.run("git -C c status --porcelain") == ""
    work.run("cd c; echo more >> a.txt; git add .; git commit -qm second; git gc -q; git fsck")
    assert work.run("git -C c status --porcelain; git -C c log --format=%s") == "second\nfirst\n"
    work.run("git -C c push -q origin HEAD:other")
    work.settle()
    # The objects, without the mount. Empty directories are not in them, and git insists on two.
    shutil.copytree(work.stored_path("c"), work.source / "copy")
    for name in ("refs/heads", "refs/tags", "objects"):
        (work.source / "copy/.git" / name).mkdir(parents=True, exist_ok=True)
    env = environment(work.home)
    git = ["git", "-C", work.source / "copy", "-c", "core.fileMode=false"]
    said = subprocess.run([*git, "fsck"], env=env, capture_output=True, text=True, check=True)
    assert "error" not in said.stderr
    status = subprocess.run(
        [*git, "status", "--porcelain"], env=env, capture_output=True, check=True
    )
    assert status.stdout == b""


@needs("sqlite3")
@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_sqlite_keeps_its_promises(work, mode):
    work.run(f"sqlite3 t.db 'pragma journal_mode={mode}; create table t(a, b)'")
    many = "with recursive n(a) as (select 1 union all select a+1 from n where a<5000) "
    work.run(f'sqlite3 t.db "{many} insert into t select a, hex(randomblob(20)) from n"')
    work.run("sqlite3 t.db 'update t set b=7 where a%3=0; begin; delete from t; rollback'")
    assert work.run("sqlite3 t.db 'pragma integrity_check; select count(*), sum(b=7) from t'") == (
        "ok\n5000|1666\n"
    )
    work.settle()
    copy = shutil.copy(work.stored_path("t.db"), work.source)
    with sqlite3.connect(copy) as database:
        assert list(database.execute("select count(*) from t where b = 7")) == [(1666,)]
    database.close()
    assert "t.db-wal" not in work.desk.stored_keys()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("sed -i s/one/two/ f", marks=needs("sed")),
        pytest.param("vim -es -u NONE -c %s/one/two/ -c wq f", marks=needs("vim")),
        pytest.param(
            "vim -es -u NONE -c 'set backup backupcopy=no backupskip=' -c %s/one/two/ -c wq f;"
            " rm f~", marks=needs("vim"),
        ),
        pytest.param(
            "vim -es -u NONE -c 'set backupcopy=yes' -c %s/one/two/ -c wq f", marks=needs("vim")
        ),
        pytest.param("perl -pi -e s/one/two/ f", marks=needs("perl")),
        "sed s/one/two/ f > g; mv g f",
        "sed s/one/two/ f > $SRC/g; cat $SRC/g > f",
        "printf two | dd of=f bs=3 conv=notrunc status=none",
        "sed s/one/two/ f | sort -o f",
    ],
)  # fmt: skip
def test_editors_and_filters_change_a_file(work, command):
    work.run("printf 'one\\nzwei\\n' > f; chmod 640 f")
    work.run(command)
    work.settle()
    assert work.desk.stored("f") == b"two\nzwei\n"
    assert work.desk.stored_keys() == ["f"]
    assert work.run("cat f") == "two\nzwei\n"


def test_redirections_of_many_commands_come_in_order(work):
    work.run("( echo a; /bin/echo b; /bin/echo c ) > f; for i in 1 2 3; do /bin/echo $i; done >> f")
    work.run("{ /bin/echo out; /bin/echo err >&2; } > both 2>&1; echo x | tee t > /dev/null; : > z")
    work.run("cat f both t > all; bash -c 'exec 3> three; echo a >&3; ls >&3; echo b >&3'")
    work.settle()
    assert work.desk.stored("f") == b"a\nb\nc\n1\n2\n3\n"
    assert work.desk.stored("all") == b"a\nb\nc\n1\n2\n3\nout\nerr\nx\n"
    assert work.desk.stored("z") == b""
    lines = work.desk.stored("three").splitlines()
    assert (lines[0], lines[-1], len(lines)) == (b"a", b"b", 9)


def test_dd_writes_where_it_seeks(work):
    work.run(
        "head -c 12582912 /dev/urandom > $SRC/f; cp $SRC/f f; head -c 1048576 /dev/urandom > $SRC/m"
    )
    for seek in (5, 1, 11):
        dd = f"dd if=$SRC/m bs=1M seek={seek} count=1 conv=notrunc status=none of="
        work.run(f"{dd}f; {dd}$SRC/f")
    work.run("dd if=$SRC/m of=f bs=1M seek=14 count=1 conv=notrunc,fsync status=none")
    work.run("dd if=$SRC/m of=$SRC/f bs=1M seek=14 count=1 conv=notrunc status=none")
    work.run("truncate -s 15000000 f $SRC/f")
    work.run("dd if=$SRC/m of=direct bs=1M oflag=direct status=none")
    assert filecmp.cmp(work.source / "f", work.stored_path("f"), shallow=False)
    assert filecmp.cmp(work.source / "m", work.stored_path("direct"), shallow=False)


PANDAS = """
import pandas, numpy
for name in ("f.parquet", "f.csv"):
    frame = pandas.DataFrame({"a": range(50000), "b": numpy.arange(50000) / 7})
    if name == "f.csv":
        frame.to_csv(name, index=False)
        back = pandas.read_csv(name)
    else:
        frame.to_parquet(name)
        back = pandas.read_parquet(name)
    pandas.testing.assert_frame_equal(frame, back)
a = numpy.memmap("f.map", "u1", "w+", shape=(3000000,))
a[:] = 7
a.flush()
a[5] = 8
del a
numpy.save("f.npy", numpy.arange(400000))
"""

READ_BACK = """
import h5py, numpy, pandas, sys
where = sys.argv[1]
assert pandas.read_parquet(f"{where}/f.parquet").a.sum() == 1249975000
assert pandas.read_csv(f"{where}/f.csv").a.sum() == 1249975000
assert (numpy.load(f"{where}/f.npy") == numpy.arange(400000)).all()
assert numpy.fromfile(f"{where}/f.map", "u1").sum() == 3000000 * 7 + 1
with h5py.File(f"{where}/f.h5") as f:
    assert f["a"][:].sum() == 1 and list(f["c"]) == [1, 2] and f["b"][:].sum() == 49985001
"""


def test_pandas_numpy_and_h5py_write_and_read_back(work):
    work.run(python(PANDAS))
    work.run(python(programs.H5_NEW))
    work.run(python(programs.H5_CHANGED))
    work.settle()
    objects = str(work.stored_path("f.csv").parent)
    command = [sys.executable, "-c", READ_BACK, objects]
    subprocess.run(command, check=True)


def test_shutil_copies_and_moves_trees(work):
    work.run(TREE)
    work.run(python(programs.COPYTREE))
    assert work.looks_alike("d")
    assert work.stored_as("d")
    work.run(python(programs.MOVE))
    assert work.desk.stored("f") == b"one\n"


@needs("samtools")
@pytest.mark.parametrize("memory", ["", "-m 1M"])
def test_samtools_sorts_and_indexes(work, memory):
    work.run(MAKE_SAM)
    said = work.run(
        f"samtools sort --no-PG {memory} -o s.bam $SRC/u.sam 2>&1; samtools index s.bam"
    )
    assert "fail" not in said
    work.run("samtools sort --no-PG -o $SRC/s.bam $SRC/u.sam; samtools index $SRC/s.bam")
    assert work.run("samtools view -c s.bam c:1-1000; samtools quickcheck s.bam") == (
        work.run("samtools view -c $SRC/s.bam c:1-1000")
    )
    assert work.desk.stored_keys() == ["s.bam", "s.bam.bai"], "temporary files are gone"
    for name in ("s.bam", "s.bam.bai"):
        assert filecmp.cmp(work.source / name, work.stored_path(name), shallow=False)


@needs("zip", "unzip", "gzip")
def test_archives_are_made_tested_and_unpacked(work):
    work.run(TREE + "cp -a $SRC/d .; zip -qr t.zip d; echo x >> d/a.txt; zip -q t.zip d/a.txt")
    assert "No errors" in work.run("unzip -t t.zip")
    work.run("rm -r d; unzip -q t.zip; tar czf t.tgz d; gzip -t t.tgz")
    work.run("gzip d/sub/deep/numbers; gunzip d/sub/deep/numbers.gz")
    work.run("echo x >> $SRC/d/a.txt")
    work.settle()
    assert work.stored_as("d")
    work.run("tar xzf t.tgz -C $SRC/..")
    assert filecmp.cmp(work.home / "d/sub/deep/numbers", work.source / "d/sub/deep/numbers")


@needs("cc")
def test_a_compiler_makes_a_program_that_runs(work):
    work.run("printf 'int main(){return 7;}' > h.c; cc -o h h.c; install -m 700 h i")
    work.run("./h", ends=7)
    work.run("./i", ends=7)
    assert work.desk.stored("h") == work.desk.stored("i")
