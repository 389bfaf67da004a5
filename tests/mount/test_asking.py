"""What a running mount says when it is asked: explain, info, refresh, status, attributes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stsfs.demo.fake_synapse.guard import Fault
from tests.mount.stage import STATIC_KEYS, TOKEN
from tests.mount.test_failures import break_reads, errno_of
from tests.schemas import checked

pytestmark = pytest.mark.mount

LONG = "n" * 300
KERNEL = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
TTL_S = "3600"
"""So long that nothing changes by itself while a test runs."""


@pytest.fixture
def ask(host):
    """ask(command, path, ...) -> the JSON of a command, as its schema says."""

    def run(command, *arguments):
        done = host.stsfs(command, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return checked(command, done.stdout)

    return run


@pytest.fixture
def live(folder, mount):
    folder.write("dir/file", b"0123456789")
    folder.write("owner.txt", b"proof")
    folder.put("dir//below", b"x")
    folder.put(LONG, b"x")
    return mount(folder.syn_id, "--metadata-ttl", TTL_S)


# explain


PLACES = {
    "dir/file": ("file", None),
    "dir": ("directory", None),
    "": ("directory", None),
    "dir/": ("directory", None),
    "dir/../dir//file": ("file", None),
    "absent/below": ("absent", "ENOENT"),
    "dir/file/below": ("absent", "ENOTDIR"),
    "n" * 256: ("absent", "ENAMETOOLONG"),
    "owner.txt": ("reserved", "ENOENT"),
    "dir//below": ("hidden", "ENOENT"),
    LONG: ("hidden", "ENAMETOOLONG"),
}


def test_explain_says_what_a_path_is_and_what_the_rules_answer(live, ask):
    for path, expected in PLACES.items():
        answer = ask("explain", f"{live.path}/{path}")
        assert (answer["kind"], answer["read"]["errno"]) == expected, path
        assert (answer["change"]["allowed"], answer["change"]["errno"]) == (False, "EROFS")
        assert "read-only" in answer["change"]["sentence"]


def test_explain_and_the_kernel_answer_alike(live, ask):
    for path in ("absent", "dir/file/below", "n" * 256, "owner.txt", LONG):
        named = ask("explain", live / path)["read"]["errno"]
        assert errno_of(os.stat, live / path) == named
    assert errno_of(os.mkdir, live / "absent") == ask("explain", live / "absent")["change"]["errno"]


def test_explain_repeats_what_was_refused_there(stage, folder, live, ask):
    break_reads(stage, folder, "dir/file", status=403, code="AccessDenied")
    stage.denials_expected = True
    assert errno_of(os.open, live / "dir/file", os.O_RDONLY) == "EACCES"
    last = ask("explain", live / "dir/file")["last_refusal"]
    assert (last["path"], last["operation"], last["errno"]) == ("/dir/file", "open", "EACCES")
    assert "AccessDenied" in last["sentence"]
    assert "owner of the bucket" in last["remedy"]
    assert ask("explain", live / "dir")["last_refusal"] is None
    told = live.host.stsfs("explain", live / "dir/file").stdout
    assert "last refused" in told
    assert last["remedy"] in " ".join(told.split())


def test_explain_of_a_bucket_that_cannot_be_asked_says_why(stage, folder, live, ask):
    prefix = f"{folder.base_key}/dir/"
    stage.gate.faults.every_nth(
        1, status=403, code="AccessDenied", kinds=["LIST"], key_prefix=prefix
    )
    stage.denials_expected = True
    answer = ask("explain", live / "dir/file")
    assert (answer["kind"], answer["read"]["errno"]) == ("unknown", "EACCES")
    assert "AccessDenied" in answer["read"]["sentence"]
    done = live.host.stsfs("info", live / "dir/file")
    assert (done.returncode, "AccessDenied" in done.stderr) == (33, True)


def test_explain_without_credentials_says_what_reading_would_meet(stage, folder, mount, ask):
    folder.write("seen", b"0123456789")
    folder.write("unseen", b"x" * (1 << 20))
    live = mount(folder.syn_id, "--metadata-ttl", TTL_S)
    assert (live / "seen").read_bytes() == b"0123456789"
    stage.synapse.faults.add(Fault("token_revoked"))
    stage.denials_expected = True
    stage.vendor.revoke_all()
    assert errno_of((live / "unseen").read_bytes) == "EKEYREJECTED"
    answer = ask("explain", live / "unseen")
    assert answer["read"]["errno"] == "EKEYREJECTED"
    assert answer["credentials"]["in_force"] is False
    assert ask("explain", live / "seen")["read"]["allowed"]
    assert "over" in live.host.stsfs("explain", live / "unseen").stdout


def test_a_dead_mount_is_explained_and_elsewhere_there_is_nothing_to_explain(live, host, ask):
    live.signal(signal.SIGKILL)
    live.wait_for_end()
    answer = ask("explain", live / "dir/file")
    assert answer["read"]["errno"] == "ENOTCONN" == errno_of(os.stat, live / "dir/file")
    assert "dead" in answer["what"]
    assert "stsfs unmount" in answer["read"]["remedy"]
    assert "dead" in host.stsfs("explain", live / "dir/file").stdout
    for command in ("info", "refresh"):
        assert host.stsfs(command, live / "dir/file").returncode == 5
    assert [each["state"] for each in ask("list")] == ["dead"]
    assert live.unmount().returncode == 0
    for command in ("explain", "info", "refresh"):
        done = host.stsfs(command, live / "dir/file")
        assert (done.returncode, "not in a mount" in done.stderr) == (5, True)


def test_a_path_is_found_through_links_and_from_within(live, host, ask):
    link = host.home / "link"
    link.symlink_to(live.path)
    assert ask("explain", link / "dir" / "file")["kind"] == "file"
    done = host.stsfs("info", "file", cwd=live / "dir")
    assert (done.returncode, "0123" not in done.stdout) == (0, True)
    assert host.stsfs("info", "..", cwd=live / "dir").returncode == 0
    assert host.stsfs("info", "../..", cwd=live / "dir").returncode == 5


# info and attributes


def test_info_tells_about_the_object_and_what_is_cached_of_it(folder, live, ask):
    (live / "dir/file").read_bytes()
    answer = ask("info", live / "dir/file")
    headers = folder.stage.call_s3("HEAD", f"{folder.base_key}/dir/file")
    status = os.stat(live / "dir/file")
    assert answer["etag"] == headers["ETag"]
    assert answer["key"] == f"{folder.base_key}/dir/file"
    assert answer["uri"] == f"{folder.uri}/dir/file"
    assert (answer["size_bytes"], answer["inode"]) == (status.st_size, status.st_ino)
    assert answer["modified_unix_s"] == pytest.approx(status.st_mtime)
    assert answer["known"]["memory_bytes"] == 10
    told = live.host.stsfs("info", live / "dir/file").stdout
    for word in (headers["ETag"], "10 bytes", "STANDARD", "10 B (all of it)"):
        assert word in told
    assert ask("info", live / "dir")["kind"] == "directory"


def test_info_of_what_is_not_there_has_the_exit_code_of_that(live, host):
    for path in ("absent", "owner.txt", "dir//below"):
        assert host.stsfs("info", f"{live.path}/{path}").returncode == 40


def test_attributes_tell_what_info_tells(folder, mount, ask):
    folder.write("dir/file", b"0123456789")
    live = mount(folder.syn_id, "--xattrs")
    file = live / "dir/file"
    file.read_bytes()
    answer = ask("info", file)
    told = {name: os.getxattr(file, name).decode() for name in os.listxattr(file)}
    assert told.pop("user.s3.modified").startswith("20")
    assert told == {
        "user.s3.bucket": answer["bucket"],
        "user.s3.etag": answer["etag"],
        "user.s3.key": answer["key"],
        "user.s3.size": "10",
        "user.s3.storage_class": "STANDARD",
        "user.stsfs.cached_bytes": "10",
        "user.stsfs.location": folder.syn_id,
    }
    assert os.getxattr(live / "dir", "user.s3.key").decode() == f"{folder.base_key}/dir/"
    assert errno_of(os.getxattr, file, "user.absent") == "ENODATA"
    assert errno_of(os.setxattr, file, "user.new", b"") == "EROFS"
    assert errno_of(os.removexattr, file, "user.s3.key") == "EROFS"


def test_attributes_travel_with_a_copy(folder, mount, tmp_path):
    folder.write("file", b"0123456789")
    live = mount(folder.syn_id, "--xattrs")
    subprocess.run(["cp", "-a", live / "file", tmp_path / "copy"], check=True)
    assert (tmp_path / "copy").read_bytes() == b"0123456789"
    with contextlib.suppress(OSError):  # where the local file system has attributes
        assert os.getxattr(tmp_path / "copy", "user.s3.size") == b"10"


# refresh


def test_after_a_refresh_a_directory_is_as_the_bucket_is(folder, live, host):
    assert sorted(os.listdir(live / "dir")) == ["file"]
    for absent in ("dir/new", "dir/more", "other/below"):
        assert not (live / absent).exists()
    folder.put("dir/new", b"new")
    folder.put("other/below", b"x")
    folder.put("dir/file", b"changed!")
    assert not (live / "dir/new").exists()
    assert not (live / "other").exists()
    done = host.stsfs("refresh", live.path)
    assert (done.returncode, "Forgotten: " in done.stdout) == (0, True)
    assert (live / "dir/new").read_bytes() == b"new"
    assert (live / "other/below").read_bytes() == b"x"
    assert not (live / "dir/more").exists()
    assert os.stat(live / "dir/file").st_size == 8
    assert sorted(os.listdir(live / "dir")) == ["file", "new"]


def test_after_a_refresh_of_a_name_that_name_is_as_the_bucket_is(folder, live, host):
    assert (live / "dir/file").exists()
    assert not (live / "dir/new").exists()
    assert not (live / "far/below").exists()
    folder.put("dir/new", b"new")
    folder.put("far/below", b"x")
    folder.delete("dir/file")
    for name in ("dir/new", "dir/file", "far/below"):
        assert host.stsfs("refresh", live / name).returncode == 0
    assert (live / "dir/new").read_bytes() == b"new"
    assert (live / "far/below").read_bytes() == b"x"
    assert errno_of(os.stat, live / "dir/file") == "ENOENT"


def test_a_directory_that_is_gone_is_gone_after_its_refresh(folder, live, host):
    assert (live / "dir/file").exists()
    folder.delete("dir/file")
    folder.delete("dir//below")
    assert (live / "dir").is_dir()
    assert host.stsfs("refresh", live / "dir").returncode == 0
    assert errno_of(os.stat, live / "dir") == "ENOENT"


def test_a_refresh_drops_bytes_and_pages_and_leaves_open_files_alone(stage, live, ask):
    file = live / "dir/file"
    with file.open("rb", buffering=0) as opened:
        assert opened.read() == b"0123456789"
        assert ask("refresh", live / "dir")["memory_bytes"] == 10
        assert ask("info", file)["known"]["memory_bytes"] == 0
        stage.forget_requests()
        assert os.pread(opened.fileno(), 10, 0) == b"0123456789"  # not from the kernel's pages
        assert stage.requests["GET"] == 1
        assert os.fstat(opened.fileno()).st_ino == os.stat(file).st_ino


@pytest.mark.skipif(KERNEL < (6, 2), reason="older kernels lose its path until the next lookup")
def test_whoever_works_in_a_refreshed_directory_keeps_it(live, host):
    shell = subprocess.Popen(
        ["bash", "-c", "cd dir && echo there && read && /bin/pwd && ls"],
        cwd=live.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert shell.stdout.readline() == "there\n"
    assert host.stsfs("refresh", live.path).returncode == 0
    told, _ = shell.communicate("\n")
    assert told == f"{live / 'dir'}\nfile\n"


def test_what_was_asked_before_a_refresh_is_not_remembered_after_it(stage, folder, mount, host):
    folder.write("dir/file", b"x")
    live = mount(folder.syn_id, "--metadata-ttl", TTL_S)
    assert (live / "dir").is_dir()
    with stage.s3_holding() as let_go:
        asked = stage.server.requests.count("LIST")
        waiting = subprocess.Popen(["stat", live / "dir/file"], stdout=subprocess.DEVNULL)
        stage.server.requests.wait_for(asked + 1, "LIST")
        assert host.stsfs("refresh", live / "dir").returncode == 0
        let_go.set()
        assert waiting.wait() == 0
    folder.delete("dir/file")
    assert errno_of(os.stat, live / "dir/file") == "ENOENT"


def test_a_refresh_and_a_read_that_waits_for_s3_do_not_wait_for_each_other(
    stage, folder, mount, host
):
    folder.write("big", bytes(4 << 20))
    folder.write("dir/file", b"x")
    live = mount(folder.syn_id, "--metadata-ttl", TTL_S)
    assert (live / "dir/file").read_bytes() == b"x"
    with (live / "big").open("rb") as opened, stage.s3_holding() as let_go:
        asked = stage.server.requests.count("GET")
        reading = subprocess.Popen(["tail", "-c", "10"], stdin=opened, stdout=subprocess.DEVNULL)
        stage.server.requests.wait_for(asked + 1, "GET")
        assert host.stsfs("refresh", live / "dir").returncode == 0
        refreshing = subprocess.Popen(  # of the very pages that are awaited
            [sys.executable, "-m", "stsfs", "refresh", live.path],
            env=host.environment,
            stdout=subprocess.DEVNULL,
        )
        let_go.set()
        assert (reading.wait(), refreshing.wait()) == (0, 0)


# status and list


def test_status_lists_hidden_keys_with_their_reasons(folder, live, host):
    os.listdir(live.path)
    os.listdir(live / "dir")
    hidden = checked("status", host.stsfs("status", "--json", "--hidden", live.path).stdout)
    reasons = {each["key"]: each["reason"] for each in hidden["hidden"]["keys"]}
    assert set(reasons) == {f"{folder.base_key}/dir//", f"{folder.base_key}/{LONG}"}
    assert "300" in reasons[f"{folder.base_key}/{LONG}"]
    assert (hidden["hidden"]["count"], hidden["hidden"]["more"]) == (2, 0)
    told = host.stsfs("status", "--hidden", live.path).stdout
    assert "between two slashes" in told
    plain = checked("status", host.stsfs("status", "--json", live.path).stdout)
    assert plain["hidden"] == {"count": 2}


def test_status_shows_open_files_and_how_they_are_read(folder, mount, host):
    folder.write("big", bytes(8 << 20))
    live = mount(folder.syn_id)
    with (live / "big").open("rb", buffering=0) as opened, (live / "big").open("rb"):
        for _ in range(16):
            opened.read(128 << 10)
        answer = checked("status", host.stsfs("status", "--json", live.path).stdout)
        handles = answer["handles"]
        assert [each["path"] for each in handles] == ["/big", "/big"]
        assert handles[0]["streams"] == []
        (stream,) = handles[1]["streams"]
        assert stream["position"] >= 2 << 20
        assert stream["window_bytes"] > 0
        assert 0 <= answer["cache"]["hit_rate"] <= 1
        told = host.stsfs("status", live.path).stdout
        assert "Open files" in told
        assert "not read" in told


def test_the_json_of_list_is_as_its_schema_says(live, ask):
    (listed,) = ask("list")
    assert Path(listed["mount_path"]) == live.path


def test_no_answer_holds_a_secret(stage, folder, live, host):
    (live / "dir/file").read_bytes()
    said = ""
    for command in ("explain", "info", "refresh", "status"):
        for option in ("--json", "--hidden") if command == "status" else ("--json",):
            said += host.stsfs(command, option, live / "dir/file").stdout
        said += host.stsfs(command, live / "dir/file").stdout
    secrets = [TOKEN, STATIC_KEYS.secret_access_key]
    for session in stage.vendor.sessions.values():
        secrets += [session.secret_access_key, session.session_token]
    assert [secret for secret in secrets if secret in said] == []
    assert folder.syn_id in said
