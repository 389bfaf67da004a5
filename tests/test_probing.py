"""What a server does with conditions is found out on a key of its own, of which nothing is left."""

from contextlib import contextmanager

import pytest
import trio

from stsfs.demo.file_server.answers import EVERY_CONDITION, Habits
from stsfs.store import probing, retry
from stsfs.store.capabilities import Condition, Verdict
from stsfs.store.change import Change
from stsfs.store.probing import PROBE_NAME, probe_capabilities
from tests.conformance.conftest import moto_house
from tests.s3_place import Place

ACL = "bucket-owner-full-control"
HEADS = {
    "put": {Condition.PUT_IF_ABSENT, Condition.PUT_IF_MATCH},
    "complete": {Condition.COMPLETE_IF_ABSENT, Condition.COMPLETE_IF_MATCH},
    "copy": {Condition.COPY_IF_ABSENT, Condition.COPY_IF_MATCH},
    "copy-source": {Condition.COPY_SOURCE_IF_MATCH},
    "delete": {Condition.DELETE_IF_MATCH},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.01)


@contextmanager
def server(tmp_path, *ignored, **options):
    """A place whose server ignores the conditions of these changes, with a writer."""
    habits = Habits(frozenset(ignored))
    with Place(tmp_path / "s3", permission="read_write", habits=habits, **options) as place:
        store = place.store()
        place.writer = store.writer(acl=ACL, conditions=False)
        yield place
        store.close()


def left(place):
    """Objects and uploads that are there."""
    uploads = place.folder.parent / ".s3-uploads"
    return [path.name for folder in (place.folder, uploads) if folder.is_dir()
            for path in folder.iterdir()]  # fmt: skip


def verdicts(place):
    return dict(place.writer.capabilities.verdicts)


@pytest.mark.parametrize("ignored", [(), *((each,) for each in HEADS), tuple(EVERY_CONDITION)])
async def test_each_condition_is_found_honoured_or_ignored_and_nothing_is_left(tmp_path, ignored):
    with server(tmp_path, *ignored) as place:
        assert await probe_capabilities(place.writer, "base/") == ""
        expected = dict.fromkeys(Condition, Verdict.HONOURED)
        for each in ignored:
            expected |= dict.fromkeys(HEADS[each], Verdict.IGNORED)
        assert verdicts(place) == expected
        assert left(place) == []
        assert [seen for seen in place.gate.denied if seen.verdict == "AccessDenied"] == []
        changed = {seen.key for seen in place.gate.requests}
        assert all(key.startswith(f"base/{PROBE_NAME}") for key in changed)


async def test_of_moto_it_is_found_out_what_it_looks_at_and_what_not():
    with moto_house() as house:
        writer = house.writer()
        assert await probe_capabilities(writer, "p/") == ""
        honoured = {each for each in Condition if writer.capabilities.honours(each)}
        assert honoured == {
            *HEADS["put"], *HEADS["delete"], Condition.COMPLETE_IF_ABSENT
        }  # fmt: skip
        assert writer.capabilities.two_writers().startswith("Two writers of one file can overwrite")
        assert (await house.store().list_page("p/")).objects == []
        house.leave()


@pytest.mark.parametrize("action", ["DeleteObject", "PutObject"])
async def test_without_the_right_nothing_is_made_and_nothing_is_known(tmp_path, action):
    with server(tmp_path) as place:
        place.book.withheld = frozenset({action})
        place.lease._renew()
        assert "may not" in await probe_capabilities(place.writer, "base/")
        assert Verdict.HONOURED not in verdicts(place).values()
        assert not place.writer.capabilities.is_known
        assert left(place) == []
        assert place.writer.capabilities.found_by == "assumption"


@pytest.mark.parametrize("status", [400, 501])
async def test_a_server_that_refuses_conditional_changes_is_asked_without_them(tmp_path, status):
    """It does so for uploads and copies; plain writes and removals it takes."""
    with server(tmp_path) as place:
        code = "InvalidRequest" if status == 400 else "NotImplemented"
        place.faults.every_nth(1, status=status, code=code, kinds=["MULTIPART", "COPY"])
        await probe_capabilities(place.writer, "base/")
        assert place.writer.capabilities.honours(Condition.PUT_IF_ABSENT)
        assert place.writer.capabilities.honours(Condition.DELETE_IF_MATCH)
        assert not place.writer.capabilities.honours(Condition.COPY_IF_MATCH)
        assert not place.writer.capabilities.honours(Condition.COMPLETE_IF_MATCH)
        assert left(place) == []


@pytest.mark.parametrize("kind", ["PUT", "COPY", "PART", "MULTIPART", "DELETE"])
async def test_trouble_and_lost_answers_neither_fool_nor_stop_it(tmp_path, kind):
    with server(tmp_path) as place:
        place.faults.every_nth(2, status=503, kinds=[kind], limit=3)
        assert await probe_capabilities(place.writer, "base/") == ""
        assert set(verdicts(place).values()) == {Verdict.HONOURED}
        assert left(place) == []


@pytest.mark.parametrize(
    ("kind", "nth"), [("PUT", 1), ("PUT", 3), ("PART", 2), ("MULTIPART", 2), ("COPY", 2)]
)
async def test_a_probe_that_is_cancelled_leaves_nothing(tmp_path, kind, nth):
    with server(tmp_path) as place:
        hold = place.faults.hold("answer", nth, kinds=[kind])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe_capabilities, place.writer, "base/")
            await trio.to_thread.run_sync(hold.wait_reached, 10)
            nursery.cancel_scope.cancel()
        hold.let_go(goes_on=False)
        assert left(place) == []


async def test_a_probe_ends_when_the_server_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "PROBE_S", 0.3)
    with server(tmp_path) as place:
        hold = place.faults.hold("request", 3, kinds=["PUT"])
        assert "did not answer" in await probe_capabilities(place.writer, "base/")
        assert not place.writer.capabilities.is_known
        assert place.writer.capabilities.honours(Condition.PUT_IF_ABSENT)
        hold.let_go(goes_on=False)
        assert left(place) == []


async def test_a_server_that_completes_without_an_etag_is_asked_what_it_has_made(
    tmp_path, monkeypatch
):
    """As radosgw may; an empty condition would be none, and would look ignored."""
    made = Change.made

    async def silent(self):
        answer = await made(self)
        return answer._replace(etag="") if self.kind == "complete" else answer

    monkeypatch.setattr(Change, "made", silent)
    with server(tmp_path) as place:
        assert await probe_capabilities(place.writer, "base/") == ""
        assert set(verdicts(place).values()) == {Verdict.HONOURED}
        assert left(place) == []
