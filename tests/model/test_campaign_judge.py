"""The books of the campaign are worth something: a program with a fault in it is found out."""

from tests.fakes import MemoryWriter
from tests.model.campaign.history import Step, made
from tests.model.campaign.trouble import Trouble
from tests.model.campaign.world import play
from tests.writing_vfs.machine import Mount

HISTORIES_MAX = 60


def words(kind, count=HISTORIES_MAX):
    """What the first histories of a kind violate."""
    return {
        each.what for seed in range(count) for each in play(kind, seed, made(kind, seed)).violations
    }


def outcome(kind, *steps, seed=1):
    """The words of what one history violates."""
    return {each.what for each in play(kind, seed, steps).violations}


PUT = Step("A1", "session", ("b", "w", (("write", 3),)))
FSYNC = Step("A1", "session", ("b", "w", (("write", 3), ("fsync",), ("sleep", 40.0))))


def test_a_program_without_a_fault_is_not_found_out():
    assert outcome("one-mount", PUT, PUT) == set()
    for turns in range(5, 200, 15):
        assert outcome("kills", FSYNC, Step("A!", "kill", (turns,))) == set()


def test_a_publication_that_never_happens_is_found_out(monkeypatch):
    async def put(self, key, body, traits, *, expected, write_id):
        return '"never"'

    monkeypatch.setattr(MemoryWriter, "put", put)
    assert outcome("one-mount", PUT) & {"wrong", "lost"}


def test_an_error_that_is_swallowed_is_found_out(monkeypatch):
    fate = Trouble.fate

    def swallowed(self, mount, method):
        error, _ = fate(self, mount, method)
        return (None, True) if error is None or method != "put" else (None, False)

    monkeypatch.setattr(Trouble, "fate", swallowed)
    monkeypatch.setattr("tests.model.campaign.line.Line.call", _quiet_call)
    assert words("lasting-faults") & {"wrong", "lost"}


async def _quiet_call(self, method, request):
    _, happens = self._trouble.fate(self.mount, method)
    return await request() if happens else '"never"'


def test_bytes_of_another_version_are_found_out(monkeypatch):
    sent = MemoryWriter._sent
    before = []

    async def mixed(self, body):
        data = await sent(self, body)
        before.append(data)
        old = before[-2] if len(before) > 1 else b""
        return old[:16] + data[16:] if len(old) >= 16 and len(data) > 16 else data

    monkeypatch.setattr(MemoryWriter, "_sent", mixed)
    assert outcome("one-mount", PUT, PUT) & {"torn", "wrong"}


def test_an_fsync_that_keeps_nothing_is_found_out(monkeypatch):
    async def fsync(self, descriptor):
        return None

    monkeypatch.setattr("tests.model.campaign.kernel.Kernel.fsync", fsync)
    found = set()
    for turns in range(5, 200, 5):
        found |= outcome("kills", FSYNC, Step("A!", "kill", (turns,)))
    assert "lost" in found


def test_a_condition_that_is_not_sent_is_found_out(monkeypatch):
    monkeypatch.setattr(MemoryWriter, "_expect", lambda self, key, expected: None)
    sleeping = (("write", 3), ("sleep", 40.0))
    assert outcome(
        "two-mounts",
        Step("A1", "session", ("b", "w", sleeping)),
        Step("B1", "sleep", (1.5,)),
        Step("B1", "session", ("b", "w", (("write", 1),))),
    ) & {"unseen", "lost"}


def test_a_read_of_what_was_is_found_out(monkeypatch):
    get = Mount.read
    seen = []

    async def read(self, descriptor, offset=0, size_bytes=1 << 30):
        seen.append(await get(self, descriptor, offset, size_bytes))
        return seen[0]

    monkeypatch.setattr(Mount, "read", read)
    look = Step("A1", "read", ("b", False))
    assert "wrong" in outcome("one-mount", PUT, look, PUT, look)
