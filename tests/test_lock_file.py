import dataclasses
import os

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stsfs.entities.lock_file import (
    COLUMNS,
    Lock,
    LockedFile,
    is_lock_file,
    load,
    parse,
    render,
)
from stsfs.errors import BadArgument

BAM = LockedFile(
    path="cohort/s1.bam",
    entity_id="syn22",
    version=3,
    size_bytes=41943040,
    md5="18eaf55bb6172be2a0c1d8a7d5c4b3f2",
    etag='"18eaf55b-5"',
    key="base/f1/7/uuid/s1.bam",
    modified_unix_s=1763625600.0,
)
LOCK = Lock(
    location="syn12345",
    bucket="study-data",
    base_key="base/f1",
    region="us-east-1",
    endpoint_url=None,
    view="entities",
    pinned_unix_s=1763981175.25,
    files=(BAM, dataclasses.replace(BAM, path="readme.txt", entity_id="syn23")),
)
TEXT = (
    "stsfs-lock 1\n"
    "location\tsyn12345\n"
    "bucket\tstudy-data\n"
    "base_key\tbase/f1\n"
    "region\tus-east-1\n"
    "view\tentities\n"
    "pinned_on\t2025-11-24T10:46:15.250Z\n"
    "path\tentity\tversion\tsize_bytes\tmd5\tetag\tkey\tmodified_on\n"
    "cohort/s1.bam\tsyn22\t3\t41943040\t18eaf55bb6172be2a0c1d8a7d5c4b3f2\t"
    '"18eaf55b-5"\tbase/f1/7/uuid/s1.bam\t2025-11-20T08:00:00.000Z\n'
    "readme.txt\tsyn23\t3\t41943040\t18eaf55bb6172be2a0c1d8a7d5c4b3f2\t"
    '"18eaf55b-5"\tbase/f1/7/uuid/s1.bam\t2025-11-20T08:00:00.000Z\n'
    "end\t2\n"
)
BAM_LINE = TEXT.splitlines()[8]


def text_of(lock):
    return "".join(render(lock))


def with_file(**changes):
    """A lock of one file, some columns of which somebody has changed by hand."""
    cells = dict(zip(COLUMNS, BAM_LINE.split("\t"), strict=True)) | changes
    return TEXT.partition(BAM_LINE)[0] + "\t".join(cells.values()) + "\nend\t1\n"


def with_paths(*paths):
    lines = [BAM_LINE.replace("cohort/s1.bam", path) for path in paths]
    return TEXT.partition(BAM_LINE)[0] + "\n".join([*lines, f"end\t{len(paths)}\n"])


# What stands in the file.


def test_the_format_is_the_documented_one():
    assert text_of(LOCK) == TEXT
    assert parse(TEXT, "data.lock") == LOCK


def test_what_is_unknown_is_a_hyphen_and_a_hyphen_is_escaped():
    bare = LockedFile("-", "", None, 0, "", "", "-", 0.0)
    lock = dataclasses.replace(LOCK, base_key="", region=None, view="keys", files=(bare,))
    assert "\\-\t-\t-\t0\t-\t-\t\\-\t1970-01-01T00:00:00.000Z\n" in text_of(lock)
    assert "base_key\t-\n" in text_of(lock)
    assert parse(text_of(lock), "l") == lock


def test_files_come_in_the_order_of_their_bytes_however_they_are_given():
    paths = ["a/b", "a-b", "a", "Z", "é", "z", "\U0001f9ec"]
    files = tuple(dataclasses.replace(BAM, path=path) for path in paths)
    lines = text_of(dataclasses.replace(LOCK, files=files)).splitlines()
    written = [line.split("\t")[0] for line in lines[8:-1]]
    assert written == sorted(paths, key=str.encode)


def test_one_file_more_is_one_line_more_and_the_count():
    more = dataclasses.replace(LOCK, files=(*LOCK.files, dataclasses.replace(BAM, path="d")))
    added = set(text_of(more).splitlines()) - set(TEXT.splitlines())
    assert {line.split("\t")[0] for line in added} == {"d", "end"}


def test_another_moment_of_the_same_state_differs_in_one_line():
    later = text_of(dataclasses.replace(LOCK, pinned_unix_s=1763990000.0))
    assert {line.split("\t")[0] for line in set(later.split("\n")) ^ set(TEXT.split("\n"))} == {
        "pinned_on"
    }


def test_lines_and_line_ends_of_windows_are_read_too():
    assert parse(TEXT.splitlines(keepends=True), "l") == LOCK
    assert parse(TEXT.replace("\n", "\r\n"), "l") == LOCK


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
NAMES = NAMES.filter(lambda name: name not in {".", ".."} and len(name.encode()) <= 255)
TIMES = st.integers(-(10**13), 10**14).map(lambda milliseconds: milliseconds / 1000)
MD5S = st.just("") | st.text("0123456789abcdef", min_size=32, max_size=32)
ETAGS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=50)


@st.composite
def locks(draw):
    base_key = draw(st.just("") | NAMES)
    prefix = f"{base_key}/" if base_key else ""
    directories = [f"{name}/" for name in draw(st.lists(NAMES, max_size=2))] + [""]
    files = [
        LockedFile(
            path=draw(st.sampled_from(directories)) + name,
            entity_id=draw(st.sampled_from(["", "syn1", "syn77777777"])),
            version=draw(st.none() | st.integers(1, 10**9)),
            size_bytes=draw(st.integers(0, 5 << 40)),
            md5=draw(MD5S),
            etag=draw(ETAGS),
            key=prefix + draw(NAMES),
            modified_unix_s=draw(TIMES),
        )
        for name in draw(st.lists(NAMES, max_size=5))
    ]
    paths = [each.path for each in files]
    assume(len(set(paths)) == len(paths))
    assume(not any(other.startswith(f"{path}/") for path in paths for other in paths))
    assume(not any(path.startswith(".synapse/") or path == ".synapse" for path in paths))
    return Lock(
        location=draw(NAMES),
        bucket="b",
        base_key=base_key,
        region=draw(st.none() | st.just("eu-west-1")),
        endpoint_url=draw(st.none() | st.just("https://minio.example.org")),
        view=draw(st.sampled_from(["entities", "keys"])),
        pinned_unix_s=draw(TIMES),
        files=tuple(sorted(files, key=lambda each: each.path)),
        synapse_url=draw(st.none() | st.just("https://synapse.example.org")),
    )


@given(locks())
def test_whatever_the_names_are_a_lock_is_read_as_it_was_written(lock):
    text = text_of(lock)
    assert parse(text, "l") == lock
    assert len(text.encode().split(b"\n")) == text.count("\n") + 1
    assert text_of(parse(text, "l")) == text


@given(locks(), st.data())
def test_a_lock_that_was_cut_off_is_refused_wherever_it_was(lock, data):
    text = text_of(lock)
    # Without its very last line feed it is still whole.
    length = data.draw(st.integers(0, len(text) - 2))
    with pytest.raises(BadArgument):
        parse(text[:length], "l")


@given(locks(), st.data())
def test_a_lock_that_lost_lines_in_its_middle_is_refused(lock, data):
    lines = list(render(lock))
    assume(lock.files)
    del lines[data.draw(st.integers(-1 - len(lock.files), -2))]
    with pytest.raises(BadArgument, match="are announced"):
        parse(lines, "l")


@given(st.text(), st.integers(0, len(TEXT)), st.integers(0, 40))
def test_an_edited_lock_is_read_or_refused_and_nothing_else(added, start, removed):
    try:
        parsed = parse(TEXT[:start] + added + TEXT[start + removed :], "l")
    except BadArgument:
        return
    assert parse(text_of(parsed), "l") == parsed


# What is refused.


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/./b", "-", "a\0b", "n" * 256],
)
def test_a_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(BadArgument, match=r"l, line 9: .* not a path within a mount"):
        parse(with_file(path=path), "l")


def test_the_directory_of_the_mount_itself_is_refused_where_there_is_one():
    with pytest.raises(BadArgument, match="the mount itself uses"):
        parse(with_file(path=".synapse/by-id/syn1"), "l")
    keys = with_file(path=".synapse/x").replace("view\tentities", "view\tkeys")
    assert parse(keys, "l").files[0].path == ".synapse/x"


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (("a/b", "c", "a/b"), "line 11: 'a/b' is here twice"),
        (("a", "a-b", "a/b/c"), "line 11: 'a/b/c' lies below a file"),
        (("a/b/c", "a/b"), "line 10: 'a/b' is a directory too"),
    ],
)
def test_paths_that_no_tree_can_have_together_are_refused(paths, reason):
    with pytest.raises(BadArgument, match=reason):
        parse(with_paths(*paths), "l")


@pytest.mark.parametrize("key", ["base/f2/secret", "base/f10", "base/f1/", "base/f1", "secret"])
def test_a_key_outside_the_base_key_is_refused(key):
    with pytest.raises(BadArgument, match="does not lie below the base key 'base/f1/'"):
        parse(with_file(key=key), "l")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("entity", "22"),
        ("entity", "syn1/../2"),
        ("version", "0"),
        ("version", "٣"),
        ("size_bytes", "-5"),
        ("size_bytes", "-"),
        ("size_bytes", "9" * 19),
        ("md5", "18EAF55BB6172BE2A0C1D8A7D5C4B3F2"),
        ("etag", '"a"\\r\\nX-Evil: 1'),
        ("modified_on", "yesterday"),
        ("modified_on", "2025-13-01T00:00:00.000Z"),
        ("path", "a\\x"),
        ("path", "a\\"),
        ("path", ""),
        ("path", "one\ttoo many"),
    ],
)
def test_a_column_with_something_else_is_refused_with_its_line(column, value):
    with pytest.raises(BadArgument, match=r"l, line 9: .*stsfs pin"):
        parse(with_file(**{column: value}), "l")


def test_a_file_that_nothing_says_the_place_of_is_refused():
    assert parse(with_file(key="-"), "l").files[0].key == ""
    assert parse(with_file(entity="-"), "l").files[0].entity_id == ""
    with pytest.raises(BadArgument, match="neither a key nor an entity"):
        parse(with_file(key="-", entity="-"), "l")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("stsfs-lock 1\n", "stsfs-lock 2\n", "version '2' .* reads version 1.*stsfs that wrote it"),
        ("stsfs-lock 1\n", "", "line 1: a lock file begins with"),
        ("bucket\tstudy-data\n", "", "line 7: bucket is missing"),
        ("bucket\tstudy-data\n", "bucket\tx\nbucket\tx\n", "line 4: bucket is set twice"),
        ("bucket\tstudy-data\n", "bucket\t-\n", "bucket is missing"),
        ("bucket\tstudy-data\n", "bucket\ta\\nb\n", "which is not a bucket"),
        ("base_key\tbase/f1\n", "", "base_key is missing"),
        ("base_key\tbase/f1\n", "base_key\tbase/f1/\n", "begins or ends with a slash"),
        ("view\tentities", "view\ttree", "'tree', which is not a view: entities or keys"),
        ("region", "colour", "line 5: this is neither a setting"),
        ("pinned_on\t2025", "pinned_on\t25", "pinned_on is .* which is not a time"),
        ("\tetag", "\tETag", "line 8: this is neither a setting"),
        ("end\t2", "end\t3", "line 11: 3 files are announced, and 2 are there"),
        ("end\t2\n", "end\t2\n" + TEXT, "line 12: something follows the end"),
    ],
)
def test_a_changed_frame_is_refused_with_the_reason(old, new, reason):
    assert old in TEXT
    with pytest.raises(BadArgument, match=reason):
        parse(TEXT.replace(old, new, 1), "l")


# On disk.


def test_a_file_is_known_as_a_lock_and_loaded(tmp_path):
    path = tmp_path / "data.lock"
    path.write_text(TEXT)
    assert is_lock_file(path)
    assert load(path) == LOCK


def test_other_files_are_no_locks(tmp_path):
    other, fifo = tmp_path / "other", tmp_path / "fifo"
    other.write_bytes(b"stsfs-locker\n\xff")
    os.mkfifo(fifo)
    for path in [other, fifo, tmp_path, tmp_path / "none", tmp_path / "a\0b"]:
        assert not is_lock_file(path)
    for path in [other, fifo, tmp_path, tmp_path / "none"]:
        with pytest.raises(BadArgument):
            load(path)


def test_a_file_that_is_too_large_for_memory_is_not_read(tmp_path):
    path = tmp_path / "data.lock"
    path.write_text(TEXT)
    os.truncate(path, (1 << 30) + 1)
    with pytest.raises(BadArgument, match="over 1073741824 bytes"):
        load(path)
