"""Many files by one query, where an entity view covers the folder.

A view lags behind what it shows. That costs requests and no correctness: a row counts for the
version and the time it names, and for no other.
"""

import logging

from stsfs import values
from stsfs.entities.index import EntityIndex
from stsfs.entities.records import FileKey, FileRecord
from stsfs.errors import SynapseRefusal
from stsfs.synapse.entities import EntityApi
from stsfs.synapse.records import TableRows, number
from stsfs.synapse.records import md5 as md5_of

log = logging.getLogger(__name__)

COLUMNS = (
    "id",
    "currentVersion",
    "modifiedOn",
    "dataFileHandleId",
    "dataFileBucket",
    "dataFileKey",
    "dataFileSizeBytes",
    "dataFileMD5Hex",
)


class EntityViewSource:
    """Fills an index from one entity view (`--index-view`)."""

    def __init__(self, api: EntityApi, index: EntityIndex, view_id: str) -> None:
        self.view_id = view_id
        self.files_told = 0
        """Rows of the last query that make sense."""

        self.trouble = ""
        """Why the view is not asked again."""

        self.left_out = ""
        """How many rows of the last query made no sense."""

        self._api, self._index = api, index

    async def fill(self) -> None:
        """Ask once, and keep what is told. A view that cannot tell is said and left alone.

        Raises SynapseUnavailable and what the token's place raises.
        """
        if self.trouble:
            return
        sql = f"SELECT {', '.join(COLUMNS)} FROM {self.view_id} WHERE type = 'file'"  # noqa: S608
        try:
            rows = await self._api.query(self.view_id, sql)
        except SynapseRefusal as exc:
            self.trouble = str(exc)
            log.warning("%s is of no use as an index: %s", self.view_id, exc)
            return
        records, left_out = records_of(rows)
        if left_out and not records:
            self.trouble = f"The columns of {self.view_id} do not hold what their names say."
            log.warning("%s is of no use as an index: %s", self.view_id, self.trouble)
            return
        self.left_out = ""
        if left_out:
            self.left_out = f"{left_out} of its rows do not hold what the names of its columns say."
            log.warning("%s as an index: %s", self.view_id, self.left_out)
        self.files_told = len(records)
        await self._index.ask(self._index.save_new_files, records)


def records_of(rows: TableRows) -> tuple[list[FileRecord], int]:
    """One record per row that tells where the bytes are, and how many rows make no sense. Pure."""
    place = {name: index for index, name in enumerate(rows.columns)}
    found: list[FileRecord] = []
    left_out = rows.left_out
    for row in rows.rows:
        try:
            record = _record(*(row[place[name]] if name in place else None for name in COLUMNS))
        except (ValueError, TypeError):
            left_out += 1
            continue
        if record is not None:
            found.append(record)
    return found, left_out


def _record(*cells: str | None) -> FileRecord | None:
    """The record of one row; None if it does not tell where the bytes are."""
    entity_id, version, modified, handle_id, bucket, key, size, md5 = cells
    if not (entity_id and version and modified and handle_id and bucket and key):
        return None
    return FileRecord(
        FileKey(values.word(entity_id), number(version), values.unix_s(number(modified) / 1000)),
        values.word(handle_id),
        values.utf8(bucket),
        values.key(key, "", is_shown=False),
        None if size is None else number(size),
        md5_of(md5),
    )
