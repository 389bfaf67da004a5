"""The recorded programs in Python."""

COPYTREE = """
import os, shutil
shutil.copytree(os.environ["SRC"] + "/d", "d")
"""

MOVE = """
import os, shutil
shutil.move(os.environ["SRC"] + "/d/a.txt", "f")
"""

TO_CSV = """
import pandas
pandas.DataFrame({"a": range(200000)}).to_csv("f.csv")
"""

TO_PARQUET = """
import pandas
pandas.DataFrame({"a": range(200000)}).to_parquet("f.parquet")
"""

H5_NEW = """
import h5py, numpy
with h5py.File("f.h5", "w") as f:
    f["a"] = numpy.zeros(300000)
    f.create_dataset("b", data=numpy.arange(9999), compression="gzip")
"""

H5_CHANGED = """
import h5py
with h5py.File("f.h5", "a") as f:
    f["a"][5] = 1.0
    f["c"] = [1, 2]
"""

NUMPY_SAVE = """
import numpy
numpy.save("f.npy", numpy.zeros(400000))
"""

MEMMAP = """
import numpy
m = numpy.memmap("f", "u1", "w+", shape=(3000000,))
m[:] = 7
m.flush()
m[5] = 8
del m
"""

MAPPING_AFTER_CLOSE = """
import mmap, os
fd = os.open("f", os.O_RDWR)
m = mmap.mmap(fd, 0)  # holds a descriptor of its own
os.close(fd)
m[0:1] = b"y"
m[9000:9001] = b"y"
m.close()
"""

MAPPING_WITHOUT_DESCRIPTOR = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
fd = os.open("f", os.O_RDWR)
address = libc.mmap(None, 12288, 3, 1, fd, ctypes.c_long(0))  # read and write, shared
os.close(fd)
ctypes.memset(address, 7, 1)
libc.munmap(ctypes.c_void_p(address), 12288)
"""

MAPPING_KILLED = """
import mmap, os
fd = os.open("f", os.O_RDWR)
m = mmap.mmap(fd, 0)
m[0:1] = b"y"
os.kill(os.getpid(), 9)
"""

MAPPING_AND_ANOTHER_HANDLE = """
import mmap, os
fd = os.open("f", os.O_RDWR)
m = mmap.mmap(fd, 0)
other = os.open("f", os.O_WRONLY)
m[0:1] = b"y"
os.close(other)
m[1:2] = b"y"
m.flush()
m.close()
os.close(fd)
"""

MAPPING_READ = """
import mmap, os
fd = os.open("f", os.O_RDONLY)
m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
with open("f", "r+b") as f:
    f.write(b"yyy")
assert m[:3] == b"yyy"
os.close(fd)
m.close()
"""

TWO_DESCRIPTORS = """
a = open("f", "wb", 0)
a.write(b"aaaa")
b = open("f", "r+b", 0)
b.write(b"b")
b.close()
a.write(b"a")
r = open("f", "rb")
assert r.read() == b"baaaa"
a.close()
"""

DUPLICATED = """
import os
fd = os.open("f", os.O_WRONLY | os.O_CREAT, 0o644)
os.write(fd, b"a")
os.close(os.dup(fd))
os.write(fd, b"b")
os.close(fd)
"""

INHERITED = """
import os, subprocess
f = open("f", "wb", 0)
f.write(b"a")
os.set_inheritable(f.fileno(), True)
subprocess.run(["true"], close_fds=False)
f.write(b"b")
f.close()
"""

CHILD_STARTED = """
import subprocess
f = open("f", "wb", 0)  # closed on exec, as Python opens everything
f.write(b"a")
subprocess.run(["true"])
f.write(b"b")
f.close()
"""

REPLACE = """
import os
with open("f.tmp", "w") as f:
    f.write("a")
    f.flush()
    os.fsync(f.fileno())
os.replace("f.tmp", "f")
"""

REPLACE_OPEN = """
import os
a = open("a", "w")
a.write("new")
a.flush()
b = open("f")
os.replace("a", "f")
a.write("er")
a.close()
assert b.read() == "old\\n"
"""

UNLINKED = """
import os
f = open("f", "w+")
f.write("a")
f.flush()
os.unlink("f")
f.write("b")
f.flush()
os.ftruncate(f.fileno(), 1)
os.utime(f.fileno())
assert os.fstat(f.fileno()).st_size == 1
f.close()
"""

TEMPORARY_FILE = """
import tempfile
with tempfile.TemporaryFile(dir=".") as f:
    f.write(b"a")
    f.seek(0)
    f.read()
"""

ATTRIBUTES_BEFORE_CLOSE = """
import os
f = open("f", "w")
f.write("a")
f.flush()
os.fchmod(f.fileno(), 0o600)
os.utime(f.fileno(), (1, 1))
f.close()
"""

SEEK_BACK = """
f = open("f", "wb")
f.write(b"x" * 3000000)
f.seek(8)
f.write(b"head")
f.truncate(1000000)
f.close()
"""

TRUNCATE_BY_NAME = """
import os
os.truncate("f", 3)
"""

TRUNCATE_BY_NAME_WHILE_OPEN = """
import os
f = open("f", "r+b", 0)
f.write(b"yyyy")
os.truncate("f", 3)
f.write(b"zz")
f.close()
"""

FALLOCATE = """
import os
fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644)
os.posix_fallocate(fd, 0, 10000)
os.close(fd)
"""

COPY_FILE_RANGE = """
import os
a, b = os.open("f", os.O_RDONLY), os.open("g", os.O_WRONLY | os.O_CREAT, 0o644)
assert os.copy_file_range(a, b, 100) == 2
os.close(a)
os.close(b)
"""
