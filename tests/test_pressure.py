"""Memory pressure shrinks the cache at once, and calm lets it grow back slowly."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from stsfs.cache.block_pool import BlockPool
from stsfs.daemon import psi
from stsfs.daemon.machine import MIB, Memory
from stsfs.daemon.pressure import (
    CALM_S,
    FLOOR_BYTES,
    GROW_S,
    Governor,
    PressureWatch,
    Signs,
    shortage,
)

# Recorded while eight processes read a file larger than the limit of their cgroup, and before.
CALM = """\
some avg10=0.63 avg60=0.75 avg300=0.21 total=755224
full avg10=0.54 avg60=0.62 avg300=0.17 total=664344
"""
FIGHT = """\
some avg10=47.93 avg60=12.30 avg300=2.78 total=9925893
full avg10=29.25 avg60=7.43 avg300=1.68 total=5960877
"""
GIB = 1024 * MIB
AMPLE = Memory(8 * GIB, 6 * GIB, 8 * GIB, 6 * GIB)
TIGHT = Memory(8 * GIB, 6 * GIB, 512 * MIB, 20 * MIB)


def signs(memory=AMPLE, used_bytes=512 * MIB, machine_stalled=0.0, cgroup_stalled=0.0):
    return Signs(memory, used_bytes, machine_stalled, cgroup_stalled)


def test_stall_is_read_from_the_kernels_text():
    assert psi.stalled_percent(CALM) == 0.63
    assert psi.stalled_percent(FIGHT) == 47.93
    assert psi.stalled_percent("") == 0.0


def test_memory_is_short_when_little_is_left_or_tasks_wait():
    assert shortage(signs()) is None
    assert shortage(signs(TIGHT)) == "only 20 MiB of memory were left"
    assert "cgroup" in shortage(signs(cgroup_stalled=47.93))


def test_tasks_of_other_cgroups_that_wait_for_their_own_limits_are_not_our_concern():
    assert shortage(signs(machine_stalled=47.93)) is None
    full = replace(AMPLE, machine_available_bytes=GIB, available_bytes=GIB)
    assert "machine" in shortage(signs(full, machine_stalled=47.93))


def test_a_shortage_halves_what_is_in_use_down_to_a_floor_with_time_to_show():
    governor = Governor(GIB, fixed_bytes=GIB)
    assert governor.look(signs(TIGHT, used_bytes=512 * MIB), 0) == 256 * MIB
    assert governor.look(signs(TIGHT, used_bytes=512 * MIB), 1) == 256 * MIB
    assert governor.look(signs(TIGHT, used_bytes=256 * MIB), 2) == 128 * MIB
    assert governor.why == "only 20 MiB of memory were left"
    for now_s in range(4, 20, 2):
        governor.look(signs(TIGHT, used_bytes=0), now_s)
    assert governor.budget_bytes == FLOOR_BYTES
    assert governor.full_bytes == GIB
    assert governor.shrunk == 3


def test_calm_lets_it_grow_back_slowly_and_then_nothing_is_said_any_more():
    governor = Governor(GIB, fixed_bytes=GIB)
    governor.look(signs(TIGHT, used_bytes=512 * MIB), 0)
    assert governor.look(signs(), CALM_S - 1) == 256 * MIB
    grown = [governor.look(signs(), CALM_S + n * GROW_S / 2) for n in range(14)]
    assert grown == sorted(grown)
    assert grown[:4] == [384 * MIB, 384 * MIB, 512 * MIB, 512 * MIB]
    assert grown[-1] == GIB
    assert governor.why is None


def test_it_does_not_grow_into_the_next_shortage():
    governor = Governor(GIB, fixed_bytes=GIB)
    governor.look(signs(TIGHT, used_bytes=512 * MIB), 0)
    scarce = Memory(8 * GIB, 6 * GIB, 512 * MIB, 100 * MIB)
    assert shortage(signs(scarce)) is None
    assert governor.look(signs(scarce), 1000) == 256 * MIB


def test_without_an_option_the_budget_follows_what_is_available():
    governor = Governor(GIB, fixed_bytes=None)
    less = replace(AMPLE, available_bytes=2 * GIB)
    assert governor.look(signs(less, used_bytes=0), 0) == 256 * MIB
    assert (governor.full_bytes, governor.why) == (256 * MIB, None)
    nearly = replace(AMPLE, available_bytes=2 * GIB - 200 * MIB)
    assert governor.look(signs(nearly, used_bytes=0), 100) == 256 * MIB, "not at every trifle"
    times = range(200, 400, 10)
    assert [governor.look(signs(AMPLE, used_bytes=0), now_s) for now_s in times][-1] == 768 * MIB


def test_with_an_option_only_a_shortage_makes_it_less():
    governor = Governor(GIB, fixed_bytes=GIB)
    assert governor.look(signs(replace(AMPLE, available_bytes=GIB), used_bytes=0), 0) == GIB


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "proc/pressure").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 1048576 kB\n")
    (tmp_path / "proc/pressure/memory").write_text(CALM)
    return tmp_path / "proc"


async def test_the_pool_is_resized_while_there_is_pressure_and_status_says_why(
    proc, tmp_path, nursery, autojump_clock
):
    pool = BlockPool(budget_bytes=64 * MIB, block_bytes=MIB)
    pool.give_back(pool.take_nowait(40))
    watch = PressureWatch(pool, fixed_bytes=64 * MIB, proc=proc, cgroups=tmp_path / "none")
    await nursery.start(watch.run)
    await trio.sleep(62)
    assert watch.status() == {
        "budget_bytes": 64 * MIB,
        "full_budget_bytes": 64 * MIB,
        "shrunk": 0,
        "shrunk_because": None,
    }
    (proc / "pressure/memory").write_text(FIGHT)
    await trio.sleep(5)
    assert watch.status()["shrunk_because"] == "tasks of this machine waited for memory"
    assert pool.budget_bytes == pool.used_bytes == 20 * MIB
    (proc / "pressure/memory").write_text(CALM)
    await trio.sleep(200)
    assert pool.budget_bytes == 64 * MIB
    assert watch.status()["shrunk_because"] is None


async def test_what_waits_to_be_written_gives_way_as_far_as_it_must(proc, tmp_path):
    pool = BlockPool(budget_bytes=64 * MIB, block_bytes=MIB)
    waiting = pool.take_nowait(40)

    def give_way():
        if waiting:
            waiting.pop().unpin()
        return bool(waiting)

    watch = PressureWatch(
        pool, fixed_bytes=64 * MIB, give_way=give_way, proc=proc, cgroups=tmp_path / "none"
    )
    watch.look({proc / "pressure/memory"})
    assert pool.used_bytes == pool.budget_bytes == 20 * MIB
    assert len(waiting) == 20, "no more than that"


async def test_a_trigger_is_heard_at_once_and_ahead_of_the_averages(
    proc, tmp_path, nursery, monkeypatch
):
    pool = BlockPool(budget_bytes=64 * MIB, block_bytes=MIB)
    pool.give_back(pool.take_nowait(40))
    watch = PressureWatch(pool, fixed_bytes=64 * MIB, proc=proc, cgroups=tmp_path / "none")
    resized = trio.Event()
    monkeypatch.setattr(pool, "resize", lambda budget_bytes: resized.set())
    # Out-of-band data has the same event as a trigger.
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as kernel,
    ):
        trigger = psi.Trigger(listener.accept()[0].detach())
        monkeypatch.setattr(psi, "open_trigger", lambda path: trigger)
        await nursery.start(watch.run)
        kernel.send(b"!", socket.MSG_OOB)
        with trio.fail_after(120):
            await resized.wait()
        nursery.cancel_scope.cancel()
    assert watch.governor.budget_bytes == 20 * MIB


async def test_what_can_report_no_more_is_not_listened_to(autojump_clock):
    read_end, write_end = os.pipe()
    trigger = psi.Trigger(read_end)
    os.close(write_end)
    with trio.move_on_after(1) as scope:
        await trigger.wait()
    assert scope.cancelled_caught
    trigger.close()


def test_the_kernel_takes_our_trigger_where_it_keeps_pressure_at_all():
    if not os.access("/proc/pressure/memory", os.W_OK):
        pytest.skip("this kernel keeps no pressure stall information, or not for us")
    trigger = psi.open_trigger(Path("/proc/pressure/memory"))
    if trigger is None and os.getuid():
        pytest.skip("before Linux 6.5 only root may set triggers")
    trigger.close()


def test_where_the_kernel_gives_no_trigger_none_is_had(tmp_path):
    assert psi.open_trigger(tmp_path / "none") is None
    assert psi.read_stalled_percent(tmp_path / "none") == 0.0


class Names:
    """Take what they may, or less."""

    def __init__(self):
        self.names_bytes, self.limit_bytes = 0, None

    def limit_names(self, limit_bytes):
        self.limit_bytes = limit_bytes
        self.names_bytes = min(self.names_bytes, limit_bytes)


async def test_names_and_blocks_share_one_budget(proc, tmp_path):
    pool, names = BlockPool(budget_bytes=64 * MIB, block_bytes=MIB), Names()
    watch = PressureWatch(
        pool, fixed_bytes=64 * MIB, names=names, proc=proc, cgroups=tmp_path / "none"
    )
    assert names.limit_bytes == watch.names_limit_bytes == 32 * MIB
    for names_bytes in (0, 5 * MIB, 32 * MIB, 31 * MIB + 4711, 100):
        names.names_bytes = names_bytes
        watch.share()
        assert pool.budget_bytes == 64 * MIB - names_bytes // MIB * MIB


async def test_under_pressure_names_give_way_as_blocks_do(proc, tmp_path, nursery, autojump_clock):
    pool, names = BlockPool(budget_bytes=64 * MIB, block_bytes=MIB), Names()
    pool.give_back(pool.take_nowait(20))
    watch = PressureWatch(
        pool, fixed_bytes=64 * MIB, names=names, proc=proc, cgroups=tmp_path / "none"
    )
    names.names_bytes = 32 * MIB
    await nursery.start(watch.run)
    await trio.sleep(1)  # until it has asked for triggers, which writes to the file
    (proc / "pressure/memory").write_text(FIGHT)
    await trio.sleep(60)
    assert names.limit_bytes == watch.names_limit_bytes == 8 * MIB
    assert names.names_bytes + pool.budget_bytes == watch.governor.budget_bytes == 16 * MIB
