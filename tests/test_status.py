"""What `stsfs status` makes of a daemon's answer."""

from stsfs.cli import status_view
from stsfs.cli.tables import console, printable

STATUS = {
    "location": "syn1",
    "uri": "s3://bucket/base",
    "mode": "read-only",
    "mount_path": "/m",
    "pid": 12,
    "uptime_s": 90061,
    "credentials": {
        "source": "Synapse STS",
        "seconds_left": 3599,
        "renewals": 2,
        "failures": 1,
        "last_error": "Synapse is down.",
    },
    "requests": {"GET": {"count": 7, "bytes": 3 << 20}, "LIST": {"count": 1}},
    "cache": {
        "budget_bytes": 1 << 30,
        "used_bytes": 1 << 20,
        "hits": 5,
        "misses": 2,
        "hit_bytes": 10,
        "miss_bytes": 2048,
    },
    "errors": [
        {"path": "a\x1b[31m[bold]b\n", "errno": "EACCES", "sentence": "No.", "when": 0.0},
    ],
    "tuning": {"read_ahead_kib": 4096, "max_background": 64, "could_not": ["raise x"]},
    "hidden": {"count": 3},
}


def rendered(answer):
    screen = console()
    with screen.capture() as capture:
        for section in status_view.sections(answer):
            screen.print(section)
    return capture.get()


def test_status_shows_all_that_the_daemon_says():
    text = rendered(STATUS)
    for words in (
        "syn1", "s3://bucket/base", "read-only", "1 day, 1:01:01", "Synapse STS", "0:59:59",
        "Synapse is down.", "3.0 MiB", "1.0 MiB of 1.0 GiB", "5 (10 B)", "2 (2.0 KiB)", "EACCES",
        "4096 KiB", "raise x", "3 that cannot",
    ):  # fmt: skip
        assert words in text


def test_control_characters_of_keys_do_not_reach_the_terminal():
    assert "a\\x1b[31m[bold]b\\n" in rendered(STATUS)
    assert printable("ü\udcff\t") == "ü\\udcff\\t"


def test_status_of_a_daemon_that_says_little():
    assert "location" in rendered({"location": "x"})


def test_credentials_without_end_and_over():
    assert "no end" in rendered({"credentials": {"seconds_left": None}})
    assert "over" in rendered({"credentials": {"seconds_left": -3}})
