"""What tools ask of a file system that they write to. See `python -m tests.mount.sequences`."""
