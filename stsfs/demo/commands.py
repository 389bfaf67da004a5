"""Commands as a person types them, run for their output, and never outliving the demonstration."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from stsfs.errors import StsfsError

COMMAND_TIMEOUT_S = 120.0
INTERRUPT_TIMEOUT_S = 10.0
"""How long an interrupted command may tidy up; `stsfs mount` ends its daemon meanwhile."""


class CommandStuck(StsfsError):
    """A command of the demonstration did not end."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it printed."""

    command: str
    exit_code: int
    output: str
    """stdout and stderr, as they would stand on a terminal."""


class Running:
    """A command under way; leaving the context ends it and all that it started."""

    def __init__(self, command: str, directory: Path, programs: Path) -> None:
        self.command = command
        # A process group of its own: Ctrl-C reaches us alone, and we end the others in order.
        self._process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=directory,
            env={
                **os.environ,
                "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
                "LC_ALL": "C.UTF-8",  # outputs are compared
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            process_group=0,
        )

    def __enter__(self) -> "Running":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in (signal.SIGINT, signal.SIGKILL):
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(INTERRUPT_TIMEOUT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def result(self) -> Done:
        """Wait for the end. Raises CommandStuck."""
        try:
            output, _ = self._process.communicate(timeout=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise CommandStuck(
                f"`{self.command}` did not end within {COMMAND_TIMEOUT_S:g} s."
            ) from None
        return Done(self.command, self._process.returncode, output)


def run(command: str, directory: Path, programs: Path) -> Done:
    """Run a command line of sh in a directory. Raises CommandStuck."""
    with Running(command, directory, programs) as running:
        return running.result()


def install_programs(directory: Path) -> None:
    """Put `stsfs` and `python` there: this very installation, however it was started."""
    directory.mkdir()
    python = shlex.quote(sys.executable)
    for name, words in (("python", python), ("stsfs", f"{python} -m stsfs")):
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        program.chmod(0o755)
