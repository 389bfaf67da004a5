"""Compare stsfs with the peers that are installed: `python -m tests.bench --help`."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from stsfs.daemon import mountinfo
from tests.bench import systems as systems_of
from tests.bench.compare import Comparison, Plan
from tests.bench.jobs_data import data_jobs
from tests.bench.jobs_disk import disk_jobs
from tests.bench.jobs_formats import formats_job, link_formats
from tests.bench.jobs_names import names_jobs
from tests.bench.jobs_write import write_jobs
from tests.bench.measure import Job
from tests.bench.objects import cache_directory, make_objects
from tests.bench.report import RAW, Results, machine, print_table, write_json
from tests.bench.scale import FULL, QUICK, Scale
from tests.bench.server import FAST, SLOW, serve
from tests.bench.systems import PEERS, STSFS, System

_WARM_UP_S = 5.0
"""Jobs that end by the clock are not longer than this in the round that is not measured."""


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything: does it work, not how fast.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Measured rounds, after one to warm up.",
)
@click.option(
    "--server",
    type=click.Choice(["fast", "slow", "both"]),
    default="both",
    show_default=True,
    help="slow: 20 ms to the first byte, 85 MB/s per connection.",
)
@click.option("--only", metavar="JOB,...", default="", help="Only these jobs; see --list.")
@click.option("--peers", metavar="NAME,...", help="Only these peers; '' is none.")
@click.option(
    "--before",
    metavar="PYTHON",
    help="Also the stsfs of another checkout, by its interpreter: .venv/bin/python there.",
)
@click.option("--formats", is_flag=True, help="Also samtools, bcftools, pyarrow and h5py.")
@click.option(
    "--timeout",
    type=float,
    default=300,
    show_default=True,
    metavar="S",
    help="When a job on one system counts as failed.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write all samples.  [default: beside the objects]",
)
@click.option(
    "--drop-caches/--no-drop-caches",
    default=None,
    help="Empty the page cache before each mount.  [default: as root, not if --quick]",
)
@click.option("--list", "list_jobs", is_flag=True, help="Name the jobs and end.")
def main(
    quick: bool,
    rounds: int,
    server: str,
    only: str,
    peers: str | None,
    before: str | None,
    formats: bool,
    timeout: float,
    json_path: Path | None,
    drop_caches: bool | None,
    list_jobs: bool,
) -> None:
    """Compare stsfs with its peers on this machine: one server, in turn, medians of rounds."""
    scale = QUICK if quick else FULL
    names = _split(only)
    jobs = _choose_jobs(scale, names, formats)
    if list_jobs:
        for job in jobs:
            click.echo(f"{job.name:12} {'; '.join(f.title.strip() for f in job.figures)}")
        return
    console = Console(stderr=False, width=None if sys.stdout.isatty() else 160)
    systems = _choose_systems(console, peers)
    if before is not None:
        systems.append(systems_of.before(before))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console.print("making the objects (once per machine)")
    root = make_objects(scale)
    if any(job.name == "formats" for job in jobs):
        link_formats(scale, root)
    if drop_caches is None:
        drop_caches = os.geteuid() == 0 and not quick
    plan = Plan(
        scale=scale,
        warm_up_scale=replace(
            scale,
            random_s=min(scale.random_s, _WARM_UP_S),
            pressure_s=min(scale.pressure_s, _WARM_UP_S),
        ),
        jobs=jobs, systems=systems, rounds=rounds, timeout_s=timeout, drop_caches=drop_caches,
    )  # fmt: skip
    if json_path is None:
        json_path = cache_directory() / time.strftime("results-%Y%m%d-%H%M%S.json")
    _compare(console, plan, root, server, json_path)
    console.print(f"all samples: {json_path}", soft_wrap=True)


def _compare(console: Console, plan: Plan, root: Path, server: str, json_path: Path) -> None:
    results = Results()
    columns = [RAW, *(system.name for system in plan.systems)]
    figures = [figure for job in plan.jobs for figure in job.figures]
    about: dict[str, Any] = {
        "machine": machine(),
        "versions": {system.name: system.version() for system in plan.systems},
        "scale": asdict(plan.scale),
        "rounds": plan.rounds,
        "servers": {},
    }
    flavours = [flavour for flavour in (FAST, SLOW) if server in (flavour.name, "both")]
    with _work_directory() as directory:
        try:
            for flavour in flavours:
                with serve(root, flavour, directory / flavour.name) as running:
                    console.print(f"{flavour.name} server: {running.software}")
                    about["servers"][flavour.name] = running.software
                    comparison = Comparison(plan, running, directory, results, console)
                    comparison.run()
        finally:
            for flavour in flavours:
                print_table(console, flavour.name, results, figures, columns)
            write_json(json_path, results, figures, columns, about)


@contextlib.contextmanager
def _work_directory() -> Iterator[Path]:
    """A temporary directory, which is not removed while something is mounted in it."""
    directory = Path(tempfile.mkdtemp(prefix="stsfs-bench-")).resolve()
    try:
        yield directory
    finally:
        left = [str(at.path) for at in mountinfo.mounts() if at.path.is_relative_to(directory)]
        if left:
            click.echo(f"Still mounted: {', '.join(left)}", err=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _choose_jobs(scale: Scale, names: list[str], formats: bool) -> list[Job]:
    jobs = [
        *data_jobs(scale), *disk_jobs(scale), *names_jobs(scale), *write_jobs(scale), formats_job()
    ]  # fmt: skip
    unknown = set(names) - {job.name for job in jobs}
    if unknown:
        raise click.UsageError(f"No such job: {', '.join(sorted(unknown))}. See --list.")
    if names:
        return [job for job in jobs if job.name in names]
    return [job for job in jobs if formats or not job.optional]


def _choose_systems(console: Console, names: str | None) -> list[System]:
    wanted = [peer.name for peer in PEERS] if names is None else _split(names)
    unknown = set(wanted) - {peer.name for peer in PEERS}
    if unknown:
        raise click.UsageError(f"No such peer: {', '.join(sorted(unknown))}.")
    chosen = [STSFS]
    for peer in PEERS:
        if peer.name in wanted and not peer.installed:
            console.print(f"{peer.name} is not installed: the comparison goes without it")
        elif peer.name in wanted:
            chosen.append(peer)
    return chosen


if __name__ == "__main__":
    main()
