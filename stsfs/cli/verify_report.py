"""Results of `stsfs verify`, and the report that keeps them: JSON Lines, one file per line.

A line is written in one piece as soon as its file has been read, so that whatever ends the
command, at most the files under way are lost. `--resume` appends to the report.
"""

import fcntl
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from stsfs.cli.verify_files import Facts
from stsfs.errors import BadArgument
from stsfs.owned_dir import open_log

PROBLEMS_MAX = 1000
"""Listed in the summary; the report has all of them."""

_LINE_BEGINS = b'{"path": "'
"""As `Report.write` does it: what begins otherwise is no line of ours that was cut off."""

Outcome = Literal["ok", "mismatch", "unreadable", "no_md5"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one file."""

    path: str
    outcome: Outcome
    facts: Facts
    found_md5: str | None = None
    """Of what was read; None where it was not read, or not to its end."""

    errno: str | None = None
    sentence: str = ""
    """Why it could not be read."""

    checked_unix_s: float

    def to_json(self) -> dict[str, Any]:
        """A line of the report: see `$defs/line` of schemas/verify.json."""
        facts = asdict(self.facts)
        del facts["error"]
        return {
            "path": self.path,
            "outcome": self.outcome,
            **facts,
            "found_md5": self.found_md5,
            "errno": self.errno,
            "sentence": self.sentence,
            "checked_unix_s": self.checked_unix_s,
        }


@dataclass(slots=True)
class Summary:
    """All results, counted."""

    ok: int = 0
    mismatch: int = 0
    unreadable: int = 0
    no_md5: int = 0
    resumed: int = 0
    """Of those that are ok: how many the report vouched for."""

    read_bytes: int = 0
    problems: list[Result] = field(default_factory=list)

    @property
    def files(self) -> int:
        """All of them."""
        return self.ok + self.mismatch + self.unreadable + self.no_md5

    def add(self, result: Result) -> None:
        """Count one more."""
        setattr(self, result.outcome, getattr(self, result.outcome) + 1)
        is_problem = result.outcome in ("mismatch", "unreadable")
        if is_problem and len(self.problems) < PROBLEMS_MAX:
            self.problems.append(result)

    def to_json(self) -> dict[str, Any]:
        """See schemas/verify.json."""
        return {
            "files": self.files,
            "ok": self.ok,
            "mismatch": self.mismatch,
            "unreadable": self.unreadable,
            "no_md5": self.no_md5,
            "resumed": self.resumed,
            "read_bytes": self.read_bytes,
            "problems": [problem.to_json() for problem in self.problems],
            "problems_left_out": self.mismatch + self.unreadable - len(self.problems),
        }


class Report:
    """A report that is being written."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Open it, and with resume read what it has. Raises BadArgument where that cannot be."""
        self._path = path
        self._verified: set[bytes] = set()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | (0 if resume else os.O_EXCL)
        try:
            self._descriptor = open_log(path, flags, 0o666)
        except FileExistsError:
            raise BadArgument(
                f"{path} exists.", remedy="--resume goes on with it; or name another file."
            ) from None
        except OSError as exc:
            raise self._unusable(exc) from exc
        try:
            self._lock()
            self._read()
        except BaseException:
            self.close()
            raise

    def vouches_for(self, facts: Facts) -> bool:
        """Whether a file of the very same identity was found to be right."""
        return facts.identity in self._verified

    def write(self, result: Result) -> None:
        """Append one line. Raises BadArgument where the disk does not take it."""
        line = json.dumps(result.to_json()).encode("ascii") + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as exc:
            raise self._unusable(exc) from exc

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadArgument(f"Another `stsfs verify` is writing {self._path}.") from None
        except OSError as exc:
            raise self._unusable(exc) from exc

    def _read(self) -> None:
        """Take up what the report has; cut off a last line of ours that was not written to its end.

        Of a path that was checked twice both lines count: they are of different identities, or
        say the same.
        """
        complete_bytes, end = 0, b""
        with open(self._descriptor, "rb", closefd=False) as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n") and self._is_cut_off(number, line):
                    break
                complete_bytes += len(line)
                self._take_up(number, line)
                end = line[-1:]
        if complete_bytes < os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, complete_bytes)
        if end not in (b"", b"\n"):
            os.write(self._descriptor, b"\n")

    def _is_cut_off(self, number: int, line: bytes) -> bool:
        """Whether it is a part of a line of ours; False: all of some line."""
        if not (line.startswith(_LINE_BEGINS) or _LINE_BEGINS.startswith(line)):
            raise self._foreign(number)
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return True
        return False

    def _take_up(self, number: int, line: bytes) -> None:
        try:
            values = json.loads(line)
            facts, is_ok = Facts.from_json(values), values["outcome"] == "ok"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._foreign(number) from None
        if is_ok and (identity := facts.identity) is not None:
            self._verified.add(identity)

    def _foreign(self, number: int) -> BadArgument:
        return BadArgument(
            f"Line {number} of {self._path} is not of a report of `stsfs verify`.",
            remedy="Name the report that is to be continued, or a new file.",
        )

    def _unusable(self, exc: OSError) -> BadArgument:
        return BadArgument(f"The report {self._path} cannot be written: {exc.strerror}.")


def other_digest(sentence: str, expected: str) -> str | None:
    """The digest that a sentence about two of them names beside the expected one."""
    digests = set(re.findall(r"\b[0-9a-f]{32}\b", sentence))
    return next(iter(digests - {expected}), None) if expected in digests else None
