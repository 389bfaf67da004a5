"""Files of ours are opened through `stsfs.owned_dir`; what is opened otherwise is listed here."""

import ast
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

ELSEWHERE = {
    # What the kernel shows, and devices.
    "cache/disk/write_behind.py": {"open"},
    "cli/reporting.py": {"os.open", "open"},  # /dev/null; a log, by an opener of owned_dir
    "daemon/core_dumps.py": {"write_text"},
    "daemon/holders.py": {"open", "read_text"},
    "daemon/machine.py": {"read_text"},
    "daemon/mount_point.py": {"os.open", "read_text"},
    "daemon/mountinfo.py": {"read_bytes"},
    "daemon/psi.py": {"os.open", "read_text"},
    "fuse/kernel_limits.py": {"read_text", "write_text"},
    "fuse/mount_point.py": {"os.open", "read_text"},  # a directory that is mounted on
    "fuse/session.py": {"os.open"},
    # What users name to be read, and may share with others.
    "cli/verify_check.py": {"os.open"},
    "daemon/prices.py": {"open"},
    "entities/lock_file.py": {"os.open", "open"},
    "synapse/config_file.py": {"open"},
    "synapse/tokens.py": {"read_text"},
    # New files (O_EXCL), or names of this process, in directories that were checked.
    "cache/disk/chunk_file.py": {"os.open"},
    "credentials/credential_cache.py": {"os.open"},
    "daemon/spawn.py": {"os.open", "open"},
    "daemon/logs.py": {"open"},
    "staging/attribute_changes.py": {"os.open"},
    "staging/attribute_rows.py": {"os.open", "connect"},
    "staging/file.py": {"os.open", "read_text"},
    "staging/owner.py": {"os.open", "read_bytes"},
    # SQLite opens by path, after OwnedDir.check_file.
    "cache/disk/index.py": {"connect"},
    "entities/index_file.py": {"connect"},
    "own_tables.py": {"connect"},  # in memory
}

METHODS = {"read_text", "read_bytes", "write_text", "write_bytes"}


def is_of_a_descriptor(argument):
    """Whether the builtin open gets what owned_dir has opened."""
    match argument:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in ("open_file", "create_file")
        case ast.Name(id="descriptor") | ast.Attribute(attr="_descriptor"):
            return True
    return False


def is_mode(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def opened_by(call):
    """What a call opens a path with; None for any other call."""
    match call:
        case ast.Call(func=ast.Name(id="open"), args=[argument, *_]):
            return None if is_of_a_descriptor(argument) else "open"
        case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="open")):
            return "os.open"
        case ast.Call(func=ast.Attribute(value=ast.Name(id="sqlite3"), attr="connect")):
            return "connect"
        case ast.Call(func=ast.Attribute(attr="open"), args=[mode]) if is_mode(mode):
            return "open"
        case ast.Call(func=ast.Attribute(attr=attr)) if attr in METHODS:
            return attr
    return None


def test_files_are_opened_in_one_place():
    found = {}
    for path in (REPOSITORY / "stsfs").rglob("*.py"):
        name = path.relative_to(REPOSITORY / "stsfs").as_posix()
        if name.startswith("demo/") or name == "owned_dir.py":
            continue
        calls = (opened_by(node) for node in ast.walk(ast.parse(path.read_text())))
        if ways := {each for each in calls if each is not None}:
            found[name] = ways
    new = {name: ways - ELSEWHERE.get(name, set()) for name, ways in found.items()}
    assert {name: ways for name, ways in new.items() if ways} == {}
    assert {name for name in ELSEWHERE if name not in found} == set()
