"""`python -m stsfs`: the same as the command `stsfs`."""

from stsfs.cli.main import main

main(prog_name="stsfs")
