"""Configuration files, tokens, credentials, options and locks: right, or an error of ours."""

import json
import os
import time
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.cli import mount as mount_command
from stsfs.cli import mount_helper
from stsfs.cli.location_options import locations_of
from stsfs.cli.main import main
from stsfs.cli.mount_options import parse_mount_options
from stsfs.credentials.aws_chain import AwsChainSource, endpoint_of_chain, region_of_chain
from stsfs.credentials.credential_cache import CredentialCache, KeptSet
from stsfs.credentials.credentials import Credentials
from stsfs.daemon import prices
from stsfs.daemon.locks import location_of
from stsfs.entities.lock_file import COLUMNS, load, parse, render
from stsfs.entities.lock_view import LockSource, LockView
from stsfs.errors import AccessDenied, AwsCredentialsMissing, BadArgument, StsfsError
from stsfs.store.endpoint import endpoint_for
from stsfs.synapse import config_file
from stsfs.synapse.endpoints import Endpoints
from stsfs.synapse.tokens import TokenChain
from tests.fuzz.mutations import (
    DEEP,
    ODD_TEXTS,
    bounded,
    damaged_bytes,
    fuzz,
    fuzz_slowly,
    memory_below,
    mutated,
)
from tests.test_lock_file import BAM_LINE, TEXT


def check_quotes_no_token(error):
    assert "abc" not in str(error)


CONFIG = (
    b"[default]\nauthtoken = abc\n[profile x]\nauthtoken: d\n"
    b"[endpoints]\nrepoEndpoint=https://h/repo/v1\n  more\n"
)


@fuzz
@given(damaged_bytes(CONFIG, edits=5), st.sampled_from([None, "x", "default", "y", "\ud800"]))
@example(CONFIG + b"%(x)s = %(y)s\n", None)
@example(b" a\n", None)
@example(b"[a]\nb\n c", None)
@example(b"[DEFAULT]\nauthtoken = x\n[a]\n", "a")
def test_a_synapse_configuration_gives_a_token_or_an_error(tmp_path, data, profile):
    path = tmp_path / "config"
    path.write_bytes(data)
    path.chmod(0o600)
    chain = TokenChain(profile=profile, config_path=path, environ={})
    with bounded():
        try:
            token = trio.run(chain.token)
            assert token.isascii()
            assert token.isprintable()
        except StsfsError as exc:
            check_quotes_no_token(exc)
        try:
            Endpoints.from_config(path)
        except BadArgument:
            return


@fuzz
@given(damaged_bytes(b"token\n"))
def test_a_token_file_gives_a_token_or_an_error(tmp_path, data):
    path = tmp_path / "token"
    path.write_bytes(data)
    path.chmod(0o600)
    with bounded():
        try:
            token = trio.run(TokenChain(token_file=path, environ={}).token)
        except StsfsError:
            return
    assert token.isascii()
    assert not set(token) & set(" \r\n\0")


def test_a_token_or_a_configuration_without_end_is_refused(tmp_path):
    for token_file, config in (("/dev/zero", tmp_path / "none"), (None, "/dev/zero")):
        chain = TokenChain(
            token_file=token_file and Path(token_file),
            config_path=Path(config),
            environ={},
        )
        with bounded(), pytest.raises(BadArgument, match="has more than"):
            trio.run(chain.token)
    assert config_file.FILE_BYTES_MAX <= 1 << 20


# AWS.

PROCESS = {
    "Version": 1, "AccessKeyId": "AK", "SecretAccessKey": "SK", "SessionToken": "T",
    "Expiration": "2090-01-01T00:00:00Z",
}  # fmt: skip


def credentials_from(tmp_path, output):
    told, config = tmp_path / "told", tmp_path / "config"
    told.write_bytes(output)
    config.write_text(f"[default]\ncredential_process = cat {told}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", str(config))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with bounded():
            try:
                found = trio.run(AwsChainSource().fetch)
            except (AwsCredentialsMissing, AccessDenied) as exc:
                str(exc).encode()
                return None
    for word in (found.access_key_id, found.secret_access_key, found.session_token or ""):
        assert word.isascii()
        assert word.isprintable()
    return found


@fuzz_slowly
@given(
    mutated(st.just(PROCESS)).map(lambda values: json.dumps(values).encode())
    | damaged_bytes(json.dumps(PROCESS).encode())
)
@example(json.dumps(PROCESS | {"SessionToken": "a\r\nX-Evil: 1"}).encode())
@example(json.dumps(PROCESS | {"AccessKeyId": 5}).encode())
@example(json.dumps(PROCESS | {"Expiration": "99999-01-01T00:00:00Z"}).encode())
@example(json.dumps(PROCESS | {"Expiration": "9" * 30}).encode())
@example(json.dumps([PROCESS]).encode())
@example(DEEP[0])
def test_what_a_process_prints_is_credentials_or_an_error(tmp_path, output):
    credentials_from(tmp_path, output)


AWS_CONFIG = (
    b"[default]\nregion = us-east-1\nservices = s\nendpoint_url = http://h\n"
    b"[services s]\ns3 =\n  endpoint_url = http://i\n"
)


@fuzz_slowly
@given(damaged_bytes(AWS_CONFIG, edits=4))
@example(b"[default]\nservices = s\n[services s]\ns3 = x\n")
@example(b"[default]\nregion =\n  a = b\n")
@example(b"[services]\n[default]\nservices=s\n")
def test_an_aws_configuration_gives_region_and_endpoint_or_an_error(tmp_path, data):
    config = tmp_path / "config"
    config.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", str(config))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        with bounded():
            for ask in (region_of_chain, endpoint_of_chain):
                try:
                    assert isinstance(ask(), str | None)
                except AwsCredentialsMissing as exc:
                    str(exc).encode()


# Credentials kept between calls.

KEPT = KeptSet("syn1", "b", "k", Credentials("AK", "SK", "T", time.time() + 3000), time.time())


@fuzz
@given(
    mutated(st.just(KEPT.to_json())).map(lambda values: json.dumps(values).encode())
    | damaged_bytes(json.dumps(KEPT.to_json()).encode())
    | st.sampled_from(DEEP)
)
@example(json.dumps(KEPT.to_json() | {"fetched_unix_s": 10**400}).encode())
@example(json.dumps({"failed_unix_s": 10**400, "sentence": "s", "remedy": "r"}).encode())
def test_kept_credentials_are_in_order_or_fetched_anew(tmp_path_factory, data):
    cache = CredentialCache(tmp_path_factory.mktemp("c") / "d")
    for name in ("ab.json", "ab.failed"):
        path = cache._directory / name
        path.write_bytes(data)
        path.chmod(0o600)
    with bounded():
        found = cache.obtain("ab", lambda: KEPT)
        cache.forget()
    for word in (found.credentials.access_key_id, found.credentials.session_token):
        assert word.isascii()
        assert word.isprintable()
        assert word


# Prices.

PRICES = json.loads(Path(prices.__file__).with_name("prices.json").read_text())


@fuzz
@given(mutated(st.just(PRICES)))
def test_a_table_of_prices_is_read_or_refused(tmp_path, document):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(document))
    try:
        prices.read_prices(path)
    except BadArgument:
        return


@pytest.mark.parametrize("data", DEEP)
def test_prices_without_end_are_refused(tmp_path, data):
    (tmp_path / "p.json").write_bytes(data)
    with pytest.raises(BadArgument):
        prices.read_prices(tmp_path / "p.json")


# Options of mounts, and locations.

NAMES = ["uid", "gid", "umask", "allow_other", "rw", "ro", "metadata-ttl", "view", "cache_size",
         "block-size", "memory", "as_of", "deadline", "connections", "log_file", "staging_dir",
         "endpoint_url", "prices", "rename_limit", "region", "index_view", "fsync", "_netdev",
         "x-systemd.automount", "nofail", "mountpoint", "locations", "help", "debug"]  # fmt: skip
OPTIONS = st.lists(
    st.sampled_from(NAMES)
    | ODD_TEXTS
    | st.tuples(st.sampled_from(NAMES), ODD_TEXTS | st.integers().map(str)).map("=".join),
    max_size=4,
).map(",".join)


@fuzz
@given(OPTIONS)
def test_options_are_read_or_refused(text):
    try:
        values = parse_mount_options([text], {name.replace("-", "_"): True for name in NAMES})
    except BadArgument:
        return
    assert all(isinstance(value, str) and value for value in values.values())


def is_argument(text):
    """Whether a process can be started with it."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return "\0" not in text


ARGUMENTS = ODD_TEXTS.filter(is_argument)


class Config(BaseException):
    """The options were right."""


@fuzz
@given(OPTIONS.filter(is_argument), ARGUMENTS, ARGUMENTS | st.just("/tmp"))
@example("uid=" + "9" * 5000, "syn1", "/tmp")
@example("as_of=0001-01-01T00:00:00+23:59", "syn1", "/tmp")
@example("as_of=9999-12-31T23:59:59-23:59", "syn1", "/tmp")
@example("cache_size=" + "9" * 400, "syn1", "/tmp")
@example("uid=" + "9" * 400, "syn1", "/tmp")
@example("cache_size=1e400", "syn1", "/tmp")
@example("metadata_ttl=nan,deadline=inf", "syn1", "/tmp")
@example("umask=-0x1", "syn1", "/tmp")
@example("prices=/dev/zero", "syn1", "/tmp")
@example("ro", "syn1", "/tmp/" + "x" * 5000)
@example("endpoint_url=http://h:99999", "syn1", "/tmp")
def test_a_mount_of_anything_is_right_or_a_usage_error(text, location, directory):
    def stop(options, real=mount_command.make_config):
        real(options)
        raise Config

    with pytest.MonkeyPatch.context() as patch, bounded():
        patch.setattr(mount_command, "make_config", stop)
        try:
            told = CliRunner().invoke(main, ["mount", "-o", text, "--", location, directory])
        except Config:
            return
    assert told.exit_code == 2, (told.output, told.exception)
    assert "Traceback" not in told.output


@fuzz
@given(ODD_TEXTS | ODD_TEXTS.map(lambda text: f"http://{text}"), st.none() | ODD_TEXTS)
@example("http://h:99999", None)
@example("http://[::1", None)
@example("http://" + "a" * 64 + ".x", None)
@example("https://ho\nst", None)
@example("https://h", "evil.example/")
def test_an_endpoint_of_a_store_names_a_host_or_is_refused(url, region):
    for given_url in (url, None):
        try:
            found = endpoint_for("bucket", region, given_url)
        except BadArgument:
            continue
        found.host.encode("idna")
        assert 0 < found.port < 65536
        assert not set("\r\n \0/") & set(found.host + found.region)


@fuzz
@given(st.lists(ODD_TEXTS | st.sampled_from(["-o", "-f", "-N", "-t", "--"]), max_size=5))
def test_the_helper_of_mount_asks_or_refuses(words):
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mount.stsfs", *words])
        patch.setattr(mount_helper, "stsfs", lambda given, prog_name: asked.append(given))
        code = 0
        try:
            mount_helper.main()
        except SystemExit as ended:
            code = ended.code
    assert code == 0 or (code, asked) == (2, [])


@fuzz
@given(ODD_TEXTS)
def test_a_location_is_one_or_refused(text):
    locations_of([text])
    try:
        location_of(text)
    except BadArgument:
        return


# Lock files.


def show(lock):
    """What a mount does with a lock, without a store."""
    try:
        LockView(LockSource(lock, 1, None))
    except BadArgument:
        return


@fuzz
@given(damaged_bytes(TEXT.encode(), edits=4))
@example(TEXT.replace("2025-11-24T10:46:15.250Z", "0000-00-00T00:00:00.000Z").encode())
@example(TEXT.replace("2025-11-24T10:46:15.250Z", "9999-12-31T23:59:59.999Z").encode())
def test_bytes_are_a_lock_or_refused(tmp_path, data):
    path = tmp_path / "data.lock"
    path.write_bytes(data)
    with bounded():
        try:
            lock = load(path)
        except BadArgument:
            return
        show(lock)
    assert parse("".join(render(lock)), "l") == lock


def test_a_lock_of_one_endless_line_takes_no_memory(tmp_path):
    path = tmp_path / "data.lock"
    path.write_bytes(b"stsfs-lock 1\n" + b"x" * 20_000_000)
    with memory_below(4 << 20), pytest.raises(BadArgument):
        load(path)


@fuzz
@given(st.dictionaries(st.sampled_from(COLUMNS), ODD_TEXTS, max_size=2))
@example({"path": "\ud800"})
@example({"key": "base/f1/\ud800"})
@example({"path": "/".join(["d"] * 3000)})
@example({"key": "base/f1/" + "x" * 2000})
def test_a_file_of_a_lock_is_shown_or_refused(changes):
    cells = dict(zip(COLUMNS, BAM_LINE.split("\t"), strict=True)) | changes
    text = TEXT.partition(BAM_LINE)[0] + "\t".join(cells.values()) + "\nend\t1\n"
    with bounded():
        try:
            lock = parse(text, "l")
        except BadArgument:
            return
        show(lock)
    for each in lock.files:
        (each.path + each.key).encode()
        assert len(each.key.encode()) <= 1024
