"""Real tools on the demonstration data: through the mount they find what they find locally."""

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from stsfs.demo.dataset.dataset import build
from tests.mount.entity_folder import new_folder

pytestmark = pytest.mark.mount
VIEWS = ("keys", "entities")


@pytest.fixture(scope="module")
def folder(servers, view):
    return new_folder(servers, view)


@pytest.fixture(scope="module")
def dataset(folder):
    built = build(folder.path)
    folder.adopt()
    return built


@pytest.fixture(scope="module")
def live(folder, dataset, module_mount):
    return module_mount(folder.syn_id)


@pytest.fixture
def same(dataset, live):
    """Run a command in the local copy and in the mount; returns what both printed."""

    def run(*command):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        local, mounted = (
            subprocess.run(command, cwd=root, capture_output=True, check=False)
            for root in (dataset.root, live.path)
        )
        assert (local.returncode, local.stderr) == (0, b"")
        assert (mounted.returncode, mounted.stderr) == (0, b"")
        assert mounted.stdout == local.stdout
        return mounted.stdout.decode()

    return run


def python(script):
    """A command that reads with a Python library, in a process of its own."""
    return sys.executable, "-c", script


def lines(text):
    return len(text.splitlines())


@pytest.mark.parametrize("sample", ["s1", "s2"])
def test_samtools_reads_a_region_by_its_index(same, dataset, sample):
    shown = same("samtools", "view", f"cohort/{sample}.bam", dataset.facts.region)
    assert lines(shown) == dataset.facts.reads_in_region[sample]


def test_samtools_reads_a_whole_file(same, dataset):
    assert int(same("samtools", "view", "-c", "cohort/s1.bam")) == dataset.facts.reads["s1"]
    same("samtools", "quickcheck", "-v", "cohort/s1.bam", "cohort/s2.bam")
    same("samtools", "flagstat", "cohort/s1.bam")
    same("samtools", "idxstats", "cohort/s2.bam")


def test_bcftools_reads_a_region_and_the_whole(same, dataset):
    shown = same("bcftools", "view", "-H", "cohort/cohort.vcf.gz", dataset.facts.region)
    assert lines(shown) == dataset.facts.variants_in_region
    assert lines(same("bcftools", "view", "-H", "cohort/cohort.vcf.gz")) == dataset.facts.variants


def test_pandas_reads_csv(same, dataset):
    mean = same(
        *python("import pandas; print(pandas.read_csv('tables/samples.csv').age_years.mean())")
    )
    assert float(mean) == pytest.approx(dataset.facts.mean_age_years)


def test_pyarrow_reads_one_column_of_parquet(same, dataset):
    facts = dataset.facts.expression
    shown = same(
        *python(
            "import pyarrow.parquet as p;"
            f"t = p.read_table('tables/expression.parquet', columns=[{facts.column!r}]);"
            f"print(t.num_rows, t[{facts.column!r}].to_numpy().mean())"
        )
    )
    rows, mean = shown.split()
    assert int(rows) == facts.gene_count
    assert float(mean) == pytest.approx(facts.column_mean, rel=1e-5)


def test_pyarrow_maps_parquet_into_memory(same):
    same(
        *python(
            "import pyarrow.parquet as p;"
            "t = p.read_table('tables/expression.parquet', memory_map=True);"
            "print(t.num_rows, t.num_columns, hash(t.to_pandas().iloc[:, 1:].sum().sum()))"
        )
    )


def test_h5py_reads_chunks_and_the_whole(same, dataset):
    shown = same(
        *python(
            "import h5py; f = h5py.File('arrays/matrix.h5', 'r'); c = f['counts'];"
            "print(*c.shape, c[:].sum(), c[17, 100:200].sum(), f['embedding'][::100].sum())"
        )
    )
    rows, columns, total, *_ = shown.split()
    facts = dataset.facts.counts
    assert ((int(rows), int(columns)), int(total)) == (facts.shape, facts.total)


def test_sha256sum_agrees_with_the_data_set(same, dataset):
    shown = same("sha256sum", *(file.path for file in dataset.files))
    assert shown.split()[::2] == [file.sha256 for file in dataset.files]


@pytest.mark.parametrize(
    "command",
    [
        "find . -type f -printf '%P %s %y\\n' | LC_ALL=C sort",
        "find . -mindepth 1 -type d -printf '%P\\n' | LC_ALL=C sort",
        "find . -type f -newermt 2001-01-01 -size +100k | LC_ALL=C sort",
        "grep -r batch . | LC_ALL=C sort",
        "grep -rc s17 tables/samples.csv",
        "head -c 1000 arrays/matrix.h5 | sha256sum",
        "tail -c 1000 arrays/matrix.h5 | sha256sum",
        "head -n 3 tables/samples.csv",
        "wc -lc tables/samples.csv README.md",
        "dd if=cohort/s1.bam bs=4097 skip=3 count=20 status=none | sha256sum",
        "dd if=cohort/s1.bam bs=1M iflag=direct status=none | sha256sum",
        "ls -R",
        "stat -c '%n %s %F' cohort/*",
        "du -b --apparent-size cohort/*",
        "zcat cohort/cohort.vcf.gz | md5sum",
    ],
)
def test_shell_tools_print_the_same(same, command):
    same("bash", "-c", f"set -o pipefail; {command}")


def test_du_counts_the_blocks_of_files(live, dataset):
    """ "st_blocks from the size": du tells what the objects take."""
    used = subprocess.run(["du", "-s", "-B512", live.path], capture_output=True, check=True).stdout
    assert int(used.split()[0]) == sum(-(-file.size_bytes // 512) for file in dataset.files)


def same_trees(copy, dataset):
    for file in dataset.files:
        path = copy / file.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        assert int(path.stat().st_mtime) == int((dataset.root / file.path).stat().st_mtime)
    found = {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()}
    assert found == {file.path for file in dataset.files}


@pytest.mark.parametrize(
    "command",
    [["rsync", "-a", "{}/"], ["cp", "-a", "{}/."], ["cp", "-r", "--preserve=timestamps", "{}/."]],
    ids=lambda command: " ".join(command[:2]),
)
def test_copies_are_complete_with_their_times(live, dataset, tmp_path, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    copy = tmp_path / "copy"
    copy.mkdir()
    filled = [part.format(live.path) for part in command]
    done = subprocess.run([*filled, copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    same_trees(copy, dataset)
    if command[0] == "rsync":
        again = [*filled[:2], "--itemize-changes", *filled[2:], copy]
        assert subprocess.run(again, capture_output=True, check=True).stdout == b""
    make_removable(copy)


def test_tar_packs_everything(live, dataset, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    subprocess.run(
        f'set -o pipefail; tar -C "{live.path}" -cf - . | tar -C "{copy}" -xf -',
        shell=True,
        executable="bash",
        check=True,
    )
    same_trees(copy, dataset)
    make_removable(copy)


def make_removable(copy):
    """Copies have the modes of the mount, whose directories nobody may write to."""
    for directory, _, _ in os.walk(copy):
        os.chmod(directory, 0o755)


def test_git_diff_finds_no_difference(live, dataset):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    command = ["git", "diff", "--no-index", "--stat", str(dataset.root), str(live.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
