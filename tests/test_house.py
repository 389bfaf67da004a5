"""The house rules a machine can check, beyond what the linters see."""

import ast
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
