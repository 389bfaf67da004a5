"""A small data set as a laboratory would have it, invented, and the same on every run.

Sequencing reads, variants, tables and arrays in the formats people open through a mount, together
with facts about them, so that the demo and the tests can tell whether a tool read them right.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stsfs.demo.dataset import genome as dataset_genome
from stsfs.demo.dataset import tables as dataset_tables

_SEED = 20
_SAMPLE_COUNT = 200
_GENOTYPED_COUNT = 20
_SEQUENCED = ["s1", "s2"]

_README = """\
# A cohort, in small

Invented data; any likeness to a person is chance.

| path | what it is |
|---|---|
| `cohort/s1.bam`, `cohort/s2.bam` | read pairs of two people over a gene panel, with `.bai` |
| `cohort/cohort.vcf.gz` | variants of twenty people in the same panel, with `.tbi` |
| `tables/samples.csv` | two hundred samples: sex, age, batch, tissue |
| `tables/expression.parquet` | log2(TPM + 1), one row per gene, one column per sample |
| `arrays/matrix.h5` | `/counts` (cells by genes) and `/embedding` (cells by dimensions) |
"""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of the data set."""

    path: str
    """Relative to the root, with `/`: also the end of its key in a bucket."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a tool that reads the files must find."""

    region: str
    """For `samtools view` and `bcftools view`."""

    reads: dict[str, int]
    """Records in the BAM file of each sequenced sample."""

    reads_in_region: dict[str, int]
    variants: int
    variants_in_region: int
    samples: int
    """Rows of the sample sheet."""

    mean_age_years: float
    expression: dataset_tables.Expression
    counts: dataset_tables.CellCounts


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where the data set lies, what it consists of, and what is true of it."""

    root: Path
    files: tuple[DataFile, ...]
    """Ordered by path."""

    facts: Facts

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


def build(root: Path) -> Dataset:
    """Write the data set below `root`, which must exist and be empty; takes a few seconds.

    Blocks: call it from a thread where a loop is running. Raises OSError as writing files does.
    """
    for folder in ("cohort", "tables", "arrays"):
        (root / folder).mkdir()
    (root / "README.md").write_text(_README, encoding="utf-8")
    facts = _write_files(root)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return Dataset(root=root, files=tuple(_describe(root, path) for path in paths), facts=facts)


def _write_files(root: Path) -> Facts:
    rng = np.random.default_rng(_SEED)
    samples = [f"s{number}" for number in range(1, _SAMPLE_COUNT + 1)]
    targets = dataset_genome.make_targets(rng, _GENOTYPED_COUNT)
    reads = {
        name: dataset_genome.write_alignments(
            root / "cohort" / f"{name}.bam", rng, targets, samples.index(name), name
        )
        for name in _SEQUENCED
    }
    variants = dataset_genome.write_variants(
        root / "cohort" / "cohort.vcf.gz", rng, targets, samples[:_GENOTYPED_COUNT]
    )
    return Facts(
        region=dataset_genome.REGION,
        reads={name: counted.total for name, counted in reads.items()},
        reads_in_region={name: counted.in_region for name, counted in reads.items()},
        variants=variants.total,
        variants_in_region=variants.in_region,
        samples=_SAMPLE_COUNT,
        mean_age_years=dataset_tables.write_samples(root / "tables/samples.csv", rng, samples),
        expression=dataset_tables.write_expression(
            root / "tables/expression.parquet", rng, samples
        ),
        counts=dataset_tables.write_counts(root / "arrays/matrix.h5", rng),
    )


def _describe(root: Path, path: Path) -> DataFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DataFile(path.relative_to(root).as_posix(), path.stat().st_size, digest)
