"""Entries of a directory that the kernel shows without remembering them."""

import ctypes

import pyfuse3

from stsfs.fuse import plain_entries


def test_the_node_number_is_cleared_and_nothing_else():
    entry = pyfuse3.EntryAttributes()
    entry.st_ino, entry.st_size, entry.entry_timeout = 4711, 12, 3.0
    assert plain_entries.make_plain(entry)
    assert entry.st_ino == 0
    assert (entry.st_size, entry.entry_timeout, entry.generation) == (12, 3.0, 0)
    shown = ctypes.c_uint64.from_address(id(entry) + plain_entries._OFFSET + 24)
    assert shown.value == 4711


def test_an_unknown_layout_is_left_alone(monkeypatch):
    monkeypatch.setattr(plain_entries, "_OFFSET", None)
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 4711
    assert not plain_entries.make_plain(entry)
    assert entry.st_ino == 4711
