"""What `stsfs status` makes of a daemon's answer."""

from stsfs.cli import status_view
from stsfs.cli.tables import console
from stsfs.shown import shown

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
        {"path": "a\x1b[31m[bold]b\n", "errno": "EACCES", "sentence": "No.", "when_unix_s": 0.0},
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
        "Synapse is down.", "3.0 MiB", "1.0 MiB of 1.0 GiB", "0 % (10 B of 2.0 KiB in 7 reads)",
        "EACCES", "4096 KiB", "raise x", "3 that no path can show",
    ):  # fmt: skip
        assert words in text


def test_control_characters_of_keys_do_not_reach_the_terminal():
    assert "a\\x1b[31m[bold]b\\n" in rendered(STATUS)
    assert shown("ü\udcff\t") == "ü\\udcff\\t"


def test_status_of_a_daemon_that_says_little():
    assert "location" in rendered({"location": "x"})


def test_status_shows_the_disk_cache_streams_and_throttling():
    text = rendered(
        {
            "cache": {"hits": 0, "misses": 0},
            "disk_cache": {
                "directory": "/cache",
                "state": "read-only",
                "reason": "The disk is full.",
                "stored_bytes": 1 << 20,
                "limit_bytes": 1 << 30,
                "hit_bytes": 3 << 20,
                "miss_bytes": 1 << 20,
            },
            "requests": {"get": {"count": 7, "retries": 2, "failures": 1}},
            "throttled": 3,
            "open_files": 5,
            "handles": [
                handle("/a", stream(4 << 20, 8 << 20), stream(1 << 20, 2 << 20), stream(0, 0)),
                handle("/b", stream(0, 0)),
                handle("/c"),
                handle("/d", direct=True),
            ],
        }
    )
    for words in (
        "1.0 MiB of 1.0 GiB in /cache", "read-only: The disk is full.",
        "75 % (3.0 MiB of 4.0 MiB that memory lacked)", "asked 3 times", "and 1 more",
    ):  # fmt: skip
        assert words in text
    shown = [line.split() for line in text.splitlines()]
    assert ["/a", "9.0", "MiB", "4.0", "MiB", "8.0", "MiB", "8", "B"] in shown
    assert ["1.0", "MiB", "2.0", "MiB", "8", "B"] in shown
    for path, how in (("/b", "random"), ("/c", "not read"), ("/d", "direct")):
        assert ["/" + path[1:], "9.0", "MiB", *how.split()] in shown


def handle(path, *streams, direct=False):
    return {"path": path, "size_bytes": 9 << 20, "direct": direct, "streams": list(streams)}


def stream(position, window_bytes):
    return {"position": position, "window_bytes": window_bytes, "ahead_bytes": 8}


def test_hidden_entries_are_shown_with_their_reasons_and_how_many_more_there_are():
    screen = console()
    with screen.capture() as capture:
        keys = [{"key": "a//b\n", "reason": "there is no name"}]
        screen.print(status_view.hidden_entries({"count": 12, "keys": keys, "more": 11}))
        screen.print(status_view.hidden_entries({"count": 0}))
    text = capture.get()
    for words in ("a//b\\n", "there is no name", "and 11 more", "Nothing is hidden"):
        assert words in text


def test_credentials_without_end_and_over():
    assert "no end" in rendered({"credentials": {"seconds_left": None}})
    assert "over" in rendered({"credentials": {"seconds_left": -3}})


def test_bugs_are_shown_with_what_to_do_about_them():
    bug = {"when_unix_s": 0.0, "task": "upload of a\x1bb", "text": "KeyError: 'x'"}
    text = rendered({"bugs": {"count": 12, "log_file": "/var/log/s", "latest": [bug] * 12}})
    for words in ("12 times", "a\\x1bb", "KeyError: 'x'", "report it", "/var/log/s", "goes on"):
        assert words in " ".join(text.split())
    assert text.count("KeyError") == status_view.BUGS_SHOWN
    assert "Bugs" not in rendered({"bugs": {"count": 0, "log_file": None, "latest": []}})
