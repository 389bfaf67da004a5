"""The test's end of `reader_process`."""

import pickle
import signal
import subprocess
import sys
from pathlib import Path


class BusError(Exception):
    """The reader was killed by SIGBUS: a page of a mapping could not be had."""


class ReaderClient:
    """Opens and reads files in a process of its own; its methods raise OSError as there."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("reader_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def open(self, path, how="buffered"):
        return OpenFile(self, self.ask("open", str(path), how))

    def begin(self, name, *arguments):
        """Ask, and do not wait for the answer."""
        pickle.dump((name, arguments), self._process.stdin)
        self._process.stdin.flush()

    def ask(self, name, *arguments):
        self.begin(name, *arguments)
        try:
            good, answer = pickle.load(self._process.stdout)
        except EOFError:
            if self._process.wait() == -signal.SIGBUS:
                raise BusError from None
            raise
        if not good:
            raise answer
        return answer


class OpenFile:
    """One open file of a reader process."""

    def __init__(self, reader, descriptor):
        self._reader, self.number = reader, descriptor

    def read(self, offset, size_bytes):
        return self._reader.ask("read", self.number, offset, size_bytes)

    def close(self):
        self._reader.ask("close", self.number)
