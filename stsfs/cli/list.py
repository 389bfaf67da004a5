"""`stsfs list`: every mount of this user."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from stsfs.cli import output
from stsfs.daemon import runtime_dir
from stsfs.daemon.control_client import is_answering
from stsfs.daemon.runtime_dir import KnownMount

NOT_ANSWERING = "not answering"
"""The state of a daemon that lives, and hangs or was stopped."""

MOUNTS_AT_ONCE = 16


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, for scripts.")
def list_mounts(as_json: bool) -> None:
    """List mounts, with the state of their daemons."""
    known = runtime_dir.records()
    states = _states(known)
    if as_json:
        rows = [_row(mount, state) for mount, state in zip(known, states, strict=True)]
        output.tell_json(rows)
    elif known:
        _print_table(known, states)
    else:
        output.warn("No mounts.")


def _states(known: list[KnownMount]) -> list[str]:
    """What the daemons are at; those that listen are asked for a sign of life, all at once."""

    def state(mount: KnownMount) -> str:
        if mount.state == "dead" or is_answering(mount.record.control_socket):
            return mount.state
        return NOT_ANSWERING

    with ThreadPoolExecutor(max_workers=MOUNTS_AT_ONCE) as threads:
        return list(threads.map(state, known))


def _row(mount: KnownMount, state: str) -> dict[str, Any]:
    return {**mount.record.to_json(), "state": state}


def _print_table(known: list[KnownMount], states: list[str]) -> None:
    from stsfs.cli.tables import Grid

    table = Grid("location", "path", "pid", "state")
    for mount, state in zip(known, states, strict=True):
        record, path = mount.record, str(mount.record.mount_path)
        hints = {
            "dead": f"  (stsfs unmount {path})",
            NOT_ANSWERING: f"  (stsfs unmount --lazy {path})"
            if mount.state == "serving"
            else f"  (kill -KILL {record.pid})",
        }
        state_text = f"{state}{hints.get(state, '')}"
        table.add_row(record.location, path, str(record.pid), state_text)
    output.tell_parts([table])
