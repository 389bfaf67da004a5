"""`stsfs verify`: compares what can be read in a mount with the MD5s that Synapse has on record."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import click

from stsfs.cli import output
from stsfs.cli.asking import Place, choose, locate
from stsfs.cli.path_type import MountedPath
from stsfs.cli.verify_check import Checker, in_threads
from stsfs.cli.verify_files import Asking, Facts, Target, batches, roots, walk
from stsfs.cli.verify_progress import Meter, meter
from stsfs.cli.verify_report import Report, Result, Summary
from stsfs.errors import BadArgument, ContentMismatch, StoreFailure

JOBS_MAX = 64


@click.command()
@click.argument("paths", metavar="[PATH]...", type=MountedPath(), nargs=-1)
@click.option(
    "--jobs",
    type=click.IntRange(1, JOBS_MAX),
    default=4,
    show_default=True,
    help="Files that are read at the same time.",
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result of each file to this new file, one JSON object per line.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the report: what it has as right and has not changed is not read again.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object in the end, for scripts.")
def verify(
    paths: tuple[str, ...], jobs: int, report_path: Path | None, resume: bool, as_json: bool
) -> None:
    """Read the files at and below PATH, and compare their MD5 with Synapse's.

    Without PATH it is all of the only mount, or of the one of the working directory. Prints a line
    for each file that differs or cannot be read, and a summary.
    """
    if resume and report_path is None:
        raise click.UsageError("--resume needs --report FILE.")
    places = [locate(path) for path in paths] or [Place(choose(None), "")]
    begin = roots(places)
    began_s = time.monotonic()
    report = None if report_path is None else Report(report_path, resume=resume)
    with nullcontext() if report is None else closing(report), meter() as bar:
        run = _Run(report, bar, lines=not as_json)
        run.all(begin, jobs)
    summary = run.summary
    if summary.files and not run.md5_seen and summary.no_md5 == summary.files:
        raise BadArgument(
            f"None of the {summary.files} files has an MD5: a mount that shows keys knows none.",
            remedy="Mount the folder with --view entities.",
        )
    if as_json:
        answer = summary.to_json()
        answer["report"] = None if report_path is None else str(report_path.absolute())
        answer["elapsed_s"] = round(time.monotonic() - began_s, 3)
        output.tell_json(answer)
    else:
        output.tell(_sentence(summary))
    _end(summary)


class _Run:
    """One run over all files: the results of several threads come together here."""

    def __init__(self, report: Report | None, bar: Meter, *, lines: bool) -> None:
        self.summary = Summary()
        self.md5_seen = False
        self._report = report
        self._bar = bar
        self._lines = lines
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._asking = Asking()
        self._checker = Checker(self._asking, self._stop, self._read)

    def all(self, begin: list[Target], jobs: int) -> None:
        """Verify everything at and below these places."""
        in_threads(self._one, self._to_read(begin), jobs=jobs, stop=self._stop)

    def _to_read(self, begin: list[Target]) -> Iterator[tuple[Target, Facts]]:
        """All files but those for which the report vouches, with what the daemon says of them."""
        for root in begin:
            for batch in batches(walk(root)):
                for target, facts in zip(batch, self._asking.facts(batch), strict=True):
                    self.md5_seen |= facts.md5 is not None
                    if self._report is not None and self._report.vouches_for(facts):
                        with self._lock:
                            self.summary.ok += 1
                            self.summary.resumed += 1
                        continue
                    self._bar.found((facts.size_bytes or 0) if facts.md5 else 0)
                    yield target, facts

    def _one(self, item: tuple[Target, Facts]) -> None:
        result = self._checker.check(*item)
        with self._lock:
            self.summary.add(result)
            if self._report is not None:
                self._report.write(result)
            if self._lines and (line := _line(result)):
                output.tell(line)
        self._bar.done()

    def _read(self, count_bytes: int) -> None:
        with self._lock:
            self.summary.read_bytes += count_bytes
        self._bar.read(count_bytes)


def _line(result: Result) -> str:
    """What to say of a file at once; nothing where it is as it should be."""
    match result.outcome:
        case "mismatch":
            said = f"Synapse's MD5 is {result.facts.md5}, but what was read has {result.found_md5}."
        case "unreadable":
            said = f"{result.errno}. {result.sentence}" if result.errno else result.sentence
        case _:
            return ""
    return f"{result.outcome}: {result.path}: {said}"


def _sentence(summary: Summary) -> str:
    """The summary, without what there is none of."""
    from stsfs.daemon.config import format_size

    parts = [f"{summary.ok} of {summary.files} files are as Synapse's MD5 says"]
    for count, words in (
        (summary.resumed, "of these by the report"),
        (summary.mismatch, "differ"),
        (summary.unreadable, "could not be read"),
        (summary.no_md5, "have no MD5 and were not read"),
    ):
        if count:
            parts.append(f"{count} {words}")
    return f"{', '.join(parts)}. {format_size(summary.read_bytes)} read."


def _end(summary: Summary) -> None:
    """The exit code, by an error in words."""
    if summary.mismatch:
        raise ContentMismatch(
            f"{summary.mismatch} of {summary.files} files differ from Synapse's record of them.",
            remedy="The objects were damaged or replaced in the bucket: tell who uploaded them.",
        )
    if summary.unreadable:
        raise StoreFailure(
            f"{summary.unreadable} of {summary.files} files could not be read.",
            remedy="`stsfs explain PATH` says why; --resume does not read the others again.",
        )
