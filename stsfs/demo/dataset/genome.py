"""The sequencing part of the demo data: aligned reads and variants that agree with each other.

A gene panel in small: targets of random sequence at human coordinates, variants in them, and read
pairs of two people drawn from the haplotypes that the variants give them.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pysam
from numpy.typing import NDArray

CONTIGS = {"chr1": 248_956_422, "chr2": 242_193_529, "chr20": 64_444_167}
"""Names and lengths in bases, as in GRCh38."""

REGION = "chr20:1-2000000"
"""Where facts are counted (1-based, both ends included); one target lies across its end."""

_REGION_CONTIG, _REGION_STOP = "chr20", 2_000_000

_TARGET_STARTS = [
    ("chr1", 1_000_000),
    ("chr1", 45_300_000),
    ("chr1", 155_200_000),
    ("chr2", 25_200_000),
    ("chr2", 178_500_000),
    ("chr20", 300_000),
    ("chr20", 1_400_000),
    ("chr20", 1_980_000),
    ("chr20", 32_400_000),
]
_TARGET_BASES = 40_000
_BASES_PER_VARIANT = 100
_READ_BASES = 150
_DEPTH = 30
_QUALITIES = np.array([11, 25, 37], dtype=np.uint8)  # the bins of current sequencers
_QUALITY_SHARES = [0.04, 0.10, 0.86]
_BASES = np.frombuffer(b"ACGT", dtype=np.uint8)

_PROPER_FORWARD_FIRST, _PROPER_REVERSE_SECOND = 99, 147
_PROPER_FORWARD_SECOND, _PROPER_REVERSE_FIRST = 163, 83


@dataclass(frozen=True, slots=True)
class Target:
    """A stretch of reference sequence, and the variants that a cohort has in it."""

    contig: str
    start: int
    """0-based position of the first base on the contig."""

    bases: NDArray[np.uint8]
    """The reference, one ASCII letter per base."""

    offsets: NDArray[np.int64]
    """Variants: distance from `start`, ascending."""

    alternates: NDArray[np.uint8]
    """The other letter at each of `offsets`."""

    genotypes: NDArray[np.int8]
    """Shape (variants, samples, 2): 1 where a haplotype has the other letter."""

    def haplotypes(self, sample: int) -> NDArray[np.uint8]:
        """The two sequences of one person, shape (2, bases)."""
        both = np.stack([self.bases, self.bases])
        for haplotype in (0, 1):
            carried = self.genotypes[:, sample, haplotype] == 1
            both[haplotype, self.offsets[carried]] = self.alternates[carried]
        return both


@dataclass(frozen=True, slots=True)
class Counted:
    """How many records a file has in all, and how many of them touch REGION."""

    total: int
    in_region: int


@dataclass(frozen=True, slots=True)
class _Reads:
    """The reads of one target, ordered by position; all arrays have one row per read."""

    pair: NDArray[np.int64]
    position: NDArray[np.int64]
    mate_position: NDArray[np.int64]
    template_bases: NDArray[np.int64]
    flag: NDArray[np.int64]
    letters: NDArray[np.uint8]
    qualities: NDArray[np.uint8]


def make_targets(rng: np.random.Generator, sample_count: int) -> list[Target]:
    """Invent the sequence of every target, and the genotypes of `sample_count` people."""
    return [_make_target(rng, contig, start, sample_count) for contig, start in _TARGET_STARTS]


def _make_target(rng: np.random.Generator, contig: str, start: int, sample_count: int) -> Target:
    letters = rng.integers(0, 4, _TARGET_BASES)
    variant_count = _TARGET_BASES // _BASES_PER_VARIANT
    offsets = np.sort(rng.choice(_TARGET_BASES, variant_count, replace=False))
    frequency = rng.beta(0.6, 1.8, variant_count)
    genotypes = rng.random((variant_count, sample_count, 2)) < frequency[:, None, None]
    alternates = (letters[offsets] + rng.integers(1, 4, variant_count)) % 4
    return Target(
        contig=contig,
        start=start,
        bases=_BASES[letters],
        offsets=offsets,
        alternates=_BASES[alternates],
        genotypes=genotypes.astype(np.int8),
    )


def write_alignments(
    path: Path, rng: np.random.Generator, targets: list[Target], sample: int, name: str
) -> Counted:
    """Write a coordinate-sorted BAM file of one person, and its `.bai` index beside it."""
    header = pysam.AlignmentHeader.from_dict(
        {
            "HD": {"VN": "1.6", "SO": "coordinate"},
            "SQ": [{"SN": contig, "LN": bases} for contig, bases in CONTIGS.items()],
            "RG": [{"ID": name, "SM": name, "PL": "ILLUMINA", "LB": "panel"}],
        }
    )
    total = in_region = 0
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for number, target in enumerate(targets):
            reads = _draw_reads(rng, target, sample)
            total += len(reads.position)
            if target.contig == _REGION_CONTIG:
                in_region += int(np.count_nonzero(reads.position < _REGION_STOP))
            for record in _records(header, target, reads, f"PANEL:1:{number}", name):
                file.write(record)
    pysam.index(str(path))
    return Counted(total, in_region)


def _draw_reads(rng: np.random.Generator, target: Target, sample: int) -> _Reads:
    pair_count = _DEPTH * _TARGET_BASES // (2 * _READ_BASES)
    insert = np.clip(rng.normal(350, 50, pair_count).astype(np.int64), _READ_BASES, 600)
    left = rng.integers(0, _TARGET_BASES - insert)
    right = left + insert - _READ_BASES
    left_is_first = rng.random(pair_count) < 0.5
    left_flag = np.where(left_is_first, _PROPER_FORWARD_FIRST, _PROPER_FORWARD_SECOND)
    right_flag = np.where(left_is_first, _PROPER_REVERSE_SECOND, _PROPER_REVERSE_FIRST)

    offset = np.concatenate([left, right])
    order = np.argsort(offset, kind="stable")
    offset = offset[order]
    pair = np.tile(np.arange(pair_count), 2)[order]
    haplotype = rng.integers(0, 2, pair_count)[pair]
    columns = offset[:, None] + np.arange(_READ_BASES)
    letters = target.haplotypes(sample)[haplotype[:, None], columns]
    misread = rng.random(letters.shape) < 0.002
    letters[misread] = _BASES[rng.integers(0, 4, np.count_nonzero(misread))]
    return _Reads(
        pair=pair,
        position=target.start + offset,
        mate_position=target.start + np.concatenate([right, left])[order],
        template_bases=np.concatenate([insert, -insert])[order],
        flag=np.concatenate([left_flag, right_flag])[order],
        letters=letters,
        qualities=_QUALITIES[rng.choice(3, letters.shape, p=_QUALITY_SHARES)],
    )


def _records(
    header: pysam.AlignmentHeader, target: Target, reads: _Reads, prefix: str, group: str
) -> Iterator[pysam.AlignedSegment]:
    """Yield one BAM record after the other; each is overwritten by the next."""
    record = pysam.AlignedSegment(header)
    record.reference_id = record.next_reference_id = header.get_tid(target.contig)
    record.mapping_quality = 60
    record.set_tag("RG", group)
    columns = zip(
        reads.pair.tolist(),
        reads.position.tolist(),
        reads.mate_position.tolist(),
        reads.template_bases.tolist(),
        reads.flag.tolist(),
        strict=True,
    )
    for row, (pair, position, mate_position, template_bases, flag) in enumerate(columns):
        record.query_name = f"{prefix}:{pair}"
        record.flag = flag
        record.reference_start = position
        record.next_reference_start = mate_position
        record.template_length = template_bases
        record.query_sequence = reads.letters[row].tobytes().decode("ascii")
        record.query_qualities = array("B", reads.qualities[row].tobytes())
        record.cigartuples = [(pysam.CMATCH, _READ_BASES)]
        yield record


def write_variants(
    path: Path, rng: np.random.Generator, targets: list[Target], samples: list[str]
) -> Counted:
    """Write the genotypes of all `samples` as bgzipped VCF to `path` (`….vcf.gz`), with `.tbi`."""
    plain = path.with_suffix("")
    total = in_region = 0
    with plain.open("w", encoding="ascii") as file:
        file.write(_vcf_header(samples))
        for target in targets:
            file.writelines(_vcf_lines(rng, target))
            total += len(target.offsets)
            if target.contig == _REGION_CONTIG:
                in_region += int(np.count_nonzero(target.start + target.offsets < _REGION_STOP))
    pysam.tabix_index(str(plain), preset="vcf", force=True)  # compresses, and removes `plain`
    return Counted(total, in_region)


def _vcf_header(samples: list[str]) -> str:
    lines = [
        "##fileformat=VCFv4.2",
        '##FILTER=<ID=PASS,Description="All filters passed">',
        *(f"##contig=<ID={contig},length={bases}>" for contig, bases in CONTIGS.items()),
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="Alternate alleles in genotypes">',
        '##INFO=<ID=AN,Number=1,Type=Integer,Description="Alleles in genotypes">',
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Read depth">',
        "\t".join(["#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT", *samples]),
    ]
    return "\n".join(lines) + "\n"


def _vcf_lines(rng: np.random.Generator, target: Target) -> Iterator[str]:
    depths = rng.poisson(_DEPTH, target.genotypes.shape[:2])
    qualities = rng.integers(200, 2000, len(target.offsets))
    for row, offset in enumerate(target.offsets.tolist()):
        genotypes = target.genotypes[row]
        fixed = [
            target.contig,
            str(target.start + offset + 1),
            ".",
            chr(target.bases[offset]),
            chr(target.alternates[row]),
            str(qualities[row]),
            "PASS",
            f"AC={int(genotypes.sum())};AN={genotypes.size}",
            "GT:DP",
        ]
        people = [
            f"{first}|{second}:{depth}"
            for (first, second), depth in zip(genotypes, depths[row], strict=True)
        ]
        yield "\t".join(fixed + people) + "\n"
