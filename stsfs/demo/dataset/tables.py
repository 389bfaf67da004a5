"""The tabular part of the demo data: sample sheet, expression matrix, single-cell counts."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

_GENE_COUNT = 5_000
_GENES_PER_ROW_GROUP = 500
_COUNTS_SHAPE = (4_000, 500)
_COUNTS_CHUNK = (250, 100)
_EMBEDDING_DIMENSIONS = 50


@dataclass(frozen=True, slots=True)
class Expression:
    """What is true of the expression table."""

    gene_count: int
    column: str
    column_mean: float


@dataclass(frozen=True, slots=True)
class CellCounts:
    """What is true of `/counts` in the HDF5 file."""

    shape: tuple[int, int]
    """Cells, genes."""

    total: int
    """Sum of all counts."""


def write_samples(path: Path, rng: np.random.Generator, samples: list[str]) -> float:
    """Write the sample sheet as CSV; return the mean of its column `age_years`."""
    count = len(samples)
    ages = rng.integers(18, 90, count)
    sheet = pd.DataFrame(
        {
            "sample": samples,
            "sex": rng.choice(["female", "male"], count),
            "age_years": ages,
            "batch": rng.integers(1, 5, count),
            "rna_integrity": rng.normal(8.2, 0.7, count).clip(1, 10).round(1),
            "tissue": rng.choice(["cortex", "hippocampus", "cerebellum"], count),
        }
    )
    sheet.to_csv(path, index=False, lineterminator="\n")
    return float(ages.mean())


def write_expression(path: Path, rng: np.random.Generator, samples: list[str]) -> Expression:
    """Write a Parquet table: one row per gene, one column of log2(TPM + 1) per sample.

    Several row groups, so that reading one column or a few genes takes many small ranges.
    """
    level = rng.gamma(2.0, 2.0, _GENE_COUNT)
    noise = rng.normal(0.0, 0.4, (_GENE_COUNT, len(samples)))
    values = np.maximum(level[:, None] + noise, 0.0).astype(np.float32)
    table = pd.DataFrame(values, columns=samples)
    table.insert(0, "gene", [f"ENSG{number:011d}" for number in range(_GENE_COUNT)])
    table.to_parquet(path, engine="pyarrow", index=False, row_group_size=_GENES_PER_ROW_GROUP)
    mean = float(values[:, 0].mean(dtype=np.float64))
    return Expression(gene_count=_GENE_COUNT, column=samples[0], column_mean=mean)


def write_counts(path: Path, rng: np.random.Generator) -> CellCounts:
    """Write an HDF5 file with chunked, compressed `/counts` and a plain `/embedding`."""
    rate = rng.gamma(0.3, 2.0, _COUNTS_SHAPE[1])
    counts = rng.poisson(rate, _COUNTS_SHAPE).astype(np.uint16)
    embedding = rng.normal(0.0, 1.0, (_COUNTS_SHAPE[0], _EMBEDDING_DIMENSIONS))
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "counts", data=counts, chunks=_COUNTS_CHUNK, compression="gzip", shuffle=True
        )
        dataset.attrs["unit"] = "reads"
        file.create_dataset("embedding", data=embedding.astype(np.float32))
    return CellCounts(shape=_COUNTS_SHAPE, total=int(counts.sum(dtype=np.int64)))
