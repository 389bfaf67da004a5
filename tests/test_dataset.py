"""The demo data is what its facts say, to the tools that people use."""

import csv
import hashlib
import shutil
import subprocess

import h5py
import pyarrow.parquet
import pysam
import pytest

from stsfs.demo.dataset import dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset.build(tmp_path_factory.mktemp("dataset"))


def run(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    result = subprocess.run([str(word) for word in command], check=True, capture_output=True)
    assert result.stderr == b""
    return result.stdout.decode()


def count_rows(text):
    return len(text.splitlines())


def test_the_files_are_those_on_disk_and_amount_to_10_to_20_megabytes(data):
    on_disk = {path.relative_to(data.root).as_posix() for path in data.root.rglob("*.*")}
    assert {file.path for file in data.files} == on_disk
    for file in data.files:
        content = (data.root / file.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size_bytes, file.sha256)
    assert 10e6 < data.size_bytes < 20e6


def test_the_same_bytes_are_built_every_time(data, tmp_path):
    again = dataset.build(tmp_path)
    assert (again.files, again.facts) == (data.files, data.facts)


def test_a_folder_that_holds_data_already_is_left_alone(data):
    with pytest.raises(FileExistsError):
        dataset.build(data.root)


@pytest.mark.parametrize("sample", ["s1", "s2"])
def test_samtools_finds_the_reads(data, sample):
    bam = data.root / f"cohort/{sample}.bam"
    facts = data.facts
    assert int(run("samtools", "view", "-c", bam)) == facts.reads[sample]
    assert int(run("samtools", "view", "-c", bam, facts.region)) == facts.reads_in_region[sample]
    assert 0 < facts.reads_in_region[sample] < facts.reads[sample]
    assert run("samtools", "quickcheck", "-v", bam) == ""


def test_the_region_ends_inside_the_reads(data):
    with pysam.AlignmentFile(data.root / "cohort/s1.bam") as file:
        assert file.header["HD"]["SO"] == "coordinate"
        assert {contig.contig for contig in file.get_index_statistics() if contig.total > 0} == {
            "chr1",
            "chr2",
            "chr20",
        }
        assert any(True for _ in file.fetch("chr20", 1_999_999, 2_000_000))


def test_bcftools_finds_the_variants(data):
    vcf = data.root / "cohort/cohort.vcf.gz"
    facts = data.facts
    assert count_rows(run("bcftools", "view", "-H", vcf)) == facts.variants
    assert count_rows(run("bcftools", "view", "-H", vcf, facts.region)) == facts.variants_in_region
    assert count_rows(run("tabix", vcf, facts.region)) == facts.variants_in_region
    assert 0 < facts.variants_in_region < facts.variants


def test_the_reads_show_the_genotypes(data):
    with (
        pysam.VariantFile(str(data.root / "cohort/cohort.vcf.gz")) as variants,
        pysam.AlignmentFile(str(data.root / "cohort/s1.bam")) as reads,
    ):
        record = next(
            record
            for record in variants.fetch("chr1", 1_001_000)
            if record.samples["s1"]["GT"] == (1, 1)
        )
        columns = reads.pileup(
            record.contig, record.start, record.stop, truncate=True, min_base_quality=0
        )
        letters = "".join(next(iter(columns)).get_query_sequences()).upper()
    assert letters.count(record.alts[0]) > 0.9 * len(letters)


def test_the_sample_sheet_has_its_mean_age(data):
    with (data.root / "tables/samples.csv").open(newline="") as file:
        ages = [int(row["age_years"]) for row in csv.DictReader(file)]
    assert len(ages) == data.facts.samples
    assert sum(ages) / len(ages) == pytest.approx(data.facts.mean_age_years)


def test_one_column_of_the_expression_table_has_its_mean(data):
    facts = data.facts.expression
    file = pyarrow.parquet.ParquetFile(data.root / "tables/expression.parquet")
    assert file.num_row_groups > 1
    column = file.read(columns=[facts.column])[facts.column].to_pylist()
    assert len(column) == facts.gene_count
    assert sum(column) / len(column) == pytest.approx(facts.column_mean)


def test_the_chunked_counts_have_their_sum(data):
    facts = data.facts.counts
    with h5py.File(data.root / "arrays/matrix.h5") as file:
        counts = file["counts"]
        assert counts.chunks is not None
        assert counts.shape == facts.shape
        assert int(counts[:].sum(dtype="int64")) == facts.total
        assert file["embedding"].shape[0] == facts.shape[0]
