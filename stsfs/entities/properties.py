"""What Synapse knows of an entity, as texts by name: for `stsfs info` and extended attributes."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from stsfs.entities.records import FileRecord
from stsfs.synapse.records import ChildHeader

PREFIX = "synapse."
ANNOTATION = f"{PREFIX}annotation."


def properties_of(
    header: ChildHeader, record: FileRecord | None, annotations: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    """By name, `synapse.id` and so on. One value of an annotation is itself, several are JSON."""
    found = {
        f"{PREFIX}id": header.entity_id,
        f"{PREFIX}created_by": header.created_by,
        f"{PREFIX}created_on": iso(header.created_unix_s),
        f"{PREFIX}modified_by": header.modified_by,
        f"{PREFIX}modified_on": iso(header.modified_unix_s),
    }
    if record is not None:
        found[f"{PREFIX}version"] = str(header.version)
        if record.md5:
            found[f"{PREFIX}md5"] = record.md5
        if record.handle_id:
            found[f"{PREFIX}file_handle"] = record.handle_id
    for name, values in sorted(annotations.items()):
        found[f"{ANNOTATION}{name}"] = values[0] if len(values) == 1 else json.dumps(list(values))
    return found


def iso(unix_s: float) -> str:
    """`2026-11-24T10:46:15.120Z`, as Synapse writes it."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
