import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsfs import redaction
from stsfs.daemon import logs
from stsfs.daemon.logs import JournalFormatter, RedactingFormatter
from stsfs.redaction import REDACTED, redact, register_secret
from tests.hangs import bounded

ROOT = Path(__file__).parents[1]
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.c2lnbmF0dXJl-_x"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1"
KEY_LIKE = "Cohort1/RNA/Plate07/Sample0012/Counts/S3"
assert len(KEY_LIKE) == len(SECRET_KEY)


@pytest.fixture(autouse=True)
def no_secrets_known(monkeypatch):
    monkeypatch.setattr(redaction, "_registered", {})
    monkeypatch.setattr(redaction, "_longest_first", ())


def formatted(formatter, message, *args, exc_info=None, level=logging.INFO):
    record = logging.LogRecord("stsfs.x", level, "f.py", 1, message, args, exc_info)
    return formatter.format(record)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def-123~x==",
        "{'authorization': 'bearer SECRETSECRET'}",
        "GET /k?X-Amz-Security-Token=IQoJb3JpZ2lu%2F%2F&x=1",
        "GET /k?X-Amz-Signature=0123456789abcdef&x=1",
        "AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature=0123456789abcdef",
        "(b'x-amz-security-token', b'IQoJb3JpZ2lu//')",
        "{'X-Amz-Security-Token': 'IQoJb3JpZ2lu//'}",
        'body {"secretAccessKey":"short/one","sessionToken":"IQoJb3JpZ2lu//"}',
        'escaped {\\"sessionToken\\":\\"IQoJb3JpZ2lu//\\"}',
        "aws_secret_access_key = short/one",
        f"token {JWT} given",
        f"'SecretAccessKey': '{SECRET_KEY}'",
        "authtoken=SECRETSECRET",
    ],
)
def test_a_token_and_what_follows_the_name_of_a_secret_are_blanked(text):
    assert REDACTED in redact(text)
    for secret in ("abc.def", "SECRET", "IQoJ", "0123456789abcdef", "short/one", "eyJ", "wJalr"):
        assert secret not in redact(text).replace("aws_secret_access_key", "")


@pytest.mark.parametrize(
    "text",
    [
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "9e107d9d372bb6826bd81d3542a419d6 etag of s3://bucket/cohort/s1.bam",
        "read(inode=12, offset=4096, length=131072)",
        "key data/Cohort_1/sample-00012.recalibrated.sorted.bam of syn12345",
        "the token was rejected, and the signature, too",
        "/data/Cohort1/Sample.bam",
        f"There is no {KEY_LIKE} in this folder.",
        f"s3://bucket/{KEY_LIKE}",
        "s3://bucket/blobs/Da39A3EE5E6B4B0D3255BFEF95601890AFD80709",
        "run/2f/eyJack.tar.gz",
        "eyJhbGci.eyJ.eyJ",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert redact(text) == text


@given(
    secret=st.text(
        st.characters(min_codepoint=33, max_codepoint=126), min_size=redaction.SECRET_CHARS_MIN
    ),
    before=st.text(),
    after=st.text(),
)
def test_a_registered_value_passes_in_no_context(secret, before, after):
    redaction._registered.clear()
    register_secret(secret)
    if secret not in REDACTED:
        assert secret not in redact(f"{before}{secret}{after}").replace(REDACTED, "")


def test_a_registered_value_inside_another_does_not_betray_the_rest():
    register_secret("middle-part")
    register_secret("front-middle-part-back")
    assert redact("x front-middle-part-back y") == f"x {REDACTED} y"


@pytest.mark.parametrize(
    "piece",
    ["eyJ-", "eyJa.-", "a/", "Bearer ", "aA1 ", "password=", "secret_", "signature \\",
     'password"  ,', "password          ", "aA1/" * 10 + "+"],
)  # fmt: skip
def test_a_text_that_nearly_holds_secrets_for_ever_takes_no_time(piece):
    with bounded(20):
        redact(piece * (300_000 // len(piece)))


def test_short_and_missing_values_are_not_registered():
    register_secret(None)
    register_secret("")
    register_secret("read")
    assert redact("read it") == "read it"


def test_renewals_do_not_grow_the_list_for_ever():
    for number in range(1000):
        register_secret(f"secret-{number:04}")
    assert len(redaction._registered) == redaction._REGISTERED_MAX
    assert "secret-0999" not in redact("secret-0999")


def test_arguments_and_tracebacks_are_redacted():
    register_secret("hunter2hunter2")
    try:
        raise ValueError("bad hunter2hunter2")
    except ValueError:
        text = formatted(
            RedactingFormatter("%(message)s"), "got %s", "hunter2hunter2", exc_info=sys.exc_info()
        )
    assert "hunter2" not in text
    assert f"got {REDACTED}\n    Traceback" in text
    assert f"    ValueError: bad {REDACTED}" in text


def test_each_line_for_the_journal_has_its_priority():
    formatter = JournalFormatter("%(message)s")
    exc_info = (ValueError, ValueError("c"), None)
    text = formatted(formatter, "a\nb", level=logging.CRITICAL, exc_info=exc_info)
    assert text == "<2>a\\nb\n<2>    ValueError: c"
    levels = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
    assert [formatted(formatter, "x", level=n)[1] for n in levels] == ["3", "4", "6", "7"]


def run_python(code, **environment):
    """Logging is set up for the whole process, so these tests have one of their own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


LOG_SOMETHING = """
import logging, os, sys
from stsfs.daemon.logs import log_to_stderr
{setup}
log_to_stderr("info")
log = logging.getLogger("stsfs.x")
log.debug("quiet"); log.info("hello"); logging.getLogger("library").info("chatter")
"""


def test_stderr_has_the_time_unless_the_journal_reads_it():
    plain = run_python(LOG_SOMETHING.format(setup=""), JOURNAL_STREAM="1:2").stderr
    assert plain.endswith(" INFO stsfs.x: hello\n")
    match = "s = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'"
    assert run_python(LOG_SOMETHING.format(setup=match)).stderr == "<6>stsfs.x: hello\n"


def test_the_log_file_is_private_limited_and_rotated(tmp_path):
    path = tmp_path / "log"
    run_python(
        f"""
import logging
from stsfs.daemon import logs
logs.LOG_FILE_BYTES_MAX = 1000
logs.log_to_file({str(path)!r}, "info")
for n in range(100):
    logging.getLogger("stsfs").info("line %d Bearer SECRETSECRET", n)
"""
    )
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + logs.LOG_FILES_KEPT
    assert all(file.stat().st_size <= 1000 for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert "line 99" in path.read_text()
    assert "SECRET" not in "".join(file.read_text() for file in files)


def test_warnings_threads_and_lost_exceptions_are_logged(tmp_path):
    path = tmp_path / "log"
    run_python(
        f"""
import threading, warnings
from stsfs.daemon import logs
logs.log_to_file({str(path)!r}, "info")
warnings.warn("old habit")
def fail(): raise ValueError("in a thread")
thread = threading.Thread(target=fail); thread.start(); thread.join()
class Lost:
    def __del__(self): raise ValueError("in __del__")
Lost()
"""
    )
    text = path.read_text()
    assert "old habit" in text
    assert "ValueError: in a thread" in text
    assert "ValueError: in __del__" in text
