"""Opens and reads files on behalf of a test, in a process of its own.

A page fault keeps the interpreter's lock while the kernel waits for the mount; the servers of the
stage, threads of the test, could not answer. Requests and answers are pickled, on stdin and stdout.
"""

import mmap
import os
import pickle
import sys


class Files:
    """Open files by number, read in one of three ways."""

    def __init__(self):
        self._open = {}

    def open(self, path, how):
        descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if how == "direct" else 0))
        mapping = None
        if how == "mmap":
            mapping = mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        self._open[descriptor] = mapping
        return descriptor

    def read(self, descriptor, offset, size_bytes):
        mapping = self._open[descriptor]
        if mapping is not None:
            return mapping[offset : offset + size_bytes]
        read = b""
        while len(read) < size_bytes:
            piece = os.pread(descriptor, size_bytes - len(read), offset + len(read))
            if not piece:
                break
            read += piece
        return read

    def close(self, descriptor):
        mapping = self._open.pop(descriptor)
        if mapping is not None:
            mapping.close()
        os.close(descriptor)


def main():
    files, requests, answers = Files(), sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = (True, getattr(files, name)(*arguments))
        except OSError as exc:
            answer = (False, exc)
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
