"""Log lines cannot be forged: a record is one line, whatever names and messages it holds.

What follows a record, a traceback, is indented; no record begins with a blank.
"""

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsfs.daemon.logs import JournalFormatter, RedactingFormatter
from stsfs.demo.fake_synapse.guard import Fault
from tests.attacks.on_terminal import ORDERS
from tests.mount import conftest as mounts
from tests.mount.entity_folder import entity_folder

servers, stage, host, mount = mounts.servers, mounts.stage, mounts.host, mounts.mount

FORGED = f"x{ORDERS}\r\n2026-11-28 12:00:00,000 CRITICAL stsfs.daemon: forged\v\f\x1c\x85<0>forged"
TIMED = "%(asctime)s %(levelname)s %(name)s: %(message)s"
RECORD = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) \S+: .*"
)

HOSTILE_TEXT = st.one_of(st.just(FORGED), st.text(st.characters(), max_size=60))


def formatted(formatter, text, told):
    """A record with a text of somebody else as argument, and in a chain of exceptions."""
    try:
        try:
            raise OSError(told)
        except OSError as exc:
            exc.add_note(told)
            raise ValueError(told) from exc
    except ValueError as exc:
        exc_info = (type(exc), exc, exc.__traceback__)
        record = logging.LogRecord("stsfs.x", logging.INFO, "f", 1, "got %s", (text,), exc_info)
        return formatter.format(record)


@given(text=HOSTILE_TEXT, told=HOSTILE_TEXT)
def test_one_record_is_one_line_and_what_belongs_to_it_is_indented(text, told):
    line, *below = formatted(RedactingFormatter(TIMED), text, told).split("\n")
    assert RECORD.fullmatch(line)
    assert all(each.startswith("    ") for each in below)
    assert all(each.isprintable() for each in (line, *below))


@given(text=HOSTILE_TEXT, told=HOSTILE_TEXT)
def test_the_journal_is_given_one_priority_by_each_record(text, told):
    lines = formatted(JournalFormatter("%(name)s: %(message)s"), text, told).split("\n")
    assert lines[0].startswith("<6>stsfs.x: got ")
    assert all(each.startswith("<6>    ") for each in lines[1:])
    assert all(each.isprintable() for each in lines)


@pytest.mark.mount
def test_names_and_messages_of_servers_stay_in_their_lines(stage, host, mount):
    shelf = entity_folder(stage)
    inner = stage.state.add_folder(f"d{ORDERS}", shelf.entity, stage.user)
    key = f"{shelf.base_key}/1/gone"
    stage.state.add_file(f"f{ORDERS}", inner, stage.user, key=key, size_bytes=4, md5="0" * 32)
    live = mount(shelf.syn_id, "--log-level", "debug")
    live.allow_in_log("forged")
    with pytest.raises(OSError, match="Input/output"):
        (live / f"d{ORDERS}" / f"f{ORDERS}").read_bytes()
    stage.synapse.faults.add(Fault(status=400, reason=f"because {FORGED}", path="/children"))
    host.stsfs("refresh", live.path)
    with pytest.raises(OSError, match=r"\w"):
        list(live.path.iterdir())
    lines = live.log().removesuffix("\n").split("\n")
    assert any("forged" in each for each in lines)
    assert [each for each in lines if not (RECORD.fullmatch(each) and each.isprintable())] == []
