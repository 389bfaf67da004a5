"""What the commands tell of Synapse: in status, in info, and at the end of a mount."""

from pathlib import Path

import pytest

from stsfs.cli import location_view, mounted, path_view, status_view
from stsfs.cli.tables import console
from stsfs.daemon.config import MountConfig

NAMED = [
    {"entity_id": "syn8", "name": "gone\n", "object_key": "base/1/gone", "size_bytes": 5,
     "object_bytes": None},
    {"entity_id": "syn9", "name": "other", "object_key": "base/1/other", "size_bytes": None,
     "object_bytes": 2048},
]  # fmt: skip
DIFFERENCES = {"as_of_unix_s": 0.0, "missing": 3, "other_size": 1, "unregistered": 12}
DIFFERENCES |= {"named": NAMED}


def entities(**changes):
    told = {
        "folders": 200, "folders_listed": 200, "files": 20000, "files_known": 4213,
        "complete": False, "seconds_left": 1620.0, "last_error": "", "index_trouble": "",
        "index_view": None, "index_view_files": None, "index_view_trouble": None,
        "differences": None,
    }  # fmt: skip
    return told | changes


def place(label="syn1", path="/", **changes):
    told = {
        "label": label, "path": path, "uri": f"s3://bucket/{label}", "region": "us-east-1",
        "view": "entities", "view_reason": "it was asked for", "entities": entities(),
        "credentials": {"source": f"Synapse STS for {label}", "seconds_left": 60},
    }  # fmt: skip
    return told | changes


def answer(*places):
    first = places[0]
    names = ("uri", "view", "view_reason", "credentials")
    requests = {"foreground": 20, "background": 6, "throttled": 1}
    return {
        "location": ",".join(each["label"] for each in places),
        "locations": list(places),
        "synapse_requests": requests,
        **{name: first[name] for name in names},
    }


def lines(*parts):
    """What is printed, line by line, with single spaces."""
    screen = console()
    with screen.capture() as capture:
        for part in parts:
            screen.print(part)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def status_lines(*places):
    return lines(*status_view.sections(answer(*places)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "4213 of 20000 files, 200 of 200 folders known; about 27 min to go"),
        ({"seconds_left": 20.0}, "4213 of 20000 files, 200 of 200 folders known; nearly done"),
        (
            {"folders_listed": 180},
            "4213 of 20000 files, 180 of 200 folders known; about 27 min to go, and more for what"
            " the other folders hold",
        ),
        ({"complete": True, "files_known": 20000}, "all 20000 files in 200 folders known"),
        (
            {"complete": True, "files": 1, "files_known": 1, "folders": 1, "folders_listed": 1},
            "all 1 file in 1 folder known",
        ),
        (
            {"complete": True},
            "4213 of 20000 files, 200 of 200 folders known; the rest is asked for when somebody"
            " looks",
        ),
    ],
)
def test_status_says_how_far_the_index_is(changes, told):
    assert f"index {told}" in status_lines(place(entities=entities(**changes)))


def test_status_says_which_view_was_chosen_and_why_and_who_asked_synapse():
    told = status_lines(place())
    assert "view entities (because it was asked for)" in told
    assert "requests 20 that somebody waited for, 6 in the background" in told
    assert "throttled once" in told
    assert "differences" not in "".join(told)  # nothing has been compared


def test_status_names_the_index_view_and_whatever_is_wrong():
    trouble = {"last_error": "Synapse is down.", "index_trouble": "The disk is full."}
    told = status_lines(place(entities=entities(index_view="syn7", index_view_files=1, **trouble)))
    assert "index waits Synapse is down." in told
    assert "index is not kept The disk is full." in told
    assert "index view syn7: told of 1 file" in told
    view = {"index_view": "syn7", "index_view_trouble": "There is no syn7."}
    assert "index view syn7: There is no syn7." in status_lines(place(entities=entities(**view)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {},
            "3 files have no object, 1 has an object of another size,"
            " 12 objects belong to no file shown; see --differences",
        ),
        ({"missing": 1, "other_size": 2, "unregistered": 0},
         "1 file has no object, 2 have an object of another size; see --differences"),
        ({"missing": 0, "unregistered": 1}, "1 file has an object of another size,"
         " 1 object belongs to no file shown; see --differences"),
        ({"missing": 0, "other_size": 0}, "12 objects belong to no file shown"),
        ({"missing": 0, "other_size": 0, "unregistered": 0}, "none between Synapse and the bucket"),
    ],
)  # fmt: skip
def test_status_counts_where_synapse_and_the_bucket_disagree(changes, told):
    found = entities(differences=DIFFERENCES | changes)
    assert f"differences {told}" in status_lines(place(entities=found))


def test_differences_are_listed_by_file_and_those_left_out_are_counted():
    found = place(entities=entities(differences=DIFFERENCES))
    told = lines(*location_view.differences(answer(found, place("syn2", entities=None))))
    assert told[0].startswith("syn1: 3 files have no object, 1 has")
    assert "syn8 gone\\n 5 B no object base/1/gone" in told
    assert "syn9 other not told 2.0 KiB base/1/other" in told
    assert told[-1].startswith("and 2 more. Listed 19")


@pytest.mark.parametrize("place_entities", [None, entities()])
def test_without_an_inventory_there_is_nothing_to_compare(place_entities):
    told = lines(*location_view.differences(answer(place(entities=place_entities))))
    assert told[0].startswith("Nothing to compare")


def test_each_of_several_locations_has_a_section_with_its_own_credentials():
    keys = place("s3://lab/raw", "/raw", view="keys", view_reason="it is in S3", entities=None)
    text = "\n".join(status_lines(place("syn1", "/one"), keys))
    assert "location syn1,s3://lab/raw" in text
    first, second = text.index("syn1 on /one"), text.index("s3://lab/raw on /raw")
    assert first < text.index("source Synapse STS for syn1") < second
    assert second < text.index("view keys (because it is in S3)")
    assert text.count("4213 of 20000 files") == 1
    assert text.count("source ") == 2
    assert "Credentials" not in text


# info


def info(**changes):
    told = {
        "path": "/x", "mount_path": "/m", "kind": "file", "location": "syn1",
        "uri": "s3://bucket/k", "size_bytes": 5, "modified_unix_s": 0.0, "etag": '"e"',
        "storage_class": "STANDARD", "inode": 7, "known": None, "properties": {},
    }  # fmt: skip
    return lines(path_view.description(told | changes))


def test_info_shows_what_synapse_knows():
    told = info(properties={"synapse.md5": "0cc1", "synapse.annotation.t": "a\x1b[31m"})
    assert "synapse.md5 0cc1" in told
    assert "synapse.annotation.t a\\x1b[31m" in told


def test_info_of_a_file_that_may_not_be_read_and_of_a_folder_says_no_more_than_is_known():
    told = info(etag=None, size_bytes=None, storage_class="", uri=None)
    assert {"ETag not known before it is opened", "size not told"} <= set(told)
    assert not any(line.startswith("key") for line in told)
    folder = info(kind="directory", uri=None, etag=None, properties={"synapse.id": "syn5"})
    assert folder == ["/m/x", "kind directory", "location syn1", "synapse.id syn5", "inode 7"]


# The last line of mount.


def config(*locations, **options):
    return MountConfig(locations=locations, mount_path=Path("/m"), uid=0, gid=0, **options)


@pytest.mark.parametrize(
    ("view", "reason", "told"),
    [
        ("entities", "it was asked for", "as Synapse shows it"),
        ("entities", "Synapse manages it", "as Synapse shows it: Synapse manages it"),
        ("keys", "keys are paths", "by its keys: keys are paths"),
        ("lock", "pinned on Monday", "as a lock has it: pinned on Monday"),
    ],
)
def test_a_mount_of_one_location_tells_its_view_and_the_reason(view, reason, told):
    shown = answer(place(view=view, view_reason=reason))
    assert mounted.sentence(config("syn1"), shown) == f"syn1 is mounted on /m (read-only, {told})."


def test_a_mount_of_the_past_says_of_which_day():
    said = mounted.sentence(config("syn1", as_of="2026-06-30"), answer(place()))
    assert "as Synapse shows it, in the versions of 2026-06-30)" in said


def test_a_mount_of_several_locations_counts_them_and_says_where_the_reasons_are():
    shown = answer(place(), place("syn2"), place("s3://lab/raw", view="keys"))
    assert mounted.sentence(config("syn9", "s3://lab/raw"), shown) == (
        "syn9,s3://lab/raw is mounted on /m (read-only): 3 locations, 1 by its keys,"
        " 2 as Synapse shows it; `stsfs status /m` says why."
    )


def test_a_mount_of_s3_has_nothing_to_choose_and_asks_nobody():
    assert mounted.status_of(config("s3://lab/raw")) is None
    told = "s3://lab/raw is mounted on /m (read-only)."
    assert mounted.sentence(config("s3://lab/raw"), None) == told
    assert mounted.sentence(config("s3://lab/raw"), answer(place(view="keys"))) == told


def test_a_mount_that_can_be_written_to_is_not_called_read_only():
    mounted_rw = config("s3://lab/raw", rw=True, staging_dir=Path("/staging"))
    assert mounted.sentence(mounted_rw, None) == "s3://lab/raw is mounted on /m (read-write)."
