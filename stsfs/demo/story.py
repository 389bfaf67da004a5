"""The story of `stsfs demo`: real commands on local servers, each result compared with facts.

It takes half a minute, because it watches credentials end under a reader.
"""

import contextlib
import math
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from stsfs.daemon import runtime_dir
from stsfs.daemon.config import format_size
from stsfs.daemon.mount_point import check_fuse
from stsfs.demo import commands
from stsfs.demo.commands import Done, Running
from stsfs.demo.narrator import Narrator
from stsfs.demo.stage import (
    BASE_KEY,
    BUCKET,
    TOKEN_LIFETIME_S,
    Stage,
    open_stage,
    take_mount_away,
)
from stsfs.errors import StsfsError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_READ_FIRST_BYTES = 100_000
_TOKENS_URL = "https://www.synapse.org/PersonalAccessTokens:0"


class DemoFailed(StsfsError):
    """A step did not show what it should; nothing of the demonstration is left."""


def run(keep: bool) -> int:
    """Tell the story; with `keep`, stay until Ctrl-C. Returns the exit code.

    Raises FuseUnavailable, DemoFailed or CommandStuck. Nothing is left behind, in any case.
    """
    check_fuse(allow_other=False)
    narrator = Narrator()
    narrator.say(
        "A Synapse folder as a directory, shown on this machine alone: a local S3, a local"
        " Synapse,\nand the same commands that you would type for a folder of your own."
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals_raise())
        with narrator.waiting("starting") as progress:
            stage = stack.enter_context(open_stage(progress))
        stack.callback(_ignore_signals)
        Story(stage, narrator).tell(keep)
    return 0


class Story:
    """The steps, in order. Each raises DemoFailed if it does not show what it should."""

    def __init__(self, stage: Stage, narrator: Narrator) -> None:
        self._stage = stage
        self._say = narrator
        self._facts = stage.data.facts

    def tell(self, keep: bool) -> None:
        """All steps; with `keep`, the last one waits for Ctrl-C."""
        self._say.note(
            f"Its data set: {len(self._stage.data.files)} files,"
            f" {format_size(self._stage.data.size_bytes)}, in s3://{BUCKET}/{BASE_KEY}"
        )
        self._mount()
        self._list()
        with self._begin_long_read() as reader:
            self._query_region()
            self._read_tables()
            self._read_array()
            self._refuse_write()
            self._finish_long_read(reader)
        self._status()
        if keep:
            self._stay()
        else:
            self._unmount()
            self._explain_real_use()

    # Steps.

    def _mount(self) -> None:
        stage = self._stage
        self._say.step("Mount the folder")
        words = [
            f"stsfs mount {stage.folder_id} data",
            f"--token-file {stage.token_file.name}",
            f"--log-file {stage.log_file.name}",
            f"--synapse-endpoint {stage.synapse.url}",
            f"--endpoint-url {stage.gate.url}",
        ]
        self._say.command(f"cd {stage.directory}")
        self._say.command(" \\\n    ".join(words))
        done = self._run(" ".join(words))
        self._say.output(done.output)
        self._insist(done.exit_code == 0, f"`stsfs mount` ended with {done.exit_code}")
        self._say.shows(
            "Synapse told where the data lie, and gave AWS credentials for"
            f" {TOKEN_LIFETIME_S:g} seconds"
        )
        self._say.note(
            "(real ones live an hour; the real Synapse and AWS need none of the last three options)"
        )

    def _list(self) -> None:
        self._say.step("Look around")
        done = self._show("ls -l data data/cohort")
        for file in self._stage.data.files:
            folder, _, name = file.path.rpartition("/")
            if folder in {"", "cohort"}:
                found = any(
                    line.endswith(f" {name}") and f" {file.size_bytes} " in line
                    for line in done.output.splitlines()
                )
                self._insist(found, f"`ls` does not show {file.path} as it was uploaded")
        self._insist("owner.txt" not in done.output, "`ls` shows owner.txt")
        self._say.shows(
            "names, sizes and times as in the bucket; Synapse's owner.txt is not yours to see"
        )

    @contextlib.contextmanager
    def _begin_long_read(self) -> Iterator[Running]:
        self._say.step("Begin a long read, which will outlive its credentials")
        self._credentials()
        pause_s = math.ceil(TOKEN_LIFETIME_S)
        command = (
            f"(head -c {_READ_FIRST_BYTES}; sleep {pause_s}; cat) < data/cohort/s2.bam | sha256sum"
        )
        self._say.command(f"{command} &")
        self._say.note("(the file stays open; most of it is wanted only after the pause)")
        stage = self._stage
        with Running(command, stage.directory, stage.programs) as reader:
            yield reader

    def _query_region(self) -> None:
        region = self._facts.region
        self._say.step("Meanwhile, count the reads of a region")
        if shutil.which("samtools"):
            command = f"samtools view -c data/cohort/s1.bam {region}"
        else:
            command = _python(
                "pysam",
                f"print(pysam.AlignmentFile('data/cohort/s1.bam').count(region={region!r}))",
            )
        done = self._show(command)
        self._insist(
            done.output.strip() == str(self._facts.reads_in_region["s1"]),
            "the region has another number of reads than the data set",
        )
        self._say.shows(f"right, by the index beside it; {self._fetched('cohort/s1.bam')}")

    def _read_tables(self) -> None:
        expression = self._facts.expression
        self._say.step("Read a table, and one column of a large one")
        done = self._show(
            _python(
                "pandas as pd", "print(pd.read_csv('data/tables/samples.csv').age_years.mean())"
            )
        )
        self._insist_number(done, self._facts.mean_age_years)
        done = self._show(
            _python(
                "pandas as pd",
                "print(pd.read_parquet('data/tables/expression.parquet',"
                f" columns=['{expression.column}']).mean().item())",
            )
        )
        self._insist_number(done, expression.column_mean)
        self._say.shows(f"both means are right; {self._fetched('tables/expression.parquet')}")

    def _read_array(self) -> None:
        self._say.step("Sum an array")
        done = self._show(
            _python("h5py", "print(h5py.File('data/arrays/matrix.h5')['counts'][:].sum())")
        )
        self._insist_number(done, self._facts.counts.total)
        self._say.shows("the right sum, chunk by chunk")

    def _refuse_write(self) -> None:
        self._say.step("Try to write")
        done = self._show("touch data/new.txt")
        self._insist(
            done.exit_code != 0 and "Read-only file system" in done.output,
            "a write was not refused with EROFS",
        )
        self._insist(not self._stage.gate.requests.count("PUT"), "something was written to S3")
        self._say.shows("refused by the kernel, at once: nothing was sent")

    def _finish_long_read(self, reader: Running) -> None:
        stage = self._stage
        key = f"{BASE_KEY}/cohort/s2.bam"
        self._say.step("The long read goes on")
        self._say.command("wait")
        left_s = stage.first_token_ends_unix_s - time.time()
        requests_before = self._request_count(key)
        with self._say.waiting(f"its first credentials end in {max(0.0, left_s):.0f} s"):
            done = reader.result()
        self._say.output(done.output)
        [digest] = [file.sha256 for file in stage.data.files if key.endswith(file.path)]
        self._insist(done.output.split()[:1] == [digest], "the long read got other bytes")
        self._insist(time.time() > stage.first_token_ends_unix_s, "its credentials have not ended")
        self._insist(self._request_count(key) > requests_before, "it needed nothing any more")
        status = self._credentials()
        self._insist(status.output.split()[-1:] != ["0"], "credentials were not renewed")
        self._insist(not stage.gate.denied.count(), "S3 refused a request")
        self._say.shows(
            "all bytes are right: new credentials came before the old ones ended, and the reader"
            " noticed nothing"
        )

    def _status(self) -> None:
        self._say.step("Ask the mount how it is")
        done = self._show("stsfs status data")
        self._insist(done.exit_code == 0, "`stsfs status` failed")
        self._say.shows("where it is mounted from, until when it may read, what it has fetched")

    def _unmount(self) -> None:
        self._say.step("Unmount")
        done = self._show("stsfs unmount data")
        self._insist(done.exit_code == 0, "`stsfs unmount` failed")
        self._insist(not os.listdir(self._stage.mount_path), "the mount is still there")
        self._say.shows("the directory is empty again, the daemon has ended")

    def _stay(self) -> None:
        path = self._stage.mount_path
        stsfs = _stsfs()
        self._say.step("The mount stays until you press Ctrl-C here")
        self._say.note("In another terminal:")
        for command in (
            f"ls -l {path}",
            f"samtools view {path}/cohort/s1.bam {self._facts.region} | head",
            f"{stsfs} status {path}",
            f"tail -f {self._stage.log_file}",
        ):
            self._say.example(command)
        try:
            self._until_unmounted()
        except (KeyboardInterrupt, SystemExit):
            self._say.say("")
        if cut_off := take_mount_away(path):
            self._say.note(f"{cut_off} It was cut off.")
        self._say.note("Unmounted.")

    def _explain_real_use(self) -> None:
        self._say.say("\nWith a folder of your own:\n")
        self._say.note("1. Make a Synapse token with the scopes view, modify and download at")
        self._say.note(f"   {_TOKENS_URL}")
        self._say.note("   and put it into a file that only you can read.")
        self._say.note("2. Mount, work, unmount:")
        for command in (
            "mkdir -p ~/data",
            f"{_stsfs()} mount syn12345 ~/data --token-file ~/.synapse-token",
            "ls -l ~/data",
            f"{_stsfs()} unmount ~/data",
        ):
            self._say.example(f"   {command}")

    # What the steps share.

    def _run(self, command: str) -> Done:
        return commands.run(command, self._stage.directory, self._stage.programs)

    def _show(self, command: str) -> Done:
        self._say.command(command)
        done = self._run(command)
        self._say.output(done.output)
        return done

    def _credentials(self) -> Done:
        return self._show("stsfs status data | grep -E 'valid for|renewals'")

    def _fetched(self, path: str) -> str:
        """How much of a file came over the wire so far."""
        key = f"{BASE_KEY}/{path}"
        seen = [request for request in self._stage.gate.requests if request.key == key]
        fetched_bytes = sum(request.body_bytes for request in seen)
        [size_bytes] = [file.size_bytes for file in self._stage.data.files if file.path == path]
        return (
            f"{len(seen)} requests fetched {format_size(fetched_bytes)}"
            f" of the file's {format_size(size_bytes)}"
        )

    def _request_count(self, key: str) -> int:
        return sum(request.key == key for request in self._stage.gate.requests)

    def _insist_number(self, done: Done, expected: float) -> None:
        try:
            right = math.isclose(float(done.output), expected, rel_tol=1e-5)
        except ValueError:
            right = False
        self._insist(right, f"`{done.command}` should print {expected:g}")

    def _insist(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise DemoFailed(f"The demonstration failed: {otherwise}.")

    def _until_unmounted(self) -> None:
        """Wait for the end of the daemon. A signal raises out of it."""
        known = runtime_dir.find(self._stage.mount_path)
        if known is None:
            return
        process = os.pidfd_open(known.record.pid)
        try:
            select.select([process], [], [])
        finally:
            os.close(process)


def _python(module: str, statement: str) -> str:
    return f'python -c "import {module}; {statement}"'


def _stsfs() -> str:
    """How the user calls this program."""
    if shutil.which("stsfs"):
        return "stsfs"
    beside = os.path.join(os.path.dirname(sys.executable), "stsfs")
    return beside if os.access(beside, os.X_OK) else f"{sys.executable} -m stsfs"


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let the first signal end the demonstration in order, and ignore those after it."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        _ignore_signals()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
