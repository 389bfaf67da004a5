"""The commands: in process where only words matter, as real processes where mounts do."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stsfs import __version__, errors
from stsfs.cli import exit_codes
from stsfs.cli.exit_codes import exit_code
from stsfs.cli.location_options import locations_of
from stsfs.cli.main import main
from stsfs.cli.mount import make_config, mount
from stsfs.fuse.mount_point import MountPoint

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_directories(tmp_path, monkeypatch):
    # pytest's own directories can be too long for the name of a socket
    with tempfile.TemporaryDirectory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield


@pytest.fixture
def stsfs():
    """Run a command in this process."""
    return lambda *arguments, **options: CliRunner().invoke(main, arguments, **options)


def all_errors():
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]


# Exit codes and words.


def test_every_error_has_an_exit_code_of_its_own():
    assert [c.__name__ for c in all_errors() if c not in exit_codes._CODES] == []
    codes = list(exit_codes._CODES.values())
    assert len(set(codes)) == len(codes)
    assert not {0, exit_codes.INTERRUPTED} & set(codes)
    assert all(code < 126 for code in codes)


def test_exit_codes_of_subclasses_groups_interrupts_and_bugs():
    class Finer(errors.TokenRejected):
        pass

    assert exit_code(Finer("x")) == exit_code(errors.TokenRejected("x")) == 11
    assert exit_code(ExceptionGroup("", [errors.MountBusy("x")])) == 6
    assert exit_code(KeyboardInterrupt()) == 130
    assert exit_code(ZeroDivisionError()) == 70


@pytest.fixture
def failing(monkeypatch):
    """Make `stsfs list` raise something."""

    def fail_with(exc):
        def fail():
            raise exc

        monkeypatch.setattr("stsfs.daemon.runtime_dir.records", fail)

    return fail_with


def test_an_error_is_a_sentence_and_a_remedy_on_stderr(stsfs, failing):
    failing(errors.TokenRejected("Synapse rejects the token.", remedy="Make a new one."))
    result = stsfs("list")
    assert result.exit_code == 11
    assert result.stdout == ""
    assert result.stderr == "stsfs: Synapse rejects the token.\nMake a new one.\n"


def test_a_bug_is_one_line_and_its_traceback_is_kept_in_private(stsfs, failing, tmp_path):
    failing(KeyError("Bearer SECRETSECRET"))
    result = stsfs("list")
    log_file = tmp_path / "state" / "stsfs" / "errors.log"
    assert result.exit_code == 70
    assert len(result.stderr.splitlines()) == 1
    assert "KeyError" in result.stderr
    assert str(log_file) in result.stderr
    assert "Traceback" in log_file.read_text()
    assert log_file.stat().st_mode & 0o077 == 0
    assert "SECRET" not in result.stderr + log_file.read_text()


def test_tracebacks_are_shown_with_debug_only(stsfs, failing):
    failing(errors.NoSuchMount("None."))
    assert "Traceback" not in stsfs("list").stderr
    assert "Traceback" in stsfs("--debug", "list").stderr
    assert "Traceback" in stsfs("list", env={"STSFS_DEBUG": "1"}).stderr


def test_an_interrupt_is_130(stsfs, failing):
    failing(KeyboardInterrupt())
    assert stsfs("list").exit_code == 130


@pytest.mark.parametrize("arguments", [["fly"], ["mount"], ["list", "--no-such"], ["unmount"]])
def test_usage_errors_are_2(stsfs, arguments):
    assert stsfs(*arguments).exit_code == 2


def test_version_and_help(stsfs):
    assert stsfs("--version").stdout == f"stsfs {__version__}\n"
    assert [c for c in ("mount", "unmount", "status", "list", "demo") if c in stsfs("-h").stdout]


def test_the_module_is_the_command_and_answers_without_heavy_imports():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['stsfs', '--version']\n"
        "try: runpy.run_module('stsfs', run_name='__main__')\n"
        "finally: print(*sorted({'trio', 'rich', 'boto3', 'httpx', 'pyfuse3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"stsfs {__version__}\n\n"


def test_checking_a_mount_needs_no_event_loop_before_the_fork():
    code = "import sys, stsfs.cli.mount; print('trio' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False False\n"


# Options of mount.


@pytest.fixture
def parsed(monkeypatch, tmp_path):
    """The config that a command line leads to."""
    seen = []
    monkeypatch.setattr("stsfs.cli.mount.check_mount_point", lambda path: MountPoint(path, -1))
    monkeypatch.setattr("stsfs.cli.mount.check_fuse", lambda *, allow_other: None)
    monkeypatch.setattr("stsfs.cli.mount.run_in_background", lambda *_, kept: 0)

    def remember(options):
        seen.append(make_config(options))
        return seen[-1]

    monkeypatch.setattr("stsfs.cli.mount.make_config", remember)

    def parse(*arguments, **environment):
        result = CliRunner().invoke(
            main, ["mount", "syn1", str(tmp_path / "m"), *arguments], env=environment
        )
        assert result.exit_code == 0, result.output
        return seen.pop()

    return parse


def test_options_become_typed_values(parsed, tmp_path):
    config = parsed(
        "--memory=256MiB", "--block-size=64k", "--umask=077", "--uid=7", "--metadata-ttl=1.5",
        "--consistency=ttl", "--connections=8", "--profile=p", "--token-file=t", "--allow-other",
    )  # fmt: skip
    assert (config.memory_bytes, config.block_bytes) == (256 << 20, 64 << 10)
    assert (config.umask, config.uid, config.gid) == (0o077, 7, os.getgid())
    assert (config.metadata_ttl_s, config.consistency) == (1.5, "ttl")
    assert (config.connections_max, config.aws_profile) == (8, "p")
    assert config.token_file == Path.cwd() / "t"
    assert config.allow_other
    assert config.mount_path == tmp_path / "m"


def test_the_background_has_a_log_file_of_its_own(parsed, tmp_path):
    assert parsed().log_file.parent == tmp_path / "state" / "stsfs"
    assert parsed("--log-file=l").log_file == Path.cwd() / "l"


def test_options_come_from_the_environment_and_the_command_line_wins(parsed):
    assert parsed(STSFS_MOUNT_METADATA_TTL="5", STSFS_MOUNT_UMASK="027").metadata_ttl_s == 5
    assert parsed("--metadata-ttl=6", STSFS_MOUNT_METADATA_TTL="5").metadata_ttl_s == 6


def test_mount_options_are_converted_alike_and_long_options_win(parsed):
    config = parsed("-o", "ro,_netdev,umask=027,memory=64MiB,allow_other", "--memory=32MiB")
    assert (config.umask, config.memory_bytes, config.allow_other) == (0o027, 32 << 20, True)
    assert parsed("-o", "uid=9", STSFS_MOUNT_UID="8").uid == 9


@pytest.mark.parametrize(
    ("arguments", "environment", "rw"),
    [
        ([], {}, False),
        (["-o", "defaults"], {}, False),
        (["--rw"], {}, True),
        (["-o", "write"], {}, True),
        (["-o", "rw"], {}, True),
        (["-o", "ro"], {}, False),
        (["-o", "ro"], {"STSFS_MOUNT_RW": "1"}, False),
        ([], {"STSFS_MOUNT_RW": "1"}, True),
    ],
)
def test_a_mount_is_read_only_unless_somebody_asks_for_more(parsed, arguments, environment, rw):
    assert parsed(*arguments, **environment).rw is rw


@pytest.mark.parametrize("arguments", [["--rw", "-o", "ro"], ["-o", "ro,write"], ["-o", "rw,ro"]])
def test_read_only_and_writing_contradict_each_other(stsfs, tmp_path, arguments):
    result = stsfs("mount", "syn1", str(tmp_path), *arguments)
    assert result.exit_code == 2
    assert "contradict" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--verify=on-full-read", "--rw"], {}),
        (["--verify=on-full-read", "--view=keys"], {}),
        (["-o", "verify=on-full-read,write"], {}),
        (["--rw"], {"STSFS_MOUNT_VERIFY": "on-full-read"}),
        (["-o", "acl=private"], {}),
        ([], {"STSFS_MOUNT_FSYNC": "s3"}),
        (["--staging-dir=/nowhere"], {}),
        (["--cache-size=1GiB"], {}),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_wherever_it_is_given(
    stsfs, tmp_path, monkeypatch, arguments, environment
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = stsfs("mount", "syn1", str(tmp_path / "m"), *arguments)
    assert result.exit_code == 2
    assert " needs " in result.stderr


@pytest.mark.parametrize(
    ("text", "locations"),
    [
        ("syn1", ["syn1"]),
        ("syn1,syn2,s3://lab/raw", ["syn1", "syn2", "s3://lab/raw"]),
        ("s3://lab/a,b", ["s3://lab/a,b"]),
        ("syn1,s3://lab/a,b", ["syn1,s3://lab/a,b"]),  # two ways to read it: not decided here
        ("s3://lab/a,syn1/", ["s3://lab/a,syn1/"]),
        ("syn1,", ["syn1,"]),
    ],
)
def test_a_text_is_parted_at_commas_where_each_part_is_a_location(text, locations):
    assert list(locations_of([text])) == locations
    assert list(locations_of(["syn9", text])) == ["syn9", *locations]


def test_lock_files_are_made_absolute_and_may_have_commas_in_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.lock", "b,syn1.lock"):
        (tmp_path / name).write_text("stsfs-lock 1\n")
    texts = ["a.lock,syn1", "b,syn1.lock", "missing.lock"]
    assert locations_of(texts) == (
        str(tmp_path / "a.lock"), "syn1", str(tmp_path / "b,syn1.lock"), "missing.lock"
    )  # fmt: skip


def test_the_locations_of_one_argument_are_those_of_the_mount(parsed):
    config = parsed("-o", "ro")
    assert (config.locations, config.location) == (("syn1",), "syn1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rw", "--view=entities"],
        ["-o", "rw,view=entities"],
        ["-o", "fast"],
        ["-o", "umask=9"],
        ["--memory=much"],
        ["--umask=8"],
        ["--deadline=0"],
        ["--consistency=maybe"],
    ],
)
def test_what_cannot_be_right_is_a_usage_error(stsfs, tmp_path, arguments):
    result = stsfs("mount", "syn1", str(tmp_path), *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_each_option_of_mount_says_what_it_does():
    options = [p for p in mount.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []


# What is not there.


def test_status_without_a_mount(stsfs, tmp_path):
    assert stsfs("status").exit_code == 5
    assert stsfs("status", str(tmp_path)).exit_code == 5
    assert stsfs("list", "--json").stdout == "[]\n"


def test_unmounting_what_is_not_ours(stsfs, tmp_path):
    assert stsfs("unmount", str(tmp_path)).exit_code == 5
    result = stsfs("unmount", "/proc")
    assert (result.exit_code, "not of stsfs (proc)" in result.stderr) == (5, True)


def test_a_missing_extra_is_named_with_a_remedy(stsfs, monkeypatch):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "stsfs.demo.story":
                raise ModuleNotFoundError("No module named 'moto'", name="moto")

    monkeypatch.delitem(sys.modules, "stsfs.demo.story", raising=False)
    monkeypatch.setattr("stsfs.demo.story", None, raising=False)
    monkeypatch.delattr("stsfs.demo.story")
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    result = stsfs("demo")
    assert (result.exit_code, "pip install '.[demo]'" in result.stderr) == (8, True)


def test_output_that_nobody_reads_any_more_is_no_bug(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "stsfs", "list", "--json"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)},
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
