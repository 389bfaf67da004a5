"""`stsfs verify` over a directory that passes for a mount."""

import errno
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from stsfs.cli import asking, verify_check, verify_files
from stsfs.cli.main import _COMMANDS, main
from stsfs.cli.verify_check import in_threads
from stsfs.cli.verify_progress import meter
from stsfs.cli.verify_report import Report
from stsfs.errors import DeadlineExceeded, NoSuchMount
from tests.schemas import schema
from tests.verify_stage import Stage, md5

ROOT = Path(__file__).parents[1]
HANG_S = 120

COMMAND = """
import sys
from pathlib import Path
from stsfs.cli import asking
from stsfs.cli.verify import verify
from tests.verify_stage import Stage

known = Stage(Path(sys.argv[1]), Path(sys.argv[2])).known()
asking.runtime_dir.records = lambda: [known]
verify(sys.argv[3:])
"""
"""The command as a process: mount, socket, arguments."""


@pytest.fixture
def stage(tmp_path, monkeypatch):
    root = tmp_path / "m"
    root.mkdir()
    with tempfile.TemporaryDirectory() as short:
        made = Stage(root, Path(short, "s"))
        monkeypatch.setattr(asking.runtime_dir, "records", lambda: [made.known()])
        monkeypatch.setitem(_COMMANDS, "verify", "stsfs.cli.verify:verify")
        monkeypatch.chdir(tmp_path)
        server = made.serve()
        yield made
        server.shutdown()
        server.server_close()


@pytest.fixture
def verify():
    return lambda *arguments: CliRunner().invoke(main, ["verify", *map(str, arguments)])


def summary(done):
    value = json.loads(done.stdout)
    Draft202012Validator(schema("verify")).validate(value)
    return value


def counts(value):
    return [value[name] for name in ("ok", "mismatch", "unreadable", "no_md5", "resumed")]


def lines(report):
    checker = Draft202012Validator({**schema("verify")["$defs"]["line"]})
    values = [json.loads(line) for line in report.read_text().splitlines()]
    for value in values:
        checker.validate(value)
    return values


def test_the_schema_is_one():
    Draft202012Validator.check_schema(schema("verify"))
    assert schema("verify")["title"].startswith("stsfs verify ")


def test_a_tree_that_is_as_synapse_says_ends_with_0(stage, verify):
    stage.write("a", b"a" * 3_000_000)
    stage.write("d/e/b", b"")
    done = verify()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("2 of 2 files are as Synapse's MD5 says. ")
    value = summary(verify("--json", stage.root))
    assert (counts(value), value["read_bytes"]) == ([2, 0, 0, 0, 0], 3_000_000)


def test_a_file_that_differs_is_named_with_both_digests_and_ends_with_38(stage, verify):
    stage.write("good")
    stage.write("bad\n", b"damaged", md5=md5(b"original"))
    done = verify("m")
    assert done.exit_code == 38
    first, second = done.stdout.splitlines()
    assert first.startswith(f"mismatch: {stage.root}/bad\\n: ")
    assert md5(b"original") in first
    assert md5(b"damaged") in first
    assert second.startswith("1 of 2 files are as Synapse's MD5 says, 1 differ.")
    assert "1 of 2 files differ" in done.stderr


def test_what_cannot_be_read_is_named_with_errno_and_the_reason_of_the_daemon(stage, verify):
    stage.write("good")
    stage.write("gone", error="Synapse cannot be reached.")
    stage.write("refused").unlink()
    (stage.root / "refused").symlink_to("good")
    (stage.root / "plain").symlink_to("good")
    stage.facts["plain"] = stage.facts["refused"]
    stage.refusals["refused"] = {"errno": "ELOOP", "sentence": "The owner says no."}
    done = verify(stage.root)
    assert done.exit_code == 36
    told = sorted(done.stdout.splitlines()[:-1])
    assert told[0] == f"unreadable: {stage.root}/gone: Synapse cannot be reached."
    assert told[1] == f"unreadable: {stage.root}/plain: ELOOP. {os.strerror(errno.ELOOP)}."
    assert told[2] == f"unreadable: {stage.root}/refused: ELOOP. The owner says no."


def test_a_directory_that_cannot_be_listed_is_a_problem_and_the_rest_is_read(
    stage, verify, monkeypatch
):
    stage.write("a/x")
    stage.write("b/x")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("/a"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(verify_files.os, "scandir", refusing)
    value = summary(verify("--json"))
    assert counts(value) == [1, 0, 1, 0, 0]
    assert (value["problems"][0]["path"], value["problems"][0]["errno"]) == (
        f"{stage.root}/a",
        "EACCES",
    )


def test_a_mismatch_that_the_mount_itself_has_found_counts_as_one(stage, verify, monkeypatch):
    stage.write("bad", b"damaged", md5=md5(b"original"))
    sentence = f"It has the MD5 {md5(b'damaged')}, but Synapse's MD5 is {md5(b'original')}."
    stage.refusals["bad"] = {"errno": "EIO", "sentence": sentence}

    def failing(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(verify_check.os, "preadv", failing)
    value = summary(verify("--json"))
    assert counts(value) == [0, 1, 0, 0, 0]
    assert value["problems"][0]["found_md5"] == md5(b"damaged")


def test_files_without_md5_are_counted_and_a_mount_of_nothing_else_is_refused(stage, verify):
    stage.write("keyed", md5=None, entity_id=None, version=None)
    done = verify()
    assert (done.exit_code, "--view entities" in done.stderr) == (2, True)
    stage.write("known")
    assert counts(summary(verify("--json"))) == [1, 0, 0, 1, 0]


def test_a_file_that_is_replaced_meanwhile_is_compared_with_what_it_is_now(stage, verify):
    path = stage.write("f", b"old")

    def replace(paths):
        if len(stage.asked) == 1:
            path.write_bytes(b"newer")
        else:
            stage.facts["f"] |= {"version": 2, "md5": md5(b"newer"), "etag": '"2"'}

    stage.before_answer = replace
    assert counts(summary(verify("--json"))) == [1, 0, 0, 0, 0]


def test_a_stale_handle_is_read_again_but_not_for_ever(stage, verify, monkeypatch):
    stage.write("f")

    def failing(*arguments):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(verify_check.os, "preadv", failing)
    value = summary(verify("--json"))
    assert (counts(value), value["problems"][0]["errno"]) == ([0, 0, 1, 0, 0], "ESTALE")


# What is asked.


def test_questions_hold_a_hundred_files_and_no_more_bytes_than_the_daemon_reads(stage, verify):
    for number in range(230):
        stage.write(f"many/{number:03}", b"")
    for number in range(30):
        stage.write(f"long/{number:02}{'ü' * 120}/{'ü' * 120}", b"")
    assert counts(summary(verify("--json"))) == [260, 0, 0, 0, 0]
    assert max(map(len, stage.asked)) == 100
    assert max(len(json.dumps(paths)) for paths in stage.asked) < 40_000
    assert sum(map(len, stage.asked)) == 260


def test_a_question_that_takes_too_long_is_asked_in_halves(stage, verify):
    for name in "abcde":
        stage.write(name)

    def slow(paths):
        if len(paths) > 2:
            raise DeadlineExceeded("No answer.")

    stage.before_answer = slow
    assert counts(summary(verify("--json"))) == [5, 0, 0, 0, 0]


def test_paths_may_be_files_or_directories_and_are_read_once(stage, verify):
    for name in ("d/a", "d/b", "e/a", "f"):
        stage.write(name)
    assert counts(summary(verify("--json", "m/d", "m/d/a", "m/f", "m/x/../f"))) == [3, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "code"), [(["m/absent"], 40), (["/usr"], 5), (["--resume"], 2), (["--jobs=0"], 2)]
)
def test_what_cannot_be_meant_is_refused(stage, verify, arguments, code):
    assert verify(*arguments).exit_code == code


def test_a_dead_mount_is_told_at_once(stage, verify, monkeypatch):
    monkeypatch.setattr(asking.runtime_dir, "records", lambda: [stage.known("dead")])
    assert verify().exit_code == 5


def test_a_daemon_that_ends_meanwhile_ends_the_command(stage, verify):
    stage.write("a", etag=None)

    def ending(paths):
        if len(stage.asked) > 1:
            raise NoSuchMount("It is gone.")

    stage.before_answer = ending
    done = verify("--jobs=2")
    assert (done.exit_code, "It is gone." in done.stderr) == (5, True)


# The report.


def test_a_report_has_a_line_per_file_and_is_not_overwritten(stage, verify, tmp_path):
    report = tmp_path / "report"
    stage.write("good")
    stage.write("bad", b"x", md5=md5(b"y"))
    assert verify("--report", report).exit_code == 38
    assert {line["path"][-4:]: line["outcome"] for line in lines(report)} == {
        "good": "ok",
        "/bad": "mismatch",
    }
    done = verify("--report", report)
    assert (done.exit_code, "--resume" in done.stderr) == (2, True)


def test_resuming_reads_only_what_is_not_known_to_be_right_or_has_changed(stage, verify, tmp_path):
    report = tmp_path / "report"
    for name in ("same", "new version", "new etag", "new md5"):
        stage.write(name)
    bad = stage.write("bad", b"x", md5=md5(b"y"))
    assert verify("--resume", "--report", report).exit_code == 38
    stage.facts["new version"]["version"] = 2
    stage.facts["new etag"]["etag"] = '"2"'
    stage.write("new md5", b"other")
    bad.write_bytes(b"y")
    value = summary(verify("--json", "--resume", "--report", report))
    assert counts(value) == [5, 0, 0, 0, 1]
    assert len(lines(report)) == 5 + 4


def test_an_etag_that_is_learnt_when_the_file_is_opened_is_in_the_report(stage, verify, tmp_path):
    report = tmp_path / "report"
    stage.write("f", etag=None)

    def learn(paths):
        stage.facts["f"]["etag"] = None if len(stage.asked) == 1 else '"learnt"'

    stage.before_answer = learn
    assert verify("--report", report).exit_code == 0
    assert lines(report)[0]["etag"] == '"learnt"'
    assert counts(summary(verify("--json", "--resume", "--report", report))) == [1, 0, 0, 0, 1]


def test_a_report_survives_kill_9_and_a_last_line_that_was_cut(stage, verify, tmp_path):
    report = tmp_path / "report"
    for name in "ab":
        stage.write(name)
    stage.write("c", etag=None)  # asked about once more when it has been read
    reached, killed = threading.Event(), threading.Event()

    def hold(paths):
        if len(stage.asked) == 2:
            reached.set()
            killed.wait(HANG_S)

    stage.before_answer = hold
    command = [sys.executable, "-c", COMMAND, stage.root, stage.socket]
    with subprocess.Popen([*command, "--jobs=1", "--report", report], cwd=ROOT) as child:
        assert reached.wait(HANG_S)
        child.kill()
    killed.set()
    stage.facts["c"]["etag"] = '"learnt"'
    assert [Path(line["path"]).name for line in lines(report)] == ["a", "b"]
    with open(report, "a") as file:
        file.write('{"path": "/cut')
    assert counts(summary(verify("--json", "--resume", "--report", report))) == [3, 0, 0, 0, 2]
    assert [Path(line["path"]).name for line in lines(report)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text", ["no JSON\n", "[]\n", '{"path": "x"}\n', "a token", '{"path": "x"}', '{"a": "']
)
def test_a_file_that_is_no_report_is_not_touched(stage, verify, tmp_path, text):
    other = tmp_path / "other"
    other.write_text(text)
    done = verify("--resume", "--report", other)
    assert (done.exit_code, "Line 1" in done.stderr, other.read_text()) == (2, True, text)


@pytest.mark.parametrize("cut_bytes", [1, 2, 40])
def test_of_a_last_line_that_was_cut_off_nothing_is_lost_but_what_is_missing(
    stage, verify, tmp_path, cut_bytes
):
    report = tmp_path / "report"
    stage.write("a")
    assert verify("--report", report).exit_code == 0
    whole = report.read_bytes()
    report.write_bytes(whole[:-cut_bytes])
    is_known = cut_bytes == 1
    done = verify("--json", "--resume", "--report", report)
    assert counts(summary(done)) == [1, 0, 0, 0, is_known]
    assert len(lines(report)) == 1


def test_a_report_has_one_writer_and_needs_a_place(stage, verify, tmp_path):
    report = tmp_path / "report"
    with closing(Report(report, resume=False)):
        done = verify("--resume", "--report", report)
        assert (done.exit_code, "Another" in done.stderr) == (2, True)
    assert verify("--resume", "--report", report).exit_code == 0
    assert verify("--report", tmp_path / "absent" / "report").exit_code == 2


# Threads and the bar.


def test_an_error_in_a_thread_ends_the_others_and_is_raised():
    began, stop, seen = threading.Event(), threading.Event(), []

    def work(item):
        seen.append(item)
        if item == 0:
            began.set()
            assert stop.wait(120)
            raise verify_check.Stopped
        assert began.wait(120)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_threads(work, range(10_000), jobs=2, stop=stop)
    assert sorted(seen) == [0, 1]


def test_an_interrupt_stops_the_threads():
    stop, running = threading.Event(), threading.Event()

    def work(item):
        running.set()
        assert stop.wait(120)

    def items():
        yield 1
        assert running.wait(120)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_threads(work, items(), jobs=2, stop=stop)


def test_a_person_at_a_terminal_sees_files_and_bytes(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with meter() as bar:
        bar.found(2 << 20)
        bar.found(0)
        bar.read(1 << 20)
        bar.done()
    assert "1 of 2 files" in screen.getvalue()
    assert "1.0/2.0 MiB" in screen.getvalue()
