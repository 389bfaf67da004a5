"""What is available is the least of what the machine and each of our cgroups leave."""

import pytest

from stsfs.daemon import machine
from stsfs.daemon.machine import MIB, read_memory, share_bytes

MEMINFO = """\
MemTotal:        8000000 kB
MemFree:          200000 kB
MemAvailable:    4000000 kB
HugePages_Total:       0
"""
TOTAL, AVAILABLE = 8_000_000 * 1024, 4_000_000 * 1024


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    return tmp_path / "proc"


def make_cgroup(root, **files):
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("_", ".", 1)).write_text(f"{text}\n")


def join(proc, *lines):
    (proc / "self/cgroup").write_text("\n".join(lines) + "\n")


def test_without_limits_the_machine_decides(proc, tmp_path):
    found = read_memory(proc, tmp_path / "none")
    assert (found.total_bytes, found.available_bytes) == (TOTAL, AVAILABLE)
    assert found.machine_available_bytes == AVAILABLE


def test_a_limit_above_our_cgroup_counts_and_page_cache_is_not_counted_as_used(proc, tmp_path):
    root = tmp_path / "cgroup"
    join(proc, "0::/user.slice/job")
    make_cgroup(root / "user.slice/job", memory_max="max", memory_high="max")
    make_cgroup(
        root / "user.slice",
        memory_max=600 * MIB,
        memory_high=512 * MIB,
        memory_current=400 * MIB,
        memory_stat=f"anon 1\ninactive_file {100 * MIB}\nactive_file {50 * MIB}",
    )
    found = read_memory(proc, root)
    assert found.total_bytes == 512 * MIB
    assert found.available_bytes == (512 - 400 + 150) * MIB
    assert found.machine_available_bytes == AVAILABLE


def test_version_1_counts_too_and_its_largest_number_is_no_limit(proc, tmp_path):
    root = tmp_path / "cgroup"
    join(proc, "9:name=systemd:/", "4:cpu,memory:/box", "0::/")
    make_cgroup(root / "memory", memory_limit_in_bytes=9223372036854771712)
    assert read_memory(proc, root).total_bytes == TOTAL
    make_cgroup(
        root / "memory/box",
        memory_limit_in_bytes=256 * MIB,
        memory_usage_in_bytes=200 * MIB,
        memory_stat=f"total_inactive_file {MIB}\ntotal_active_file {MIB}\ninactive_file 7",
    )
    found = read_memory(proc, root)
    assert (found.total_bytes, found.available_bytes) == (256 * MIB, 58 * MIB)


def test_in_a_container_the_root_has_the_limits_although_its_path_is_another(proc, tmp_path):
    root = tmp_path / "cgroup"
    join(proc, "0::/docker/0123")
    make_cgroup(root, memory_max=128 * MIB, memory_current=200 * MIB)
    assert read_memory(proc, root).available_bytes == 0


def test_a_budget_is_a_share_within_sensible_limits():
    assert share_bytes(0) == 32 * MIB
    assert share_bytes(800 * MIB) == 100 * MIB
    assert share_bytes(1 << 40) == 1024 * MIB
    assert 32 * MIB <= machine.default_budget_bytes() <= 1024 * MIB


def test_the_pressure_of_the_root_cgroup_is_the_machines(proc, tmp_path):
    root = tmp_path / "cgroup"
    join(proc, "0::/")
    make_cgroup(root / "unified", memory_pressure="")
    assert machine.pressure_file(proc, root) is None
    make_cgroup(root / "unified", cgroup_type="domain")  # the root of a container
    assert machine.pressure_file(proc, root) == root / "unified/memory.pressure"
