"""What the tests of writing tools share: whose mount it is, and a place for one test's work."""

import contextlib
import filecmp
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.mount.sequences.__main__ import environment
from tests.mount.writing_stage import LONG_TTL, RW, Desk, uploaded

PEOPLE = ("root", "user")

TREE = """
mkdir -p $SRC/d/sub/deep $SRC/d/empty; echo one > $SRC/d/a.txt; echo two > $SRC/d/sub/b.sh
: > $SRC/d/nothing; seq 300000 > $SRC/d/sub/deep/numbers; echo '#' > "$SRC/d/sub/ü + %.txt"
chmod 640 $SRC/d/a.txt; chmod 755 $SRC/d/sub/b.sh; chmod 750 $SRC/d/sub
find $SRC/d -exec touch -d 2020-01-02T03:04:05.678Z {} +
"""
"""Files, directories, an empty one of each, with modes and times of their own."""


class Mounted:
    """A mount as `Desk` and `uploaded` know it; whose it is does not matter to them."""

    def __init__(self, path, home, *, status, run, stsfs):
        self.path, self.home = path, home
        self.status, self.run, self.stsfs = status, run, stsfs


def mounted_by_root(live, home):
    """A mount of whoever runs the tests; home is a directory for what lies outside of it."""

    def run(command, env):
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return Mounted(live.path, home, status=live.status, run=run, stsfs=live.host.stsfs)


@contextlib.contextmanager
def mounted_by_user(users, folder):
    """The same of an ordinary user, who sees to it that nothing is left of it."""
    user = users.people[0]
    done = user.mount(folder.syn_id, *RW, *LONG_TTL)
    assert done.returncode == 0, done.stderr
    yield Mounted(
        user.place,
        user.home,
        status=lambda: json.loads(user.stsfs("status", "--json", user.place).stdout),
        run=lambda command, env: users.run(user.uid, *command, env=env),
        stsfs=user.stsfs,
    )
    user.end()


class Work:
    """One test's directory in a mount, one outside, and commands that are run between them."""

    def __init__(self, mounted, folder):
        self.mounted, self.desk = mounted, Desk(mounted, folder)
        self.home = Path(tempfile.mkdtemp(dir=mounted.home))
        self.source = self.home / "src"
        self.source.mkdir()
        owner = mounted.home.stat()
        for path in (self.home, self.source):
            os.chown(path, owner.st_uid, owner.st_gid)

    def run(self, script, *, ends=0):
        """Run a script in the directory of the mount; returns what it said on both streams."""
        command = ["sh", "-ec", f'umask 022; cd "{self.desk.path}"; {script}']
        done = self.mounted.run(command, environment(self.home))
        assert done.returncode == ends, (done.stdout, done.stderr)
        if not ends:
            assert done.stderr == ""
        return done.stdout + done.stderr

    def settle(self):
        """Wait until S3 has all there is."""
        uploaded(self.mounted)

    def stored_as(self, name):
        """Compare what S3 has below a name with the directory of that name outside."""
        return same_files(self.source / name, self.desk.folder.path / self.desk.name / name)

    def stored_path(self, name):
        """Where S3 has its bytes."""
        return self.desk.folder.object_path(f"{self.desk.name}/{name}")

    def looks_alike(self, name):
        """Modes, times and sizes below a name are, in the mount, those of it outside."""
        show = "cd {}; find . -mindepth 1 ! -type d -printf '%P %m %T@ %s\\n' -o -type d"
        show += " -printf '%P %y %m\\n' | LC_ALL=C sort"
        return self.run(show.format(name)) == self.run(show.format(f"$SRC/{name}"))


def files_below(root):
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if path.name != "kept")


def same_files(one, other):
    """Whether two directories have the same files with the same bytes."""
    names = files_below(one)
    assert names
    assert files_below(other) == names
    wrong = [name for name in names if not filecmp.cmp(one / name, other / name, shallow=False)]
    assert wrong == []
    return True


def needs(*tools):
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
