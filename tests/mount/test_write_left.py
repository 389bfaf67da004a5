"""What has not reached S3 when a mount ends, or fails to reach it: waited for, told, recovered."""

import errno
import os
import signal

import pytest

from tests.mount.crash_stage import (
    RW,
    at_once,
    explained,
    kill,
    left_in,
    listed,
    objects,
    put_all,
    recover,
    refused,
    unmounted,
    wait_until,
    write,
)
from tests.mount.stage import PATIENCE_S

pytestmark = pytest.mark.mount

NOT_REACHED = "has not reached S3|S3 answered 400|is still not in S3"


@pytest.fixture
def live(folder, mount):
    """Its requests wait half a minute for an answer: longer than any test holds one."""
    return mount(folder.syn_id, *RW)


@pytest.fixture
def busy(stage, live):
    """A file that release publishes, which nobody waits for; held before S3 has it."""
    descriptor = os.open(live / "f", os.O_WRONLY | os.O_CREAT, 0o644)
    put_all(descriptor, b"first")
    os.close(os.dup(descriptor))
    put_all(descriptor, b", second")
    held = stage.gate.faults.hold("request", kinds=["PUT"])
    os.close(descriptor)  # is shared: the disk has it
    held.wait_reached(PATIENCE_S)
    yield held
    held.let_go()


WHOLE = {"f": b"first, second"}


def test_unmount_waits_until_s3_has_what_was_written(host, folder, live, busy):
    with at_once([(host.stsfs, "unmount", live.path)]) as unmounting:
        wait_until(lambda: not live.is_mounted())
        busy.let_go()
        done = unmounting[0].result()
    assert done.returncode == 0, done.stderr
    live.wait_for_end()
    assert objects(folder) == WHOLE
    assert left_in(host) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_mount_when_s3_has_what_was_written(host, folder, live, busy, number):
    live.signal(number)
    wait_until(lambda: not live.is_mounted())
    busy.let_go()
    live.wait_for_end()
    assert objects(folder) == WHOLE
    assert left_in(host) == {}


def test_a_lazy_unmount_says_what_is_still_on_its_way(host, folder, live, busy):
    done = live.unmount("--lazy")
    assert done.returncode == 0
    assert "1 file" in done.stderr
    assert "/f" in done.stderr.split()
    assert not live.is_mounted()
    busy.let_go()
    live.wait_for_end()
    assert objects(folder) == WHOLE


def test_unmount_gives_up_waiting_where_nothing_gets_on(host, folder, live, busy):
    """The daemon does not: it ends when it is done."""
    done = live.unmount("--timeout", "0")
    assert done.returncode == 37
    assert "has not ended yet" in done.stderr
    assert not live.is_mounted()
    busy.let_go()
    live.wait_for_end()
    assert objects(folder) == WHOLE


def test_what_a_request_that_was_sent_anew_has_brought_to_s3_is_not_left(
    host, folder, stage, mount
):
    """A server that is silent for half of the deadline is asked again, and that is the end of it:
    the first request is held still, and unmounting is as certain as S3 is."""
    live = mount(folder.syn_id, *RW, "--deadline", "2")
    held = stage.gate.faults.hold("request", kinds=["PUT"])
    write(live / "f", b"whole")
    assert objects(folder) == {"f": b"whole"}
    unmounted(live)
    assert left_in(host) == {}
    held.let_go(goes_on=False)


def test_unmount_of_a_mount_whose_record_is_lost_says_what_has_not_reached_s3(
    host, folder, live, busy
):
    """An answer of success is evidence, never the lack of it."""
    for record in host.runtime.glob("*.json"):
        record.unlink()
    done = live.unmount("--timeout", "0")
    assert done.returncode == 9
    assert "/f" in done.stderr.split()
    assert not live.is_mounted()
    busy.let_go()
    live.wait_for_end()
    assert objects(folder) == WHOLE


def test_unmount_promises_nothing_where_nobody_can_tell(host, live, busy):
    kill(live)
    staging = host.home / "state/stsfs/staging"
    staging.rename(staging.with_name("elsewhere"))
    done = live.unmount()
    assert done.returncode == 9
    assert "it is not known" in done.stderr
    assert not live.is_mounted()


def test_a_lazy_unmount_of_a_dead_mount_says_what_it_has_left(host, live, busy):
    kill(live)
    done = live.unmount("--lazy")
    assert "/f" in done.stderr.split()
    assert not live.is_mounted()


def test_a_mount_that_could_not_write_has_nothing_left_whatever_is_known_of_it(host, folder, mount):
    live = mount(folder.syn_id)
    for record in host.runtime.glob("*.json"):
        record.unlink()
    assert live.unmount().returncode == 0
    live.wait_for_end()


def test_a_kill_while_the_end_waits_for_uploads_loses_nothing(host, folder, mount, live, busy):
    live.signal(signal.SIGTERM)
    wait_until(lambda: not live.is_mounted())
    kill(live)
    busy.let_go(goes_on=False)
    assert objects(folder) == {"f": b"first"}
    assert left_in(host) == {"f": "closed"}
    mount(folder.syn_id, *RW)
    wait_until(lambda: not left_in(host))
    assert objects(folder) == WHOLE


def test_unmounting_a_dead_mount_says_what_it_has_left(host, live, busy):
    kill(live)
    done = live.unmount()
    assert done.returncode == 9
    assert "/f" in done.stderr.split()
    assert "stsfs recover" in done.stderr
    assert not live.is_mounted()


def test_a_failed_close_keeps_the_bytes_and_they_are_uploaded_when_s3_is_back(
    host, folder, stage, live
):
    """EIO at close, our bytes in our mount, and nobody has to ask for the next attempt."""
    live.allow_in_log(NOT_REACHED)
    folder.put("f", b"before")
    stage.gate.faults.every_nth(1, status=400, code="Odd", kinds=["PUT"])
    assert refused(write, live / "g", b"bytes") == errno.EIO
    assert explained(host, live / "g")["last_refusal"]["errno"] == "EIO"
    assert (live / "g").read_bytes() == b"bytes"
    assert listed(host)["g"]["state"] == "failed"
    assert [each["path"] for each in live.status()["writing"]["pending"]] == ["/g"]
    stage.gate.faults.clear()
    wait_until(lambda: not left_in(host))
    assert objects(folder) == {"f": b"before", "g": b"bytes"}
    assert live.status()["writing"]["pending"] == []


def test_unmount_tries_once_more_and_tells_what_is_left(host, folder, stage, mount, live):
    """Exit code 9, and what is left in words; the next mount uploads it, and shows it."""
    live.allow_in_log(NOT_REACHED)
    stage.gate.faults.every_nth(1, status=400, code="Odd", kinds=["PUT"])
    for name in ("a", "b"):
        assert refused(write, live / name, name.encode()) == errno.EIO
    unmounted(live, left=["/a", "/b"])
    assert objects(folder) == {}
    stage.gate.faults.clear()
    after = mount(folder.syn_id, *RW)
    wait_until(lambda: not left_in(host))
    assert objects(folder) == {"a": b"a", "b": b"b"}
    wait_until(lambda: sorted(os.listdir(after.path)) == ["a", "b"])


def test_what_is_left_is_listed_uploaded_or_given_up_by_name(host, folder, stage, live):
    live.allow_in_log(NOT_REACHED)
    stage.gate.faults.every_nth(1, status=400, code="Odd", kinds=["PUT"])
    for name in ("keep", "lose"):
        assert refused(write, live / name, name.encode()) == errno.EIO
    living = recover(host, "--upload")
    assert (living.returncode, living.stdout) == (0, "There is nothing to do.\n")
    assert "in use by the mount" in " ".join(host.stsfs("recover").stdout.split())
    unmounted(live, left=["/keep", "/lose"])
    stage.gate.faults.clear()
    assert recover(host, "--discard").returncode == 2
    done = recover(host, "--discard", listed(host)["lose"]["id"])
    assert done.returncode == 0, done.stderr
    assert list(listed(host, live.path)) == ["keep"]
    done = recover(host, "--upload", live.path)
    assert done.returncode == 0, done.stderr
    assert objects(folder) == {"keep": b"keep"}
    assert listed(host) == {}


def test_a_conflict_is_uploaded_by_force_alone(host, folder, mount):
    """Exit code 43 without it: what another client has made is not replaced unasked."""
    live = mount(folder.syn_id, *RW)
    live.allow_in_log("changed by another client|has not reached S3")
    descriptor = os.open(live / "f", os.O_WRONLY | os.O_CREAT, 0o644)
    put_all(descriptor, b"ours")
    folder.put("f", b"theirs")
    assert refused(os.close, descriptor) == errno.ESTALE
    unmounted(live, left=["/f"])
    done = recover(host, "--upload")
    assert (done.returncode, objects(folder)) == (43, {"f": b"theirs"})
    done = recover(host, "--upload", "--force", listed(host)["f"]["id"])
    assert (done.returncode, objects(folder)) == (0, {"f": b"ours"}), done.stderr
    assert listed(host) == {}


def test_a_mode_and_a_time_that_were_set_survive_a_kill_right_after(host, folder, mount):
    live = mount(folder.syn_id, *RW)
    for name in ("f", "g"):
        (live / name).write_bytes(b"1")
    os.chmod(live / "f", 0o604)
    os.utime(live / "g", ns=(5_000_000_000, 1_000_000_007))
    kill(live)
    after = mount(folder.syn_id, *RW)
    assert (after / "f").stat().st_mode & 0o777 == 0o604
    assert (after / "g").stat().st_mtime_ns == 1_000_000_007
