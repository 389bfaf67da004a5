"""Mounts whose Synapse, or whose S3, is hostile: what is shown, asked and told all the same."""

import errno
import hashlib
import json
import os
import socket
import threading
from contextlib import contextmanager
from xml.sax.saxutils import escape

import pytest

from tests.attacks.hostile_synapse import answer, between
from tests.mount.entity_folder import entity_folder
from tests.mount.stage import TOKEN

pytestmark = pytest.mark.mount


@pytest.fixture
def shelf(stage):
    """An empty folder of Synapse, filled by entities."""
    return entity_folder(stage, managed=True)


def said(host, command, path, *options):
    """All that a command prints."""
    done = host.stsfs(command, *options, path)
    return done.stdout + done.stderr


# Entries that make no sense.


def bad_entries(good):
    return {
        "huge": good | {"id": "syn900001", "name": "huge", "versionNumber": 2**63},
        "endless": good | {"id": "syn900002", "name": "endless", "versionNumber": 10**400},
        "late": good | {"id": "syn900003", "name": "late", "modifiedOn": "99999-01-01T00:00:00Z"},
        "crlf": good | {"id": "syn900004", "name": "crlf", "createdBy": "1\r\nX-Evil: 1"},
        "elsewhere": good | {"id": "syn1/../2", "name": "elsewhere"},
        "": None,
        "x" * 5000: good | {"id": "syn900005", "name": "x" * 5000},
        "a\ud800": good | {"id": "syn900006", "name": "a\ud800"},
        "a\0b": good | {"id": "syn900007", "name": "a\0b"},
    }


def with_bad_entries(request, status, body):
    page = json.loads(body) if request.path.endswith("/entity/children") else {}
    if not page.get("page"):
        return None
    page["page"] = [*bad_entries(page["page"][0]).values(), *page["page"]]
    return json.dumps(page).encode()


def test_entries_that_make_no_sense_are_hidden_and_counted_and_the_rest_is_shown(
    stage, shelf, mount, host
):
    for name in ("a", "b"):
        shelf.write(name, name.encode())
    with between(stage.synapse.url, with_bad_entries) as url:
        live = mount(shelf.syn_id, "--synapse-endpoint", url)
        for _ in range(2):  # the second time from the index
            assert sorted(os.listdir(live.path)) == ["a", "b"]
            assert (live / "a").read_bytes() == b"a"
            hidden = json.loads(said(host, "status", live.path, "--hidden", "--json"))["hidden"]
            assert hidden["count"] == len(bad_entries({}))
            reasons = [each["reason"] for each in hidden["keys"]]
            assert reasons.count("what Synapse says of it cannot be right") == 7
            host.stsfs("refresh", live.path)
        for name in ("huge", "late", "crlf"):
            assert "what Synapse says of it cannot be right" in said(host, "explain", live / name)
        live.unmount()
        live.wait_for_end()


def test_an_answer_about_one_file_that_makes_no_sense_is_eio_there_and_explained(
    stage, shelf, mount, host
):
    for name in ("a", "b"):
        shelf.write(name, name.encode())
    bad = shelf.find("a")

    def spoil(request, status, body):
        return b'{"entity": 5}' if f"/{bad.syn_id}/" in request.path else None

    with between(stage.synapse.url, spoil) as url:
        live = mount(shelf.syn_id, "--synapse-endpoint", url)
        live.allow_in_log("does not come from Synapse")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (live / "a").read_bytes()
        assert (live / "b").read_bytes() == b"b"
        told = said(host, "explain", live / "a")
        assert "EIO" in told
        assert "does not come from Synapse" in told.replace("\n", " ")
        live.unmount()
        live.wait_for_end()


def test_the_name_of_a_folder_leads_nowhere_but_into_the_mount(stage, shelf, mount, host):
    other = entity_folder(stage, managed=True)

    def spoil(request, status, body):
        if not request.path.endswith(f"/{shelf.syn_id}/bundle2"):
            return None
        found = json.loads(body)
        found["entity"]["name"] = "../../x"
        return json.dumps(found).encode()

    with between(stage.synapse.url, spoil) as url:
        done = host.try_mount(
            (shelf.syn_id, other.syn_id), host.mount_point(), "--synapse-endpoint", url
        )
    assert (done.returncode, "cannot be the name of a directory" in done.stderr) == (2, True)


# Where URLs of files lead.


@contextmanager
def counting_server():
    """A port of this machine, and the connections that came there."""
    came = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                came.append(connection.recv(1000))
                connection.sendall(answer(b"secret!", 'ETag: "1"', status=200))
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1], came
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def file_elsewhere(stage, shelf):
    facts = {"key": "elsewhere/o", "size_bytes": 7, "md5": hashlib.md5(b"secret!").hexdigest()}
    stage.state.add_file("o", shelf.entity, stage.user, bucket="lab", **facts)


def leading_to(url):
    def spoil(request, status, body):
        if not request.path.endswith("/fileHandle/batch"):
            return None
        found = json.loads(body)
        found["requestedFiles"][0]["preSignedURL"] = url
        return json.dumps(found).encode()

    return spoil


@pytest.mark.parametrize("host_name", ["127.0.0.1", "localhost", "2130706433", "[::ffff:7f00:1]"])
def test_a_real_synapse_cannot_make_a_mount_ask_this_machine(stage, shelf, mount, host, host_name):
    """127.0.0.2 stands for a host of the internet: the user has not named it as this machine."""
    file_elsewhere(stage, shelf)
    with counting_server() as (port, came):
        for scheme in ("http", "https"):
            spoil = leading_to(f"{scheme}://{host_name}:{port}/secret?X-Amz-Expires=900")
            with between(stage.synapse.url, spoil, host="127.0.0.2") as url:
                live = mount(shelf.syn_id, "--synapse-endpoint", url)
                with pytest.raises(PermissionError):
                    (live / "o").read_bytes()
                told = said(host, "explain", live / "o")
                assert "the URL that Synapse gave" in told.replace("The", "the")
                live.unmount()
                live.wait_for_end()
    assert came == []


@pytest.mark.parametrize(
    "inside",
    ["http://169.254.169.254/latest/meta-data/", "https://10.1.2.3/x", "https://[fe80::1]/x",
     "https://0.0.0.0/x", "https://[64:ff9b::a9fe:a9fe]/x", "https://100.64.0.1/x"],
)  # fmt: skip
def test_a_synapse_of_this_machine_cannot_make_a_mount_ask_the_network_around(
    stage, shelf, mount, inside
):
    file_elsewhere(stage, shelf)
    with between(stage.synapse.url, leading_to(inside)) as url:
        live = mount(shelf.syn_id, "--synapse-endpoint", url)
        with pytest.raises(PermissionError):
            (live / "o").read_bytes()
        live.unmount()
        live.wait_for_end()


def test_a_redirect_from_a_signed_url_is_not_followed(stage, shelf, mount, host):
    file_elsewhere(stage, shelf)
    with counting_server() as (port, came):
        location = f"Location: http://127.0.0.1:{port}/secret"

        def redirecting(request, status, body):
            if "/redirects" in request.path:
                return [answer(b"", location, status=302)]
            return leading_to(f"{url}/redirects?X-Amz-Expires=900")(request, status, body)

        with between(stage.synapse.url, redirecting) as url:
            live = mount(shelf.syn_id, "--synapse-endpoint", url)
            live.allow_in_log("redirect")
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                (live / "o").read_bytes()
            live.unmount()
            live.wait_for_end()
    assert came == []


# Secrets that servers quote.


def secrets_of(stage):
    sessions = stage.vendor.sessions.values()
    return {TOKEN, *(each.session_token for each in sessions)}


def test_no_secret_that_a_server_quotes_is_told_to_anybody(stage, shelf, mount, host):
    shelf.write("a", b"a")
    shelf.write("folder/b", b"b")
    quoting = set()

    def quote_synapse(request, status, body):
        authorization = request.headers["authorization"]
        if "synapse" in quoting:
            reason = f"You sent {authorization}, that is {authorization.split()[1]}, which is bad"
            return [answer({"reason": reason}, status=403)]
        return None

    def quote_s3(request, status, body):
        if "s3" not in quoting:
            return None
        message = escape(f"Bad: {request.headers.get('x-amz-security-token')} {request.headers}")
        document = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
        return [answer(document.encode(), status=403)]

    with (
        between(stage.synapse.url, quote_synapse) as synapse,
        between(stage.gate.url, quote_s3) as s3,
    ):
        places = ("--synapse-endpoint", synapse, "--endpoint-url", s3)
        live = mount(shelf.syn_id, *places)
        assert os.listdir(live.path) == ["a", "folder"]
        quoting |= {"synapse", "s3"}
        with pytest.raises(PermissionError):
            (live / "a").read_bytes()
        told = [
            said(host, command, live / name, *options)
            for command in ("explain", "info", "refresh", "verify")
            for name in ("a", "folder", "folder/b", "other")
            for options in ((), ("--json",))
        ]
        told += [said(host, "status", live.path, *each) for each in ((), ("--json", "--hidden"))]
        refused = host.try_mount(shelf.syn_id, host.mount_point(), *places)
        told += [refused.stdout + refused.stderr, live.log()]
        quoting.clear()
        live.unmount()
        live.wait_for_end()
    everything = "\n".join(told)
    assert "which is bad" in everything
    assert "[redacted]" in everything
    assert [secret for secret in secrets_of(stage) if secret in everything] == []
