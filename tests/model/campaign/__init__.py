"""Histories of several players and mounts, chosen and interleaved by a seed, and judged by books.

`python -m tests.model.campaign --kind two-mounts --histories 10000` plays many of one kind.
"""
