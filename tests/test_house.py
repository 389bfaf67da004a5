"""The house rules a machine can check, beyond what the linters see."""

import ast
import functools
import re
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
MODULES = sorted((REPOSITORY / "stsfs").rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
FILE_LINES_MAX, FUNCTION_LINES_MAX = 600, 60

UNTRACKED_TODO = re.compile(r"\bTODO\b(?!\(#\d+\))")

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def place(path, node=None):
    name = path.relative_to(REPOSITORY).as_posix()
    return name if node is None else f"{name}:{node.lineno} {getattr(node, 'name', '')}".rstrip()


@functools.cache
def module(path):
    return ast.parse(path.read_text())


def nodes(paths):
    return ((path, node) for path in paths for node in ast.walk(module(path)))


def is_public(node):
    return not node.name.startswith("_")


def sleeps_in_the_thread(node):
    match node:
        case ast.Attribute(value=ast.Name(id="time"), attr="sleep"):
            return True
        case ast.ImportFrom(module="time", names=names):
            return any(alias.name == "sleep" for alias in names)
    return False


def test_the_rules_are_applied_to_something():
    assert len(MODULES) > 10
    assert Path(__file__) in TESTS


def test_no_merge_is_left_half_done():
    texts = [*MODULES, *TESTS, *REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]
    marker = re.compile(r"(?m)^(<{7}|>{7}) ")
    assert [place(path) for path in texts if marker.search(path.read_text())] == []


def test_no_file_is_longer_than_a_reader_can_hold():
    long = {place(path): len(path.read_text().splitlines()) for path in MODULES + TESTS}
    assert {name: lines for name, lines in long.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_a_screen():
    long = [
        place(path, node)
        for path, node in nodes(MODULES)
        if isinstance(node, FUNCTION) and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_every_module_says_what_it_is_for():
    assert [place(path) for path in MODULES if not ast.get_docstring(module(path))] == []


def test_public_classes_and_functions_say_what_they_promise():
    silent = [
        place(path, node)
        for path in MODULES
        for node in module(path).body
        if isinstance(node, (ast.ClassDef, *FUNCTION))
        and is_public(node)
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_what_is_left_to_do_names_its_issue():
    untracked = [
        f"{place(path)}:{number}"
        for path in MODULES + TESTS
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if UNTRACKED_TODO.search(line)
    ]
    assert untracked == []


def test_nothing_sleeps_where_the_event_loop_may_run():
    assert [place(path, node) for path, node in nodes(MODULES) if sleeps_in_the_thread(node)] == []


STARTS_TASKS = {
    # Tasks that a request waits for: an exception goes to whoever asked.
    "stsfs/entities/parallel.py": "its caller waits for all",
    "stsfs/writer/parallel.py": "its caller waits for all",
    "stsfs/store/large_copy.py": "the copy waits for its parts",
    "stsfs/store/http_sending.py": "the request waits for both",
    # Commands: an exception is the end of the command, as it should be.
    "stsfs/daemon/recovering.py": "the process of a command",
    # The frame of a mount.
    "stsfs/fuse/session.py": "negotiation: before anything is mounted for others",
    "stsfs/fuse/workers.py": "contains errors of pyfuse3's tasks itself, because it knows them",
    "stsfs/daemon/serve.py": "the kernel session, whose end is the end of the mount",
    "stsfs/daemon/writing.py": "patience while it drains: it waits, and tells",
    "stsfs/cache/disk/write_behind.py": "its loop is kept running within a scope of its own",
    "stsfs/supervisor.py": "the supervisor",
}
"""Modules that start tasks which the supervisor does not contain, and why that is right."""

PRINTS = {
    "stsfs/cli/output.py": "all that commands print, shown as a terminal can take it",
    "stsfs/cli/tables.py": "parts that show their text in the same way",
    "stsfs/cli/verify_progress.py": "a bar of numbers",
    "stsfs/cli/walk_progress.py": "a bar of numbers",
    "stsfs/cli/upload_progress.py": "a bar of numbers",
    "stsfs/cli/reporting.py": "stdout after its reader is gone: a descriptor",
    "stsfs/daemon/logs.py": "log lines, which its formatter shows as one line each",
    "stsfs/daemon/spawn.py": "flushes what there is before it forks",
    "stsfs/demo/narrator.py": "the words of the demonstration, which shows its output line by line",
}
"""Modules that may know rich, click's printing, stdout and stderr, and why that is right."""

PRINTING_OF_CLICK = {"echo", "secho", "echo_via_pager", "prompt", "confirm", "style", "edit"}


def prints(node):
    """Whether it is a way to a terminal."""
    match node:
        case ast.Call(func=ast.Name(id="print" | "input")):
            return True
        case ast.Attribute(value=ast.Name(id="click"), attr=name):
            return name in PRINTING_OF_CLICK
        case ast.Attribute(
            value=ast.Name(id="sys"), attr="stdout" | "stderr" | "__stdout__" | "__stderr__"
        ):
            return True
        case ast.ImportFrom(module="sys" | "click", names=names):
            return any(each.name in {*PRINTING_OF_CLICK, "stdout", "stderr"} for each in names)
        case ast.ImportFrom(module=str(name)):
            return name.partition(".")[0] == "rich"
        case ast.Import(names=names):
            return any(each.name.partition(".")[0] == "rich" for each in names)
    return False


def test_what_comes_from_outside_reaches_terminals_by_one_way():
    printing = {place(path) for path, node in nodes(MODULES) if prints(node)}
    assert printing - PRINTS.keys() == set()
    assert PRINTS.keys() - printing == set(), "these need no reason any more"


SUPERVISED = {"contained", "kept_running"}


def starts_a_bare_task(node):
    """Whether it is `nursery.start_soon(f)`, with f neither contained nor kept running.

    `nursery.start(part.run)` gives a part its lifetime; the part contains what it starts.
    """
    match node:
        case ast.Call(func=ast.Attribute(attr="start_soon"), args=[ast.Name(id=name), *_]):
            return name not in SUPERVISED
        case ast.Call(func=ast.Attribute(attr="start_soon")):
            return True
    return False


def test_tasks_that_nobody_waits_for_are_started_by_the_supervisor():
    starting = {
        place(path)
        for path, node in nodes(MODULES)
        if starts_a_bare_task(node) and not place(path).startswith("stsfs/demo/")
    }
    assert starting - STARTS_TASKS.keys() == set()
    assert STARTS_TASKS.keys() - starting == set(), "these need no reason any more"


BOUNDARIES = {
    # What servers say.
    "stsfs/store/http_connection.py": "S3: heads and bodies of answers",
    "stsfs/store/answers.py": "S3: errors, small documents, dates",
    "stsfs/store/list_page.py": "S3: pages of listings",
    "stsfs/store/signed_urls.py": "URLs that Synapse signed: how long they hold",
    "stsfs/synapse/bodies.py": "Synapse: bodies of answers, and the JSON in them",
    "stsfs/synapse/transport.py": "Synapse: cookies, which are refused",
    "stsfs/synapse/records.py": "Synapse: entities, file handles, times",
    # What lies on disk.
    "stsfs/staging/record.py": "records of staged files",
    "stsfs/staging/attribute_changes.py": "the journal of attributes",
    "stsfs/staging/attribute_rows.py": "the index of attributes",
    "stsfs/staging/attributes.py": "the index of attributes: damages",
    "stsfs/cache/disk/index.py": "the index of the cache",
    "stsfs/cache/disk/health.py": "the index of the cache: damages",
    "stsfs/cache/disk/disk_cache.py": "the index of the cache: damages",
    "stsfs/entities/index.py": "the index of entities: damages",
    "stsfs/entities/index_file.py": "the index of entities: the file",
    "stsfs/entities/index_rows.py": "the index of entities: rows",
    "stsfs/entities/records.py": "the index of entities: annotations",
    "stsfs/credentials/credential_cache.py": "kept sets of credentials",
    "stsfs/daemon/known_servers.py": "what is known of servers",
    "stsfs/daemon/prices.py": "prices",
    "stsfs/daemon/runtime_dir.py": "records of mounts",
    "stsfs/daemon/staging_dirs.py": "the list of staging directories",
    "stsfs/cli/verify_report.py": "a report to be gone on with",
    "stsfs/cli/cache.py": "the index of the cache: damages",
    # What users write, and programs ask for.
    "stsfs/own_tables.py": "the tables of databases on the local disk",
    "stsfs/synapse/config_file.py": "the configuration of the Synapse client",
    "stsfs/daemon/config.py": "times of the configuration",
    "stsfs/entities/comparing.py": "times in conditions",
    "stsfs/daemon/control.py": "requests to a mount",
    "stsfs/daemon/control_client.py": "answers of a mount",
    "stsfs/daemon/spawn.py": "the report of a daemon that starts",
    "stsfs/fuse/session.py": "the kernel's first request",
}
"""The modules that may make values of bytes from outside, and of which: one layer per source.

They bound what they read in size and depth, and return values that `stsfs/values.py` has checked;
behind them nobody checks again. The servers of the demo are programs of their own.
"""

PARSERS = {
    "ast", "bz2", "configparser", "csv", "email", "gzip", "h11", "html.parser", "http", "httptools",
    "lxml", "lzma", "marshal", "netrc", "pickle", "plistlib", "shelve", "sqlite3", "tarfile",
    "tomllib", "urllib.request", "xml.dom", "xml.etree", "xml.parsers", "xml.sax.expatreader",
    "yaml", "zipfile", "zlib",
}  # fmt: skip
"""Modules that read foreign bytes: nobody else imports them."""

READERS = {
    "fromisoformat", "loads", "parse_qs", "parse_qsl", "parsedate_to_datetime", "strptime",
    "unpack", "unpack_from", "unquote", "unquote_plus",
}  # fmt: skip
"""Functions that do, of modules that do other things as well."""


def parses(node):
    """The name of what an import or a call reads foreign bytes with; None for other nodes."""
    match node:
        case ast.Import(names=names):
            found = [alias.name for alias in names]
        case ast.ImportFrom(module=str(name), names=names):
            found = [name, *(f"{name}.{alias.name}" for alias in names)]
        case ast.Call(func=ast.Attribute(value=ast.Name(id="json"), attr="load")):
            return "json.load"
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in READERS:
            return name
        case ast.Call(func=ast.Name(id="int" | "float" as name), args=[value, *_]) if any(
            getattr(each, "attr", getattr(each, "id", "")) in {"header", "headers"}
            for each in ast.walk(value)
        ):
            return f"{name}() of a header"
        case _:
            return None
    return next(
        (each for each in found if any(each == x or each.startswith(f"{x}.") for x in PARSERS)),
        None,
    )


def test_foreign_bytes_become_values_in_the_layer_that_is_there_for_it():
    used = {}
    for path, node in nodes(MODULES):
        if not place(path).startswith("stsfs/demo/") and (name := parses(node)) is not None:
            used.setdefault(place(path), f"{place(path)}:{node.lineno} uses {name}")
    strangers = [used[name] for name in used.keys() - BOUNDARIES.keys()]
    assert strangers == [], (
        "Bytes from outside are read in one layer per source, which bounds and checks them: call"
        " the module of BOUNDARIES that reads this source, or name there what a new one reads"
    )
    assert BOUNDARIES.keys() - used.keys() == set(), "these read nothing any more"


def test_the_gate_sees_what_it_is_there_for():
    source = """
import xml.etree.ElementTree as ET
from lxml import etree
from email.utils import parsedate_to_datetime
import http.client, pickle
from urllib import request
json.loads(text)
json.load(file)
loads(text)
datetime.fromisoformat(text)
int(head.headers[b"content-length"])
int(header(head, b"age"))
float(response.headers.get("retry-after"))
"""
    found = [name for node in ast.walk(ast.parse(source)) if (name := parses(node)) is not None]
    assert len(found) == 12
    harmless = (
        "import json\nfrom urllib.parse import quote\nint(text)\njson.dumps(value)\nimport asta"
    )
    assert not [node for node in ast.walk(ast.parse(harmless)) if parses(node)]
