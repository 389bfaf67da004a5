"""Blocks on disk, below the memory cache: what was read once is there after a restart.

A cache directory holds *chunk files*, each a sparse piece of one object version with every byte at
its place, and an SQLite index that says which grains of a chunk are there, with a checksum each.
The index is written after the data, and checksums are verified on every read: whatever a crash, a
full disk or another program leaves behind is noticed and fetched again.
"""
