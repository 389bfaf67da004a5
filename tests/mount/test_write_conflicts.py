"""Two who write the same: one wins, the other is told, and nothing of either is lost."""

import errno
import os

import pytest

from tests.mount.crash_stage import (
    MIB,
    RW,
    at_once,
    explained,
    listed,
    objects,
    open_to_write,
    pending_uploads,
    put_all,
    recover,
    refused,
    touched,
    unmounted,
    wait_until,
    write,
)
from tests.mount.stage import PATIENCE_S

pytestmark = pytest.mark.mount

LOST = ("changed by another client", "deleted or replaced", "made by another client")


@pytest.fixture
def two_mounts(mount, folder):
    """Two mounts of the folder, each of which learns of the other only from S3."""

    def make(*options):
        mounts = [mount(folder.syn_id, *(options or RW)) for _ in range(2)]
        for live in mounts:
            live.allow_in_log("|".join(LOST))
        return mounts

    return make


def saved(host, name):
    """What `stsfs recover --save` makes of a file that did not come through."""
    directory = host.home / "saved"
    done = recover(host, "--save", directory)
    assert done.returncode == 0, done.stderr
    return (directory / name).read_bytes()


@pytest.mark.parametrize("is_new", [True, False])
def test_of_two_mounts_that_write_one_file_one_wins_and_the_other_is_told(
    host, folder, two_mounts, is_new
):
    """close says ESTALE, explain says why, the name shows the winner's, recover has the loser's."""
    if not is_new:
        folder.put("f", b"before")
    ours, theirs = two_mounts()
    flags = os.O_CREAT | os.O_TRUNC
    with open_to_write(ours / "f", b"the loser's", flags) as loser:
        write(theirs / "f", b"the winner's")
        assert refused(loser.close) == errno.ESTALE
    assert objects(folder) == {"f": b"the winner's"}
    assert (ours / "f").read_bytes() == (theirs / "f").read_bytes() == b"the winner's"
    told = explained(host, ours / "f")["last_refusal"]
    assert (told["errno"], told["sentence"]) == (
        "ESTALE",
        f"'{folder.key_of('f')}' was changed by another client.",
    )
    assert "stsfs recover" in told["remedy"]
    assert listed(host)["f"]["state"] == "conflict"
    assert saved(host, "f") == b"the loser's"
    unmounted(ours, left=["/f"])
    unmounted(theirs)


def test_who_lost_goes_on_with_the_winners_file_under_the_same_name(host, folder, two_mounts):
    folder.put("f", b"before")
    ours, theirs = two_mounts()
    with open_to_write(ours / "f", b"lost", os.O_TRUNC) as loser:
        write(theirs / "f", b"won")
        assert refused(os.close, os.dup(loser)) == errno.ESTALE
        put_all(loser, b" still")  # the descriptor has its own bytes as long as it is open
        assert os.pread(loser, 99, 0) == b"lost still"
        write(ours / "f", b" again", flags=os.O_APPEND)
        assert refused(loser.close) == errno.ESTALE
    assert objects(folder) == {"f": b"won again"}
    assert saved(host, "f") == b"lost still"
    unmounted(ours, left=["/f"])


def test_what_only_the_base_has_is_not_mixed_with_another_clients(folder, host, two_mounts):
    """A change in the middle of a file that was replaced meanwhile: a conflict, no mixture."""
    folder.put("f", b"0123456789" * 1000)
    ours, theirs = two_mounts()
    with open_to_write(ours / "f", b"lost", 0) as loser:
        write(theirs / "f", b"9876543210" * 1000)
        assert refused(os.pread, loser, 10, 100) == errno.ESTALE
        assert refused(loser.close) == errno.ESTALE
    assert objects(folder) == {"f": b"9876543210" * 1000}
    unmounted(ours, left=["/f"])
    done = recover(host, "--save", host.home / "saved")
    assert done.returncode == 9
    assert (host.home / "saved/f.partial").read_bytes()[:4] == b"lost"


def test_a_file_that_must_be_new_is_made_by_one_of_two_mounts(host, folder, two_mounts):
    """O_EXCL: at once on one mount; the other hears it at close, or at open if it knows by then."""
    ours, theirs = two_mounts()
    flags = os.O_CREAT | os.O_EXCL
    with open_to_write(ours / "f", b"ours", flags) as loser:
        assert refused(os.open, ours / "f", flags) == errno.EEXIST
        write(theirs / "f", b"theirs", flags=flags)
        assert refused(loser.close) == errno.EEXIST
    assert refused(os.open, ours / "f", flags) == errno.EEXIST
    assert objects(folder) == {"f": b"theirs"}
    assert saved(host, "f") == b"ours"
    unmounted(ours, left=["/f"])


def test_many_files_made_by_two_mounts_at_the_same_time_have_one_writer_each(folder, two_mounts):
    """Whoever was told of no error is whose bytes are there."""
    names = [f"f{number:02}" for number in range(8)]
    mounts = two_mounts()
    calls = [
        (write, live / name, f"{live.path.name} {name}".encode())
        for name in names
        for live in mounts
    ]
    with at_once(calls) as writing:
        failures = [each.exception() for each in writing]
    found = objects(folder)
    assert sorted(found) == names
    for (_, path, data), failure in zip(calls, failures, strict=True):
        if found[path.name] == data:
            assert failure is None
        else:
            assert failure.errno == errno.ESTALE
    for live in mounts:
        lost = [path for (_, path, _), each in zip(calls, failures, strict=True) if each]
        unmounted(live, left=[f"/{path.name}" for path in lost if path.parent == live.path])


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_rename_moves_what_another_client_has_put_there_meanwhile(folder, two_mounts, mode):
    """The listing is older than the object: the kernel is told, looks again, and tries again."""
    folder.put("f", b"first")
    folder.put("d/f", b"first")
    ours, _ = two_mounts("--rw", "--conditional-writes", mode)
    assert os.listdir(ours / "d") == ["f"]
    folder.put("f", b"second")
    folder.put("d/f", b"second")
    os.rename(ours / "f", ours / "g")
    os.rename(ours / "d", ours / "e")
    assert objects(folder) == {"g": b"second", "e/f": b"second"}
    assert (ours / "g").read_bytes() == (ours / "e/f").read_bytes() == b"second"


@pytest.mark.parametrize("source", ["d/f", "d"])
def test_what_another_client_puts_at_the_source_of_a_rename_stays(
    stage, folder, two_mounts, source
):
    """Between copy and removal: the new one is not removed, and the copy has the old one."""
    folder.put("d/f", b"first")
    folder.put("d/g", b"first")
    ours, theirs = two_mounts(*RW, "--metadata-ttl", "1")
    held = stage.gate.faults.hold("answer", kinds=["COPY"])
    with at_once([(os.rename, ours / source, ours / "moved")]) as moving:
        held.wait_reached(PATIENCE_S)
        folder.put("d/f", b"second")
        held.let_go()
        assert moving[0].exception() is None
    found = objects(folder)
    assert found.pop("d/f") == b"second"
    assert set(found.values()) == {b"first"}
    assert sorted(found) == (["d/g", "moved"] if source == "d/f" else ["moved/f", "moved/g"])
    for live in (ours, theirs):
        wait_until(lambda live=live: (live / "d").is_dir() and "f" in os.listdir(live / "d"))


def test_a_removal_is_not_undone_by_an_upload_that_was_under_way(stage, folder, two_mounts):
    """unlink while a close publishes: the object is gone in the end, whoever was faster."""
    folder.put("f", b"before")
    ours, _ = two_mounts()
    held = stage.gate.faults.hold("request", kinds=["PUT"])
    with at_once([(write, ours / "f", b"after")]) as writing:
        held.wait_reached(PATIENCE_S)
        with at_once([(os.unlink, ours / "f")]) as removing:
            held.let_go()
            assert removing[0].exception() is None
        assert writing[0].exception() is None
    assert objects(folder) == {}
    assert not (ours / "f").exists()


@pytest.mark.parametrize(("is_new", "size_bytes"), [(True, 10), (False, 10), (False, 17 * MIB)])
def test_without_conditions_a_change_before_the_close_is_noticed(
    host, folder, two_mounts, is_new, size_bytes
):
    """Where the server has none, it is looked before: what is left is the moment in between."""
    data = touched(size_bytes)
    if not is_new:
        folder.put("f", b"before")
    ours, theirs = two_mounts("--rw", "--conditional-writes", "off")
    with open_to_write(ours / "f", data, os.O_CREAT | os.O_TRUNC) as loser:
        write(theirs / "f", b"theirs")
        assert refused(loser.close) == errno.ESTALE
    assert objects(folder) == {"f": b"theirs"}
    assert saved(host, "f") == data
    assert pending_uploads(folder) == []
    write(ours / "f", b"ours again")
    assert objects(folder) == {"f": b"ours again"}
    unmounted(ours, left=["/f"])
