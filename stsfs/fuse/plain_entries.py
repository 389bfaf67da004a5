"""Directory entries that the kernel shows, but does not remember.

An entry of a READDIRPLUS reply may have the node number 0: the kernel takes its name, type and
inode number, and no reference to it (fuse_direntplus_link in its fs/fuse/readdir.c). pyfuse3 sets
node number and inode number together, and offers no plain READDIR. So the node number is cleared
where it lies in pyfuse3's object, in libfuse's struct fuse_entry_param, if it is seen to lie there.
"""

import ctypes
import struct
import sys

import pyfuse3

_MARK = 0x5AFE_0DD5_1234_ABCD
_WORD = struct.Struct("=Q")
_NODE_TO_INODE_BYTES = 24
"""From fuse_entry_param.ino to its attr.st_ino: `generation` and `st_dev` lie between."""


def _node_offset() -> int | None:
    """Where an entry has its node number; None where that is not as expected."""
    probe = pyfuse3.EntryAttributes()
    probe.st_ino = _MARK
    memory = ctypes.string_at(id(probe), sys.getsizeof(probe))
    packed = _WORD.pack(_MARK)
    words = range(0, len(memory) - _WORD.size + 1, _WORD.size)
    places = [at for at in words if memory[at : at + _WORD.size] == packed]
    if len(places) != 2 or places[1] - places[0] != _NODE_TO_INODE_BYTES:
        return None
    return places[0]


_OFFSET = _node_offset()


def make_plain(entry: pyfuse3.EntryAttributes) -> bool:
    """Let the kernel take no reference by this entry of a directory; whether that can be done."""
    if _OFFSET is None:
        return False
    ctypes.c_uint64.from_address(id(entry) + _OFFSET).value = 0
    return True
