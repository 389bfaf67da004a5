"""Kept sets of credentials: shared by all who may, renewed in time, and never a wrong one."""

import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from stsfs.credentials.credential_cache import CredentialCache, KeptSet, cache_key
from stsfs.credentials.credentials import Credentials
from stsfs.errors import SynapseUnavailable, TokenRejected

HOUR_S = 3600.0
KEY = cache_key("syn1", "read_only", "https://synapse.example", "ada's token")
PATIENCE_S = 60


class World:
    """A clock, and a service that gives sets which live for `lifetime_s`."""

    def __init__(self, directory):
        self.now_s = 1_800_000_000.0
        self.lifetime_s = HOUR_S
        self.fetches = 0
        self.failure = None
        self.directory = directory

    def cache(self):
        """As another process sees it."""
        return CredentialCache(self.directory, now_unix_s=lambda: self.now_s)

    def fetch(self):
        self.fetches += 1
        if self.failure is not None:
            raise self.failure
        secrets = Credentials(
            f"ASIA{self.fetches}", "secret", "session", self.now_s + self.lifetime_s
        )
        return KeptSet("syn1", "lab", "base", secrets, self.now_s)

    def ask(self, key=KEY):
        return self.cache().obtain(key, self.fetch)

    def file(self, key=KEY):
        return self.directory / f"{key}.json"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "credentials")


def test_a_kept_set_is_what_was_fetched(world):
    assert world.ask() == world.ask()
    assert world.fetches == 1


def test_a_day_of_callers_makes_one_fetch_per_session(world):
    """An SDK asks again when 15 minutes are left, and must then get a set that lives longer."""
    left = []
    for _ in range(24 * 60):
        left.append(world.ask().left_s(world.now_s))
        world.now_s += 60
    assert world.fetches <= 24 * 60 / 42 + 1
    assert min(left) > 15 * 60


@pytest.mark.parametrize("lifetime_s", [20, 900, HOUR_S, 12 * HOUR_S])
def test_a_set_is_renewed_by_the_rule_of_the_lease(world, lifetime_s):
    world.lifetime_s = lifetime_s
    world.ask()
    margin_s = min(lifetime_s / 4, 15 * 60) * 1.2
    world.now_s += lifetime_s - margin_s - 0.1
    world.ask()
    assert world.fetches == 1
    world.now_s += 0.2
    world.ask()
    assert world.fetches == 2


def test_a_set_from_the_future_is_not_trusted(world):
    world.ask()
    world.now_s -= 60
    world.ask()
    assert world.fetches == 2


def test_many_who_ask_at_once_make_one_fetch(world):
    together = threading.Barrier(20)

    def ask(_):
        together.wait(PATIENCE_S)
        return world.ask()

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(ask, range(20)))) == 1
    assert world.fetches == 1


def test_nobody_but_the_owner_can_read_what_is_kept(world):
    before = os.umask(0)
    try:
        world.ask()
    finally:
        os.umask(before)
    assert stat.S_IMODE(world.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in world.directory.iterdir()} == {0o600}


def test_names_give_no_secret_away(world):
    world.ask()
    assert all("token" not in path.name for path in world.directory.iterdir())


def test_each_part_of_a_key_makes_another_set(world):
    parts = ["syn1", "read_only", "https://synapse.example", "ada's token"]
    world.ask()
    for number in range(len(parts)):
        other = [*parts]
        other[number] += "x"
        world.ask(cache_key(*other))
    assert world.fetches == 1 + len(parts)
    assert cache_key("a", "bc") != cache_key("ab", "c")


def changed(values, **changes):
    return {**values, "credentials": {**values["credentials"], **changes}}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b"\xff\x00"),
        lambda path: path.write_bytes(b"[" * 60_000),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_text(
            json.dumps(changed(json.loads(path.read_text()), expires_at_unix_s=None))
        ),
        lambda path: path.write_text(
            json.dumps(changed(json.loads(path.read_text()), expires_at_unix_s=float("inf")))
        ),
        lambda path: path.write_text(
            json.dumps(changed(json.loads(path.read_text()), session_token=1))
        ),
        lambda path: path.write_bytes(b" " * 100_000 + path.read_bytes()),
        lambda path: path.chmod(0o640),
    ],
)
def test_what_is_broken_or_open_to_others_counts_as_absent_and_is_replaced(world, spoil):
    world.ask()
    spoil(world.file())
    assert world.ask().credentials.access_key_id == "ASIA2"
    assert world.ask().credentials.access_key_id == "ASIA2"
    assert stat.S_IMODE(world.file().stat().st_mode) == 0o600


def test_a_link_in_place_of_a_set_is_not_followed(world, tmp_path):
    world.ask()
    elsewhere = tmp_path / "elsewhere"
    world.file().rename(elsewhere)
    world.file().symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    world.ask()
    assert world.fetches == 2
    assert elsewhere.read_bytes() == before


def test_a_file_of_somebody_else_counts_as_absent(world, monkeypatch):
    world.ask()
    cache, own = world.cache(), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    cache.obtain(KEY, world.fetch)
    assert world.fetches == 2


def test_a_directory_of_somebody_else_is_refused(world, monkeypatch):
    world.ask()
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(PermissionError):
        world.cache()


def test_a_link_in_place_of_the_directory_is_refused(world, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    world.directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        world.cache()


def test_an_open_directory_is_closed(world):
    world.directory.mkdir()
    world.directory.chmod(0o755)
    world.ask()
    assert stat.S_IMODE(world.directory.stat().st_mode) == 0o700


def test_a_directory_that_vanishes_costs_calls_and_no_answer(world, caplog):
    cache = world.cache()
    world.directory.rmdir()
    assert cache.obtain(KEY, world.fetch).credentials.access_key_id == "ASIA1"
    assert cache.obtain(KEY, world.fetch).credentials.access_key_id == "ASIA2"
    assert "not kept" in caplog.text


def test_what_cannot_be_written_is_answered_all_the_same(world, caplog):
    cache = world.cache()
    (world.directory / f"{KEY}.json.tmp").mkdir()
    assert cache.obtain(KEY, world.fetch).credentials.access_key_id == "ASIA1"
    assert "not kept" in caplog.text
    assert not world.file().exists()


def test_what_a_killed_process_left_half_written_is_replaced(world):
    world.cache()
    left = world.directory / f"{KEY}.json.tmp"
    left.write_text("half a secret")
    world.ask()
    assert not left.exists()
    assert world.ask() == world.ask()
    assert world.fetches == 1


def test_while_the_service_is_down_a_due_set_is_used_to_its_end(world, caplog):
    world.ask()
    world.now_s += HOUR_S - 60
    world.failure = SynapseUnavailable("Synapse is down.")
    assert world.ask().credentials.access_key_id == "ASIA1"
    assert "good for 60 s more" in caplog.text
    world.now_s += 60
    with pytest.raises(SynapseUnavailable):
        world.ask()


def test_an_identity_that_is_refused_gets_nothing_that_is_due(world):
    world.ask()
    world.now_s += HOUR_S - 60
    world.failure = TokenRejected("No.")
    with pytest.raises(TokenRejected):
        world.ask()


def test_who_waited_for_a_failed_attempt_does_not_try_again(world):
    """Or twenty callers would wait for the deadline of a dead service twenty times in turn."""
    under_way, go_on, entered = threading.Event(), threading.Event(), threading.Semaphore(0)
    world.failure = SynapseUnavailable("Synapse is down.", remedy="Wait.")

    def failing():
        under_way.set()
        assert go_on.wait(PATIENCE_S)
        return world.fetch()

    class Waiting(CredentialCache):
        def _locked(self, key):
            entered.release()  # the time of asking has been taken
            return super()._locked(key)

    def wait_in_line(_):
        cache = Waiting(world.directory, now_unix_s=lambda: world.now_s)
        with pytest.raises(SynapseUnavailable, match="is down"):
            cache.obtain(KEY, world.fetch)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(world.cache().obtain, KEY, failing)
        assert under_way.wait(PATIENCE_S)
        waiting = pool.map(wait_in_line, range(3))
        for _ in range(3):
            assert entered.acquire(timeout=PATIENCE_S)
        world.now_s += 30
        go_on.set()
        assert isinstance(first.exception(PATIENCE_S), SynapseUnavailable)
        list(waiting)
    assert world.fetches == 1
    world.now_s += 1
    world.failure = None
    assert world.ask().credentials.access_key_id == "ASIA2"  # who comes later tries anew


def test_sets_that_are_over_are_swept_away(world):
    for number in range(64):
        world.ask(cache_key(str(number)))
    world.now_s += HOUR_S
    shares = {path.name[0] for path in world.directory.glob("*.json")}
    for number in range(64):
        world.ask(cache_key(str(number)))
        kept = world.cache()._read(cache_key(str(number)))
        assert not kept.is_due(world.now_s)
    assert len(list(world.directory.glob("*.lock"))) == len(shares) <= 16
    world.now_s += HOUR_S
    world.ask(cache_key("0"))
    share = cache_key("0")[0]
    assert len(list(world.directory.glob(f"{share}*.json"))) == 1


def test_forgetting_one_target_leaves_the_others(world):
    world.ask()
    assert world.cache().forget("syn2") == 0
    assert world.cache().forget("syn1") == 1
    world.ask()
    assert world.fetches == 2
    assert world.cache().forget() == 1
    assert not list(world.directory.glob("*.json"))
