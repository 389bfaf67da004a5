"""Record what each tool asks for, and write it into tests/mount/writing.md below its last rule.

Takes two minutes; needs /dev/fuse, root, and the tools themselves. Two runs on one machine write
the same text, but for the order of what two processes of one tool do at the same time (rsync, git).
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mount.sequences.cases import CASES
from tests.mount.sequences.recorder import QUIET_NAME
from tests.mount.sequences.render import fixed, lines_of

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "tests" / "mount" / "writing.md"
HEADING = "## The recordings"
PATIENCE_S = 60
USER = 64_001

TOOL_VERSIONS = {
    "cp": "cp --version",
    "rsync": "rsync --version",
    "tar": "tar --version",
    "git": "git --version",
    "sqlite3": "sqlite3 --version | cut -d' ' -f1 | sed 's/^/sqlite3 /'",
    "vim": "vim --version",
    "zip": "zip -v | sed -n 2p",
    "samtools": "samtools --version",
    "python": '$PYTHON -c \'import h5py, pandas, pyarrow, pyfuse3, sys; print("Python", '
    'sys.version.split()[0] + ", pandas", pandas.__version__ + ", pyarrow", pyarrow.__version__ '
    '+ ", h5py", h5py.__version__ + ", pyfuse3", pyfuse3.__version__)\'',
}

MAKE_SAM = """$PYTHON -c "
import random
random.seed(1)
print('@HD\\tVN:1.6\\n@SQ\\tSN:c\\tLN:1000000')
for i in range(40000):
    place = random.randrange(1, 900000)
    print(f'r{i}', 0, 'c', place, 60, '10M', '*', 0, 0, 'ACGTACGTAC', 'I' * 10, sep='\\t')
" > $SRC/u.sam"""


def environment(scratch):
    """Of every command: names and dates of commits are fixed, nobody's settings are read."""
    day = "2020-01-02T03:04:05Z"
    names = {
        f"GIT_{who}_{what}": "a@b.c"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    dates = {"GIT_AUTHOR_DATE": day, "GIT_COMMITTER_DATE": day, "GIT_CONFIG_NOSYSTEM": "1"}
    safe = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    places = {"HOME": str(scratch), "SRC": str(scratch / "src"), "PYTHON": sys.executable}
    return {
        **names,
        **dates,
        **safe,
        **places,
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


@contextlib.contextmanager
def recorder(mount_path, backing, log_path, uid):
    """The file system, mounted; unmounted at the end."""
    module = "tests.mount.sequences.recorder"
    command = [sys.executable, "-m", module, mount_path, backing, log_path, uid]
    served = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout.readline() == "ready\n"
        yield
    finally:
        subprocess.run(["fusermount3", "-u", "-z", "--", str(mount_path)], check=False)
        try:
            served.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            served.send_signal(signal.SIGKILL)
            served.wait()
        served.stdout.close()


def record(case, scratch):
    """The requests of a case, and how its command ended."""
    mount_path, backing, source = (scratch / name for name in ("mount", "backing", "src"))
    for path in (mount_path, backing, source):
        path.mkdir(mode=0o755)
    uid = USER if case.of_user else 0
    variables = environment(scratch)
    before = case.before.replace("$MAKE_SAM", MAKE_SAM)
    subprocess.run(
        ["sh", "-ec", before], cwd=backing, env=variables, check=True, stderr=subprocess.DEVNULL
    )
    for path in [backing, *backing.rglob("*")]:
        os.chown(path, uid, uid)
        if case.as_user and not case.of_user:
            path.chmod(0o777)
    become = []
    if case.as_user:
        become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    log_path = scratch / "requests.jsonl"
    with recorder(mount_path, backing, log_path, uid):
        done = subprocess.run(
            [*become, "sh", "-ec", case.command],
            cwd=mount_path,
            env=variables,
            capture_output=True,
            errors="replace",
            timeout=PATIENCE_S,
        )
        (mount_path / os.fsdecode(QUIET_NAME)).exists()  # returns when all is released
        requests = [json.loads(line) for line in log_path.read_text().splitlines()]
    return requests, done


def section(case):
    """A case as the document has it."""
    with tempfile.TemporaryDirectory(prefix="recorder-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        requests, done = record(case, scratch)
        said = done.stderr.replace(str(scratch), "").strip().splitlines()
    lines = lines_of(requests) or ["(nothing)"]
    if done.returncode or said:
        lines.append(
            f"exit status {done.returncode}" + (f", says: {fixed(said[0])}" if said else "")
        )
    command = case.command.strip().replace("$PYTHON - <<'END'", "python - <<'END'")
    body = "\n".join(lines)
    return f"#### {case.title}\n\n```sh\n{command}\n```\n```\n{body}\n```\n"


def versions():
    """One line: the kernel, and each tool that is here."""
    found = [f"Linux {os.uname().release}"]
    for tool, command in TOOL_VERSIONS.items():
        if tool == "python" or shutil.which(tool):
            variables = {**os.environ, "PYTHON": sys.executable}
            shown = subprocess.run(
                ["sh", "-c", command],
                env=variables,
                capture_output=True,
                errors="replace",
                check=True,
            )
            found.append(shown.stdout.splitlines()[0].strip())
    return "; ".join(found)


def main():
    """Record all cases, or those whose title contains the argument, which are only shown."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else None
    parts = []
    for chapter, cases in CASES.items():
        chosen = [case for case in cases if wanted is None or wanted in case.title]
        if chosen:
            parts.append(f"### {chapter}\n")
            parts += [section(case) for case in chosen]
    if wanted is not None:
        sys.stdout.write("\n".join(parts))
        return
    written_by_hand, _, _ = DOCUMENT.read_text().partition(HEADING)
    head = f"{HEADING}\n\nMade by `python -m tests.mount.sequences`. {versions()}.\n"
    DOCUMENT.write_text(written_by_hand + "\n".join([head, *parts]))


if __name__ == "__main__":
    main()
