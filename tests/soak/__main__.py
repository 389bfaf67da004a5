"""Readers and writers in bad weather: `python -m tests.soak --help`."""

import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from tests.mount.live_mount import Host
from tests.mount.stage import Stage
from tests.soak.report import text_of
from tests.soak.soak import Soak, long_plan


@click.command()
@click.option("--minutes", type=click.FloatRange(1, 600), default=20, show_default=True)
@click.option(
    "--lifetime",
    "lifetime_s",
    type=click.FloatRange(5, 3600),
    default=20,
    show_default=True,
    metavar="S",
    help="Of credentials, in seconds.",
)
@click.option(
    "--crash",
    "crash_s",
    type=click.FloatRange(1, 3600),
    default=40,
    show_default=True,
    metavar="S",
    help="Between two kills of a daemon that is written to, about.",
)
@click.option("--easy", is_flag=True, help="No trouble in which programs get errors for long.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what is left to chance.")
@click.option(
    "--keep",
    "kept_path",
    type=click.Path(path_type=Path),
    help="A directory to be made for all files, logs included. It stays.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the report as JSON, too.",
)
def main(
    minutes: float,
    lifetime_s: float,
    crash_s: float,
    easy: bool,
    seed: int,
    kept_path: Path | None,
    json_path: Path | None,
) -> None:
    """Read and write mounts while all around them fails, and look what is wrong or grows.

    One daemon that is written to is killed again and again. Ends with 1 if anything is wrong.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    plan = long_plan(minutes, lifetime_s, seed, crash_s=crash_s, hard=not easy)
    with _directory(kept_path) as root:
        for each in ("s3", "home", "run"):
            (root / each).mkdir()
        with Stage(root / "s3") as stage:
            host = Host(root / "home", root / "run", stage)
            complain = partial(click.echo, err=True)
            soak = Soak(stage, stage.folder(), host, root / "cache", plan, complain)
            report = soak.run()
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=2))
    click.echo(text_of(report))
    sys.exit(1 if report["problems"] else 0)


@contextlib.contextmanager
def _directory(kept_path: Path | None) -> Iterator[Path]:
    if kept_path is not None:
        kept_path.mkdir()
        yield kept_path
        return
    with tempfile.TemporaryDirectory(prefix="stsfs-soak-") as name:
        yield Path(name)


if __name__ == "__main__":
    main()
