"""Jobs with real tools, on the demo's data set made larger: `--formats`.

The column *raw* holds the same commands on the local files.
"""

import dataclasses
import importlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.measure import Figure, Job, RawTarget, Sample, Target
from tests.bench.objects import BUCKET, make_once
from tests.bench.scale import Scale

_TREE = "formats"
_BETWEEN_COPIES_BASES = 50_000
"""From one copy of a stretch of sequence to the next; a stretch has 40 000 bases."""

_REGIONS = 50
_SAMPLES_PER_COPY = 80


def make_formats(scale: Scale) -> Path:
    """A directory with the files, from the cache if they were made before."""
    copies = scale.format_copies
    return make_once(f"{scale.name}-formats", lambda root: _build(root, copies))


def link_formats(scale: Scale, root: Path) -> None:
    """Make the files objects of the bucket below `root`."""
    tree = root / BUCKET / _TREE
    if not tree.is_dir():
        made = tree.with_name(f".{_TREE}")
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(make_formats(scale), made)
        made.rename(tree)


def _build(root: Path, copies: int) -> None:
    import numpy as np

    from stsfs.demo.dataset import genome as dataset_genome
    from stsfs.demo.dataset import tables as dataset_tables

    rng = np.random.default_rng(1)
    people = [f"s{number}" for number in range(1, 21)]
    targets = [
        dataclasses.replace(target, start=target.start + copy * _BETWEEN_COPIES_BASES)
        for target in dataset_genome.make_targets(rng, len(people))
        for copy in range(copies)
    ]
    order = list(dataset_genome.CONTIGS)
    targets.sort(key=lambda target: (order.index(target.contig), target.start))
    separate = [targets[0]]
    for target in targets[1:]:
        last = separate[-1]
        if target.contig != last.contig or target.start >= last.start + _BETWEEN_COPIES_BASES:
            separate.append(target)
    dataset_genome.write_alignments(root / "s1.bam", rng, separate, 0, "s1")
    dataset_genome.write_variants(root / "cohort.vcf.gz", rng, separate, people)
    samples = [f"s{number}" for number in range(_SAMPLES_PER_COPY * copies)]
    dataset_tables.write_expression(root / "expression.parquet", rng, samples)
    _write_counts(root / "matrix.h5", copies)


def _write_counts(path: Path, copies: int) -> None:
    """The demo's matrix of counts, stacked. Not compressed: what is measured is reading."""
    import h5py
    import numpy as np

    rng = np.random.default_rng(2)
    with h5py.File(path, "w") as file:
        cells, genes = 4_000, 500
        counts = file.create_dataset(
            "counts", (cells * copies, genes * 2), dtype="u2", chunks=(250, 100)
        )
        for copy in range(copies):
            counts[copy * cells : (copy + 1) * cells] = rng.poisson(1.5, (cells, genes * 2))


def _program(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _bam_region(directory: Path) -> None:
    _program("samtools", "view", "-c", str(directory / "s1.bam"), "chr20:1-2000000")


def _bam_regions(directory: Path) -> None:
    regions = [
        f"{contig}:{start + step * 1000}-{start + step * 1000 + 200}"
        for step in range(_REGIONS // 5)
        for contig, start in (
            ("chr1", 1_000_000), ("chr1", 45_300_000), ("chr2", 25_200_000),
            ("chr2", 178_500_000), ("chr20", 32_400_000),
        )
    ]  # fmt: skip
    _program("samtools", "view", "-c", str(directory / "s1.bam"), *regions)


def _bam_whole(directory: Path) -> None:
    _program("samtools", "view", "-c", str(directory / "s1.bam"))


def _vcf_region(directory: Path) -> None:
    _program("bcftools", "view", "-H", str(directory / "cohort.vcf.gz"), "chr20:1-2000000")


def _vcf_whole(directory: Path) -> None:
    _program("bcftools", "view", "-H", str(directory / "cohort.vcf.gz"))


def _parquet_columns(directory: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(directory / "expression.parquet", columns=["gene", "s1", "s17"])
    assert table.num_columns == 3


def _parquet_scan(directory: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(directory / "expression.parquet") as file:
        rows = sum(file.read_row_group(n).num_rows for n in range(file.num_row_groups))
    assert rows == 5_000


def _h5_slab(directory: Path) -> None:
    import h5py

    with h5py.File(directory / "matrix.h5") as file:
        counts = file["counts"]
        assert counts[:, 100:200].any()


def _h5_whole(directory: Path) -> None:
    import h5py

    with h5py.File(directory / "matrix.h5") as file:
        assert file["counts"][...].any()


_TOOLS: list[tuple[str, str, str, Callable[[Path], None]]] = [
    ("bam_region", "samtools view, a region", "samtools", _bam_region),
    ("bam_regions", f"samtools view, {_REGIONS} regions", "samtools", _bam_regions),
    ("bam_whole", "samtools view, whole BAM", "samtools", _bam_whole),
    ("vcf_region", "bcftools view, a region", "bcftools", _vcf_region),
    ("vcf_whole", "bcftools view, whole VCF", "bcftools", _vcf_whole),
    ("parquet_columns", "pyarrow, three columns", "", _parquet_columns),
    ("parquet_scan", "pyarrow, whole table", "", _parquet_scan),
    ("h5_slab", "h5py, a column of chunks", "", _h5_slab),
    ("h5_whole", "h5py, whole matrix", "", _h5_whole),
]
"""Figure, title, program it needs (none: a library), work."""


def _present() -> list[tuple[str, str, Callable[[Path], None]]]:
    return [
        (key, title, work)
        for key, title, program, work in _TOOLS
        if not program or shutil.which(program)
    ]


def _import_libraries() -> None:
    """Importing is not to be measured."""
    for module in ("h5py", "pyarrow.parquet"):
        importlib.import_module(module)


def _run(target: Target) -> Iterator[Sample]:
    _import_libraries()
    for key, _, work in _present():
        with target.meter.measure() as reading:
            work(target.root / _TREE)
        yield reading.sample(f"formats.{key}", reading.elapsed_s)


def _local(target: RawTarget) -> Iterator[Sample]:
    _import_libraries()
    directory = target.server.root / BUCKET / _TREE
    for key, _, work in _present():
        begun_s = time.perf_counter()
        work(directory)
        yield Sample(f"formats.{key}", time.perf_counter() - begun_s)


def formats_job() -> Job:
    """One mount, all tools one after the other; what one has read helps the next."""
    figures = tuple(
        Figure(f"formats.{key}", title, "s", more_is_better=False) for key, title, _ in _present()
    )
    return Job("formats", figures, _run, _local, trees=(_TREE,), optional=True)
