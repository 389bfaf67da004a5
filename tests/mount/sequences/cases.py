"""Which tools are recorded, and what each of them is asked to do.

A command runs in the mount's root, in `sh -e`. What `before` makes is there already, as objects in
S3 would be: it runs in the directory below, before it is mounted. `$SRC` is a directory outside.
"""

from dataclasses import dataclass

from tests.mount.sequences import programs

TREE = (
    "mkdir -p $SRC/d/sub; echo one > $SRC/d/a.txt; echo two > $SRC/d/sub/b.sh; "
    "chmod 664 $SRC/d/a.txt; chmod 755 $SRC/d/sub/b.sh; "
    "touch -d 2020-01-02T03:04:05Z $SRC/d/a.txt $SRC/d/sub/b.sh $SRC/d/sub $SRC/d; "
)
"""Two files in two directories, with times and modes of their own."""

FOREIGN = TREE + "chown -R 4711:4712 $SRC/d; "
"""The same, of somebody else: root keeps owners by default in many tools."""

TAR = "tar cf $SRC/t.tar -C $SRC d; "
THERE = "mkdir -p d/sub; echo one > d/a.txt; echo two > d/sub/b.sh; "
ZIP_THERE = THERE + "zip -qr t.zip d; "
BIG = "seq 1600000 | head -c 12582912 > big; truncate -s 12582912 big; touch -d 2020-01-02 big; "
COMMITS = TREE + "(cd $SRC/d; git init -q -b main .; git add .; git commit -qm first); "
CLONE = COMMITS + "git clone -q --template= file://$SRC/d c; "
NULLS = "head -c 12288 /dev/zero > f"
TABLE = "sqlite3 t.db 'create table t(a); insert into t values(1)'"


@dataclass(frozen=True, slots=True)
class Case:
    """One command, run by root who made the mount; or by another user, whose mount it is or not."""

    title: str
    command: str
    before: str = ""
    as_user: bool = False
    of_user: bool = False


def python(program):
    """A command of Python."""
    return f"$PYTHON - <<'END'\n{program.strip()}\nEND"


def by_user(title, command, before=""):
    """Run by a user who made the mount."""
    return Case(title, command, before, as_user=True, of_user=True)


SHELL = [
    Case("one command", "echo a > f"),
    Case("several commands", "( echo a; /bin/echo b; /bin/echo c ) > f"),
    Case("several commands, bash", "bash -c '( echo a; /bin/echo b; /bin/echo c ) > f'"),
    Case("one program, bash", "bash -c '/bin/echo a > f'"),
    Case("a loop of programs", "for i in 1 2 3; do /bin/echo $i; done > f"),
    Case("an empty file", ": > f"),
    Case(
        "a program that reads along",
        "echo one > f; { read a; /bin/echo $a two; } < f >> f",
    ),
    Case("both streams to one file", "{ /bin/echo a; /bin/echo b >&2; } > f 2>&1"),
    Case("append", "echo b >> f", "echo a > f"),
    Case("overwrite", "echo b > f", "echo a > f"),
    Case("no clobber", "set -C; echo b > f"),
    Case("touch, new", "touch f"),
    Case("touch, existing", "touch f", "echo a > f"),
    Case("touch -d", "touch -d 2020-01-02 f", "echo a > f"),
    Case("truncate -s", "truncate -s 3 f; truncate -s 100 f", "echo aaaaa > f"),
    Case("tee", "echo a | tee f >/dev/null"),
    Case("fallocate", "fallocate -l 1000 f"),
]

COREUTILS = [
    Case("cp", "cp $SRC/d/a.txt f", TREE),
    Case("cp of an empty file", "cp /dev/null f"),
    Case("cp over an existing file", "cp $SRC/d/a.txt f", TREE + "echo old > f"),
    Case("cp of 3 MiB", "cp $SRC/z f", "head -c 3145728 /dev/zero > $SRC/z"),
    Case("cp within the mount", "cp f g", "echo a > f"),
    Case("cp -a", "cp -a $SRC/d .", TREE),
    Case("cp -a, foreign owner, as root", "cp -a $SRC/d .", FOREIGN),
    Case(
        "cp -a --no-preserve=ownership, foreign owner, as root",
        "cp -a --no-preserve=ownership $SRC/d .",
        FOREIGN,
    ),
    by_user("cp -a, foreign owner, as a user", "cp -a $SRC/d .", FOREIGN),
    Case("cp -a, in a mount of root's, as another user", "cp -a $SRC/d .", TREE, as_user=True),
    Case(
        "cp -p, in a mount of root's, as another user", "cp -p $SRC/d/a.txt f", TREE, as_user=True
    ),
    Case("cp -a of a symbolic link", "cp -a $SRC/d/l .", TREE + "ln -s a.txt $SRC/d/l"),
    Case("install", "install -m 755 $SRC/d/a.txt f", TREE),
    Case("mv of a file", "mv f g", "echo a > f"),
    Case("mv over a file", "mv f g", "echo a > f; echo b > g"),
    Case("mv of a directory", "mv d e", THERE),
    Case("mv into the mount", "mv $SRC/d .", TREE),
    Case("rm -r", "rm -r d", THERE),
    Case("ln -s, ln", "ln -s f g || ln f g", "echo a > f"),
]

RSYNC = [
    Case("rsync -a", "rsync -a $SRC/d .", TREE),
    Case("rsync -a, second run", "rsync -a $SRC/d .", TREE + "cp -a $SRC/d ."),
    Case("rsync -a, foreign owner, as root", "rsync -a $SRC/d .", FOREIGN),
    Case(
        "rsync -a --no-o --no-g, foreign owner, as root",
        "rsync -a --no-o --no-g $SRC/d .",
        FOREIGN,
    ),
    by_user("rsync -a, foreign owner, as a user", "rsync -a $SRC/d .", FOREIGN),
    Case(
        "rsync -a of a changed file",
        "rsync -a --no-whole-file $SRC/big .",
        BIG + "cp -a big $SRC/big; echo new >> $SRC/big",
    ),
    Case("rsync -a --inplace", "rsync -a --inplace $SRC/d .", TREE),
    Case(
        "rsync -a --inplace of a changed file",
        "rsync -a --inplace --no-whole-file $SRC/big .",
        BIG + "cp big $SRC/big; printf new | dd of=$SRC/big bs=1 seek=5000000 conv=notrunc",
    ),
    Case(
        "rsync -a --delete",
        "rsync -a --delete $SRC/d .",
        TREE + "cp -a $SRC/d .; echo > d/gone",
    ),
]

ARCHIVES = [
    Case("tar x, as root", "tar xf $SRC/t.tar", TREE + TAR),
    Case("tar x, foreign owner, as root", "tar xf $SRC/t.tar", FOREIGN + TAR),
    Case(
        "tar x --no-same-owner, foreign owner, as root",
        "tar xf $SRC/t.tar --no-same-owner",
        FOREIGN + TAR,
    ),
    by_user("tar x, foreign owner, as a user", "tar xf $SRC/t.tar", FOREIGN + TAR),
    Case("tar x over existing files", "tar xf $SRC/t.tar", TREE + THERE + TAR),
    Case("tar c", "tar cf t.tar -C $SRC d", TREE),
    Case("zip, new", "zip -qr t.zip d", THERE),
    Case("zip, update", "zip -q t.zip d/a.txt", ZIP_THERE + "echo more >> d/a.txt"),
    Case("unzip", "unzip -q t.zip", ZIP_THERE + "rm -r d"),
    Case("gzip", "gzip f", "echo a > f"),
]

GIT = [
    Case("git clone", "git clone -q --template= file://$SRC/d c", COMMITS),
    Case("git status after clone", "git -C c status --short", CLONE),
    Case(
        "git add, git commit",
        "cd c; echo x >> a.txt; git add a.txt; git commit -qm second",
        CLONE,
    ),
]

SQLITE = [
    Case("sqlite3, create and insert", TABLE),
    Case("sqlite3, update", "sqlite3 t.db 'update t set a=2'", TABLE),
    Case(
        "sqlite3, write-ahead log",
        "sqlite3 t.db 'pragma journal_mode=wal; create table t(a); insert into t values(1)'",
    ),
]

VIM = "vim -es -u NONE -c {}'s/a/b/' -c wq f"
EDITORS = [
    Case("sed -i", "sed -i s/a/b/ f", "echo a > f"),
    Case("vim", VIM.format(""), "echo a > f"),
    Case(
        "vim, with a backup", VIM.format("'set backup backupcopy=no backupskip=' -c "), "echo a > f"
    ),
    Case("perl -i", "perl -pi -e s/a/b/ f", "echo a > f"),
    Case("sort -o over its input", "sort -o f f", "printf 'b\\na\\n' > f"),
]

DD_ZERO = "dd if=/dev/zero of=f status=none "
DD = [
    Case("dd of 20 MiB", DD_ZERO + "bs=1M count=20"),
    Case("dd in small blocks", DD_ZERO + "bs=512 count=64"),
    Case("dd conv=fsync", DD_ZERO + "bs=64k count=2 conv=fsync"),
    Case("dd oflag=direct", DD_ZERO + "bs=1M count=4 oflag=direct"),
    Case(
        "dd with seeks, conv=notrunc",
        f"for i in 5 1; do {DD_ZERO} bs=1M seek=$i count=1 conv=notrunc; done",
        BIG + "mv big f",
    ),
    Case("dd beyond the end", DD_ZERO + "bs=1M seek=30 count=1"),
    Case("dd with a seek, without notrunc", DD_ZERO + "bs=1M seek=5 count=1", BIG + "mv big f"),
]

PYTHON = [
    Case("shutil.copytree", python(programs.COPYTREE), TREE),
    Case("shutil.move into the mount", python(programs.MOVE), TREE),
    Case("pandas, to_csv", python(programs.TO_CSV)),
    Case("pandas, to_parquet", python(programs.TO_PARQUET)),
    Case("h5py, new", python(programs.H5_NEW)),
    Case("h5py, changed", python(programs.H5_CHANGED), python(programs.H5_NEW)),
    Case("numpy.save", python(programs.NUMPY_SAVE)),
    Case("numpy.memmap", python(programs.MEMMAP)),
    Case("a temporary file, then os.replace", python(programs.REPLACE), "echo old > f"),
    Case("tempfile.TemporaryFile", python(programs.TEMPORARY_FILE)),
]

DESCRIPTORS = [
    Case("two descriptors", python(programs.TWO_DESCRIPTORS)),
    Case("a duplicated descriptor", python(programs.DUPLICATED)),
    Case("a child that inherits a descriptor and does nothing", python(programs.INHERITED)),
    Case("a child that inherits nothing", python(programs.CHILD_STARTED)),
    Case("os.replace while both are open", python(programs.REPLACE_OPEN), "echo old > f"),
    Case("unlink while open", python(programs.UNLINKED)),
    Case("fchmod and futimens before the close", python(programs.ATTRIBUTES_BEFORE_CLOSE)),
    Case("seek back, then truncate", python(programs.SEEK_BACK)),
    Case("truncate by name", python(programs.TRUNCATE_BY_NAME), "echo aaaaa > f"),
    Case(
        "truncate by name while open",
        python(programs.TRUNCATE_BY_NAME_WHILE_OPEN),
        "echo aaaaa > f",
    ),
    Case("posix_fallocate", python(programs.FALLOCATE)),
    Case("copy_file_range", python(programs.COPY_FILE_RANGE), "echo a > f"),
]

MAPPINGS = [
    Case("changed after the descriptor is closed", python(programs.MAPPING_AFTER_CLOSE), NULLS),
    Case("changed, and no descriptor left", python(programs.MAPPING_WITHOUT_DESCRIPTOR), NULLS),
    Case(
        "left dirty by a killed process",
        "(" + python(programs.MAPPING_KILLED) + "\n) 2>/dev/null || true",
        NULLS,
    ),
    Case("beside another handle", python(programs.MAPPING_AND_ANOTHER_HANDLE), NULLS),
    Case("read while another writes", python(programs.MAPPING_READ), NULLS),
]

OTHERS = [
    Case("samtools sort -o", "samtools sort --no-PG -o s.bam $SRC/u.sam", "$MAKE_SAM"),
    Case(
        "samtools sort -o, with temporary files",
        "samtools sort --no-PG -m 1M -o s.bam $SRC/u.sam",
        "$MAKE_SAM",
    ),
    Case(
        "samtools index",
        "samtools index s.bam",
        "$MAKE_SAM; samtools sort --no-PG -o s.bam $SRC/u.sam",
    ),
    Case("cc -o", "cc -o hello $SRC/h.c", "printf 'int main(){return 0;}' > $SRC/h.c"),
]

CASES = {
    "Shell": SHELL,
    "cp, mv, rm, install, ln": COREUTILS,
    "rsync": RSYNC,
    "Archives": ARCHIVES,
    "git": GIT,
    "sqlite3": SQLITE,
    "Editors and rewriting": EDITORS,
    "dd": DD,
    "Python": PYTHON,
    "Descriptors": DESCRIPTORS,
    "Mappings": MAPPINGS,
    "samtools, a compiler": OTHERS,
}
