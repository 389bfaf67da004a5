"""From samples to medians and ratios, to a table and to JSON. Ratios are made within a round."""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.measure import Figure, Sample

RAW, OURS = "raw", "stsfs"


@dataclass(frozen=True, slots=True)
class Measured:
    """A sample, and where it belongs."""

    server: str
    round: int
    system: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that a system did not do."""

    server: str
    round: int
    system: str
    job: str
    reason: str


@dataclass(slots=True)
class Results:
    """Everything measured, without the warm-up round."""

    measured: list[Measured] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def values(self, server: str, system: str, figure: str) -> dict[int, Sample]:
        """The samples of a figure, by round."""
        return {
            at.round: at.sample
            for at in self.measured
            if (at.server, at.system, at.sample.figure) == (server, system, figure)
        }

    def median(self, server: str, system: str, figure: str) -> Sample | None:
        """The sample with the median value (the lower one of two), with the costs it had."""
        samples = list(self.values(server, system, figure).values())
        if not samples:
            return None
        value = statistics.median_low([sample.value for sample in samples])
        return next(sample for sample in samples if sample.value == value)

    def ratio(self, server: str, system: str, figure: Figure) -> float | None:
        """How many times as good stsfs is as another system: median over the rounds."""
        if not figure.comparable:
            return None
        ours = self.values(server, OURS, figure.key)
        theirs = self.values(server, system, figure.key)
        ratios = []
        for number in ours.keys() & theirs.keys():
            pair = [ours[number].value, theirs[number].value]
            if not figure.more_is_better:
                pair.reverse()
            if pair[1]:
                ratios.append(pair[0] / pair[1])
        return statistics.median(ratios) if ratios else None


def machine() -> dict[str, Any]:
    """Where this was measured."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_bytes,
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def write_json(
    path: Path,
    results: Results,
    figures: Sequence[Figure],
    systems: Sequence[str],
    about: dict[str, Any],
) -> None:
    """All samples, and the medians and ratios made from them."""
    servers = list(dict.fromkeys(at.server for at in results.measured))
    document = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **about,
        "figures": [asdict(figure) for figure in figures],
        "medians": {
            server: {
                figure.key: {
                    system: sample.value
                    for system in systems
                    if (sample := results.median(server, system, figure.key)) is not None
                }
                for figure in figures
            }
            for server in servers
        },
        "times_as_good": {
            server: {
                figure.key: {
                    system: ratio
                    for system in systems
                    if system != OURS
                    and (ratio := results.ratio(server, system, figure)) is not None
                }
                for figure in figures
            }
            for server in servers
        },
        "failures": [asdict(failure) for failure in results.failures],
        "samples": [asdict(at) for at in results.measured],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def print_table(
    console: Console,
    server: str,
    results: Results,
    figures: Iterable[Figure],
    systems: Sequence[str],
) -> None:
    """One server's medians; in brackets CPU seconds and peak resident memory of the daemon."""
    peers = [system for system in systems if system not in (RAW, OURS)]
    table = Table(title=f"{server} server", title_justify="left", title_style="bold")
    table.add_column("", overflow="fold")
    for system in systems:
        table.add_column(system, justify="right")
    if OURS in systems and peers:
        table.add_column("times as good\nas the best peer", justify="right")
    for figure in figures:
        samples = [results.median(server, system, figure.key) for system in systems]
        if not any(samples):
            continue
        title = f"{figure.title}, {figure.unit}" if figure.unit else figure.title
        if figure.aim_at_most is not None:
            title += f" (aim: at most {figure.aim_at_most:g})"
        ratios = [
            ratio for peer in peers if (ratio := results.ratio(server, peer, figure)) is not None
        ]
        row: list[str | Text] = [title, *map(_cell, samples)]
        if OURS in systems and peers:
            row.append(_number(min(ratios)) if ratios else "")
        table.add_row(*row)
    console.print(table)
    for figure in missed_aims(server, results, figures):
        console.print(Text(f"missed: {figure.title.strip()}", style="bold red"))
    for failure in results.failures:
        if failure.server == server:
            console.print(Text(f"{failure.job}: {failure.system} failed: {failure.reason}"))


def missed_aims(server: str, results: Results, figures: Iterable[Figure]) -> list[Figure]:
    """Figures in which stsfs is not as good as it shall be."""
    return [
        figure
        for figure in figures
        if figure.aim_at_most is not None
        and (ours := results.median(server, OURS, figure.key)) is not None
        and ours.value > figure.aim_at_most
    ]


def _cell(sample: Sample | None) -> Text:
    if sample is None:
        return Text("-")
    cell = Text(_number(sample.value))
    costs = []
    if sample.cpu_s is not None:
        costs.append(f"{sample.cpu_s:.1f} s")
    if sample.rss_peak_bytes is not None:
        costs.append(f"{sample.rss_peak_bytes / 1024**2:.0f} M")
    if costs:
        cell.append(f" ({', '.join(costs)})", style="dim")
    return cell


def _number(value: float) -> str:
    """Three digits are more than such figures are good for."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
