"""What `stsfs status` tells of the server that changes go to."""

import io

import pytest
from rich.console import Console

from stsfs.cli.status_view import sections, server_rows
from stsfs.store.capabilities import Condition, ServerCapabilities, Verdict


def server(**changes):
    known = ServerCapabilities(acl="", conditions=False)
    for condition in Condition:
        known.found(condition, Verdict.IGNORED)
    known.found(Condition.PUT_IF_ABSENT, Verdict.HONOURED)
    return {
        "label": "s3://lab/base",
        "uri": "s3://lab/base/",
        "found_by": "probe",
        "reason": "",
        "conditions": {str(name): str(verdict) for name, verdict in known.verdicts.items()},
        "two_writers": known.two_writers(),
        "copies_parts": True,
        "uploads_in_doubt": 0,
    } | changes


def shown(*servers):
    answer = {"writing": {"files": 0, "pending": [], "servers": list(servers)}}
    console = Console(file=io.StringIO(), width=400)
    for section in sections(answer):
        console.print(section)
    return console.file.getvalue()


def test_what_is_ignored_is_shown_with_what_it_means():
    told = shown(server())
    assert "Two writers of one file can overwrite each other unseen" in told
    assert "honoured: put if absent; ignored: put if match, complete if absent" in told
    assert "asking the server" in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reason": "The role may not delete."}, "The role may not delete."),
        ({"copies_parts": False}, "the server does not copy parts"),
        ({"uploads_in_doubt": 2}, "2 may have stayed behind in the bucket; a lifecycle rule"),
        ({"uploads_in_doubt": 2}, "AbortIncompleteMultipartUpload"),
        ({"found_by": "option"}, "--conditional-writes"),
    ],
)
def test_each_peculiarity_is_told(changes, told):
    assert told in shown(server(**changes))
    assert told not in shown(server())
    assert any(told in row for row in server_rows(server(**changes)).values())


def test_of_several_locations_each_is_named():
    told = shown(server(label="syn1"), server(label="syn2\x1b[31m"))
    assert "Writing to syn1" in told
    assert "\x1b" not in told


def test_the_answer_of_an_earlier_version_is_shown_too():
    assert "Writing" not in shown()
