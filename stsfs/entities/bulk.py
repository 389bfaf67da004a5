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
        """Rows of the last query."""

        self.trouble = ""
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
        try:
            records = records_of(rows)
        except (ValueError, TypeError):
            self.trouble = f"The columns of {self.view_id} do not hold what their names say."
            log.warning("%s is of no use as an index: %s", self.view_id, self.trouble)
            return
        self.files_told = len(records)
        await self._index.ask(self._index.save_new_files, records)


def records_of(rows: TableRows) -> list[FileRecord]:
    """One record per row that tells where the bytes are. Pure.

    Raises ValueError or TypeError for cells that do not hold what their columns say.
    """
    place = {name: index for index, name in enumerate(rows.columns)}
    found = []
    for row in rows.rows:
        entity_id, version, modified, handle_id, bucket, key, size, md5 = (
            row[place[name]] if name in place else None for name in COLUMNS
        )
        if entity_id and version and modified and handle_id and bucket and key:
            found.append(
                FileRecord(
                    FileKey(entity_id, number(version), values.unix_s(number(modified) / 1000)),
                    values.word(handle_id),
                    values.utf8(bucket),
                    values.key(key, "", is_shown=False),
                    None if size is None else number(size),
                    md5_of(md5),
                )
            )
    return found
