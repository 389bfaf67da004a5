"""Credentials come and go under a running mount; readers see it only where nothing is left."""

import errno
import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from stsfs.demo.fake_synapse.guard import Fault
from tests.mount.stage import TOKEN

pytestmark = pytest.mark.mount

MIB = 1 << 20
GIB = 1 << 30
SHORT_LIFE_S = 2.0
"""Of a session, where a test needs several renewals: the lease renews a little after 1.4 s."""


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def errno_of(call, *arguments):
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is the answer
        call(*arguments)
    return errno.errorcode[raised.value.errno]


def sentences(live):
    """The newest remembered refusal of each errno."""
    found = {}
    for error in live.status()["errors"]:
        found.setdefault(error["errno"], f"{error['sentence']} {error['remedy']}")
    return found


def write_gibibyte(path):
    """A file of 1 GiB in which no two MiB are alike; returns its SHA-256."""
    base, digest = random.Random(5).randbytes(MIB - 8), hashlib.sha256()
    with open(path, "wb") as file:
        for number in range(GIB // MIB):
            piece = number.to_bytes(8, "big") + base
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def test_a_gibibyte_is_read_right_through_renewals_cuts_and_throttles(stage, folder, mount):
    """The reader sees nothing of sessions that end, one body in 20 cut, one request in 10
    answered 503; Synapse is asked for credentials once per renewal."""
    expected = write_gibibyte(folder.path / "gib")
    folder.adopt()
    stage.vendor.lifetime_s = SHORT_LIFE_S
    live = mount(folder.syn_id)
    stage.gate.faults.cut_body(20, after_bytes=300_000)
    stage.gate.faults.every_nth(10, status=503)
    digest, renewals_before = hashlib.sha256(), live.status()["credentials"]["renewals"]
    with open(live / "gib", "rb", buffering=0) as file:
        for quarter in range(4):
            for _ in range(GIB // 4 // MIB):
                digest.update(os.read(file.fileno(), MIB))
            if quarter < 3:
                stage.vendor.wait_for(stage.vendor.vended + 1)
        assert os.read(file.fileno(), 1) == b""
    assert digest.hexdigest() == expected
    os.unlink(folder.path / "gib")
    status = live.status()
    assert status["errors"] == []
    assert status["requests"]["get"]["retries"] > 10
    assert status["credentials"]["renewals"] >= renewals_before + 3
    assert status["credentials"]["failures"] == 0
    # One more may have begun since the daemon was asked.
    assert 0 <= folder.sts_calls - (status["credentials"]["renewals"] + 1) <= 1
    stage.denials_expected = True  # a request signed just before its session ended
    assert {each.verdict for each in stage.gate.denied} <= {"ExpiredToken"}


def test_nothing_asks_synapse_but_the_renewals(stage, folder, mount):
    """Many readers, one session: one STS call."""
    for number in range(20):
        folder.write(f"f{number}", b"x" * 1000)
    live = mount(folder.syn_id)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: (live / f"f{n}").read_bytes(), range(20)))
    assert folder.sts_calls == 1
    assert live.status()["credentials"]["renewals"] == 0


def test_a_session_that_s3_calls_expired_is_renewed_unseen_in_mid_read(stage, folder, mount):
    """ "A request refused with ExpiredToken renews and is repeated once, unseen by the reader"."""
    data = folder.write("big", random.Random(1).randbytes(8 * MIB))
    live = mount(folder.syn_id)
    stage.denials_expected = True
    with open(live / "big", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 0) == data[:1000]
        for offset in (2 * MIB, 4 * MIB, 6 * MIB):
            stage.vendor.revoke_all()
            assert os.pread(file.fileno(), 1000, offset) == data[offset : offset + 1000]
    assert {each.verdict for each in stage.gate.denied} == {"ExpiredToken"}
    assert live.status()["errors"] == []
    assert folder.sts_calls == live.status()["credentials"]["renewals"] + 1 == 4


def test_many_readers_of_an_ended_session_cause_one_renewal(stage, folder, mount):
    """ "One renewal in flight for all"."""
    for number in range(16):
        folder.write(f"f{number}", str(number).encode())
    live = mount(folder.syn_id)
    os.listdir(live.path)
    stage.denials_expected = True
    stage.vendor.revoke_all()
    with ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda n: (live / f"f{n}").read_bytes(), range(16)))
    assert read == [str(number).encode() for number in range(16)]
    assert folder.sts_calls == 2


def test_a_rotated_token_needs_no_remount(stage, folder, mount, token_file):
    """ "The Synapse token itself is looked up again at each renewal"."""
    data = folder.write("x", random.Random(2).randbytes(MIB))
    live = mount(folder.syn_id, "--token-file", token_file, env={"SYNAPSE_AUTH_TOKEN": ""})
    stage.state.add_token(stage.user, "rotated-token-0815")
    token_file.write_text("rotated-token-0815")
    stage.state.revoke_token(TOKEN)
    try:
        stage.denials_expected = True
        stage.vendor.revoke_all()
        assert (live / "x").read_bytes() == data
    finally:
        stage.state.add_token(stage.user, TOKEN)
    assert live.status()["credentials"]["failures"] == 0


def test_a_rejected_token_is_ekeyrejected_and_the_running_session_is_used_to_its_end(
    stage, folder, mount
):
    """ "Synapse rejects the token: EKEYREJECTED"; what needs no new session goes on."""
    folder.write("x", b"x")
    folder.write("y", b"y")
    live = mount(folder.syn_id)
    stage.synapse.faults.add(Fault("token_revoked"))
    assert (live / "x").read_bytes() == b"x"
    stage.denials_expected = True
    stage.vendor.revoke_all()
    assert errno_of(os.open, live / "y", os.O_RDONLY) == "EKEYREJECTED"
    said = sentences(live)
    assert list(said) == ["EKEYREJECTED"]
    assert "token" in said["EKEYREJECTED"]
    assert "personal access token" in said["EKEYREJECTED"]
    stage.synapse.faults.clear()
    recovered = read_patiently(live / "y", live)
    assert recovered == b"y"


def test_a_denial_by_policy_is_eacces(stage, folder, mount):
    """ "a policy or permission says no: EACCES, never mixed with the two above"."""
    folder.write("x", b"x")
    live = mount(folder.syn_id)
    stage.gate.faults.every_nth(1, status=403, code="AccessDenied", kinds=["GET"])
    assert errno_of(os.open, live / "x", os.O_RDONLY) == "EACCES"
    said = sentences(live)
    assert list(said) == ["EACCES"]
    assert "policy" in said["EACCES"]


def test_a_permission_that_was_taken_away_is_eacces_once_the_session_is_over(stage, folder, mount):
    """Synapse says no to this user, whose token is in order."""
    folder.write("x", b"x")
    live = mount(folder.syn_id)
    stage.synapse.faults.add(Fault("lacks_download"))
    stage.denials_expected = True
    stage.vendor.revoke_all()
    assert errno_of(os.open, live / "x", os.O_RDONLY) == "EACCES"
    assert "DOWNLOAD" in sentences(live)["EACCES"]


@pytest.mark.parametrize("view", ["keys", "entities"], scope="module")
def test_with_synapse_down_what_is_cached_goes_on_and_the_rest_is_ekeyexpired(stage, folder, mount):
    """ "the STS session is over and cannot be renewed: cached blocks and listings, stale ones too,
    go on being served, and status says so; what is not cached: EKEYEXPIRED"."""
    cached = folder.write("dir/cached", random.Random(4).randbytes(2 * MIB))
    folder.write("dir/other", b"never read")
    live = mount(folder.syn_id, "--metadata-ttl", "1")
    assert sorted(os.listdir(live / "dir")) == ["cached", "other"]
    assert (live / "dir/cached").read_bytes() == cached
    stage.denials_expected = True
    with open(live / "dir/cached", "rb") as file, stage.synapse_down():
        stage.vendor.revoke_all()
        with ThreadPoolExecutor(1) as pool:
            stage.forget_requests()
            waiting = pool.submit(errno_of, (live / "dir/other").read_bytes)
            stage.gate.denied.wait_for(1)
            assert file.read() == cached  # while the other still waits for a renewal
            assert waiting.result() == "EKEYEXPIRED"
        assert sorted(os.listdir(live / "dir")) == ["cached", "other"]
        assert (live / "dir/cached").read_bytes() == cached
        status = live.status()
        assert not status["credentials"]["in_force"]
        assert "cannot be reached" in status["credentials"]["last_error"]
        assert "cannot be reached" in sentences(live)["EKEYEXPIRED"]
    assert read_patiently(live / "dir/other", live) == b"never read"
    assert live.status()["credentials"]["in_force"]


def read_patiently(path, live):
    """Read once renewals are tried again; a failed one answers for a while."""
    for _ in range(300):
        try:
            return path.read_bytes()
        except OSError as exc:
            if exc.errno not in (errno.EKEYEXPIRED, errno.EKEYREJECTED):
                raise
            live.status()
    raise AssertionError("no renewal")
