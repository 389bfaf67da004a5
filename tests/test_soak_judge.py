"""The judge of a soak: what it must not let pass, and what it must not complain of."""

import pytest

from tests.soak.judge import DELETED, Judge, Window
from tests.soak.meters import Level
from tests.soak.objects import BIG, CHANGING

STEADY, CHANGED = BIG[0], CHANGING[-1]


@pytest.fixture
def judge():
    """CHANGED was replaced from 10 to 11, and deleted from 20 to 21."""
    made = Judge(absent_s=5)
    history = made.histories[CHANGED.name]
    for state, begun_s in ((2, 10), (DELETED, 20)):
        history.begin(state, begun_s)
        history.done(begun_s + 1)
    return made


def verdict(judge, begin_s, end_s, what=CHANGED, versions=(), **told):
    marks = [what.mark(version) for version in versions]
    times = {"begin_s": begin_s, "end_s": end_s}
    judge.hear({"kind": "k", "name": what.name, "versions": marks, **times, **told})
    return judge.wrong[-1]["reason"] if judge.wrong else None


@pytest.mark.parametrize(
    ("begin_s", "end_s", "told"),
    [
        (1, 2, {"versions": [1]}),
        (9, 10.5, {"versions": [2]}),
        (10.5, 10.6, {"versions": [1]}),
        (9, 12, {"versions": [1], "errno": "ESTALE"}),
        (22, 23, {"errno": "ENOENT"}),
        (12, 13, {"versions": [2], "whole": True, "bytes": CHANGED.size_bytes(2)}),
        (1, 2, {"versions": [1], "what": STEADY}),
    ],
)
def test_what_the_contract_allows_is_not_complained_of(judge, begin_s, end_s, told):
    assert verdict(judge, begin_s, end_s, **told) is None


@pytest.mark.parametrize(
    ("begin_s", "end_s", "told"),
    [
        (9, 12, {"versions": [1, 2]}),
        (12, 13, {"versions": [1]}),
        (1, 2, {"versions": [2]}),
        (1, 2, {"versions": [1], "what": STEADY, "whole": True, "bytes": 5}),
        (1, 2, {"errno": "ESTALE"}),
        (12, 13, {"errno": "ENOENT"}),
        (1, 2, {"errno": "EIO"}),
        (1, 2, {"wrong": "foreign bytes"}),
        (9, 12, {"errno": "ESTALE", "what": STEADY}),
    ],
)
def test_what_it_forbids_is_found(judge, begin_s, end_s, told):
    assert verdict(judge, begin_s, end_s, **told) is not None


def test_bytes_of_another_file_are_found(judge):
    mark = CHANGING[0].mark(1)
    judge.hear({"kind": "k", "name": CHANGED.name, "begin_s": 1, "end_s": 2, "versions": [mark]})
    assert judge.wrong_count == 1


def test_trouble_explains_its_own_errnos_and_an_outage_old_versions(judge):
    judge.windows.append(Window(12, frozenset({"EKEYEXPIRED"}), True, 15))
    assert verdict(judge, 14, 16, versions=[1], errno="EKEYEXPIRED") is None
    assert verdict(judge, 14, 16, errno="EIO") is not None


def test_what_grows_is_not_level():
    assert Level.of([50, 90, 100] * 10, "MiB", lambda _: 8).is_level
    assert not Level.of(list(range(300)), "MiB", lambda _: 8).is_level
