"""The states of a file that is being written, and the order of its locks."""

import ast
from pathlib import Path

import pytest
import trio

from stsfs.writer import dirty_file
from stsfs.writer.dirty_state import (
    NAMELESS,
    RECORD_STATES,
    TRANSITIONS,
    DirtyState,
    IllegalTransition,
    check_transition,
)
from stsfs.writer.locks import LockOrderBroken, OrderedLock, Rank, check_order, in_turn

NOTHING = "\N{EN DASH}"
DOCUMENT = Path(__file__).parent.parent / "docs" / "architecture.md"


def test_every_state_has_its_transitions_and_its_name_in_records():
    assert set(TRANSITIONS) == set(RECORD_STATES) == set(DirtyState)
    assert TRANSITIONS[DirtyState.ENDED] == frozenset()
    for state in NAMELESS - {DirtyState.ENDED}:
        assert TRANSITIONS[state] == {DirtyState.ENDED}, "a lost name does not come back"


@pytest.mark.parametrize("old", DirtyState)
@pytest.mark.parametrize("new", DirtyState)
def test_what_the_table_does_not_have_is_refused(old, new):
    if new is old or new in TRANSITIONS[old]:
        check_transition(old, new)
    else:
        with pytest.raises(IllegalTransition):
            check_transition(old, new)


def test_the_document_has_the_table():
    rows = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0] in {state.value for state in DirtyState}:
            rows[cells[0]] = {name.strip(" `") for name in cells[2].split(",")} - {NOTHING}
    assert rows == {
        old.value: {new.value for new in following} for old, following in TRANSITIONS.items()
    }


def test_only_the_owner_changes_the_state_and_only_in_one_place():
    assigning = []
    for path in sorted(Path(dirty_file.__file__).parent.parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AnnAssign | ast.AugAssign):
                targets = [node.target]
            names = {each.attr for each in targets if isinstance(each, ast.Attribute)}
            values = [
                each
                for each in ast.walk(node)
                if isinstance(each, ast.Attribute)
                and isinstance(each.value, ast.Name)
                and each.value.id == "DirtyState"
            ]
            is_state = "_state" in names and path.parent.name == "writer"
            if targets and (is_state or values):
                assigning.append((path.name, node.lineno))
    files = {name for name, _ in assigning}
    assert files <= {"dirty_file.py", "dirty_state.py"}
    source = Path(dirty_file.__file__).read_text()
    assert source.count("self._state = ") == 2, "the first one, and `_to`"


async def test_locks_are_taken_in_their_order_only():
    turn, content = OrderedLock(Rank.TURN), OrderedLock(Rank.CONTENT)
    async with turn, content:
        with pytest.raises(LockOrderBroken):
            check_order(Rank.NAMES)
    async with content:
        with pytest.raises(LockOrderBroken):
            async with turn:
                pass
    check_order(Rank.NAMES)


async def test_turns_of_several_files_are_taken_by_number_only():
    first, second = OrderedLock(Rank.TURN), OrderedLock(Rank.TURN)
    async with in_turn([second, first]), first, second:
        pass
    async with second:
        with pytest.raises(LockOrderBroken):
            async with first:
                pass


async def test_a_lock_is_one_tasks_until_it_is_given_back_as_often_as_it_was_taken(nursery):
    lock, order = OrderedLock(Rank.TURN), []

    async def other():
        async with lock:
            order.append("other")

    async with lock:
        async with lock:
            nursery.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        order.append("first")
        assert lock.is_mine
    await trio.testing.wait_all_tasks_blocked()
    assert order == ["first", "other"]


async def test_who_is_cancelled_while_waiting_holds_nothing():
    lock = OrderedLock(Rank.TURN)

    async def wait():
        async with lock:
            raise AssertionError

    async with lock, trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    async with lock:
        assert lock.is_mine
    assert not lock.is_mine
