"""The folder as it was on some day, as far as Synapse remembers: versions, but not names."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cachetools import LRUCache

from stsfs.entities.parallel import work_off
from stsfs.entities.records import FILE_KIND, FileKey, key_of
from stsfs.errors import AnswerNotUnderstood
from stsfs.synapse import answers
from stsfs.synapse.entities import EntityApi
from stsfs.synapse.paging import endless
from stsfs.synapse.records import UNREADABLE_KIND, ChildHeader, VersionInfo

PAGE_VERSIONS = 50
VERSIONS_MAX = 100_000
"""Of one file: more pages than that do not come from Synapse."""

ASKED_MAX = 3
KNOWN_MAX = 100_000


class PastMoment:
    """Implements view.Moment for a time that is over.

    Files and folders made later are left out; a file changed later is shown in its version of
    then. What was renamed, moved or deleted since is shown as it is now.
    """

    def __init__(self, api: EntityApi, unix_s: float) -> None:
        self._api = api
        self._unix_s = unix_s
        self._known: LRUCache[FileKey, ChildHeader | None] = LRUCache(KNOWN_MAX)

    async def at(self, headers: Sequence[ChildHeader]) -> list[ChildHeader]:
        """The headers of that time; costs a request for each file changed since.

        A file whose versions make no sense is UNREADABLE_KIND.
        """
        then: dict[str, ChildHeader | None] = {}

        async def ask(header: ChildHeader) -> None:
            try:
                then[header.entity_id] = await self._version_then(header)
            except AnswerNotUnderstood:
                then[header.entity_id] = replace(header, kind=UNREADABLE_KIND)

        changed: list[ChildHeader] = []
        for header in headers:
            then[header.entity_id] = header
            if header.created_unix_s > self._unix_s:
                then[header.entity_id] = None
            elif header.kind == FILE_KIND and header.modified_unix_s > self._unix_s:
                changed.append(header)
        await work_off([partial(ask, each) for each in changed], ASKED_MAX)
        return [each for each in then.values() if each is not None]

    async def _version_then(self, header: ChildHeader) -> ChildHeader | None:
        key = key_of(header)
        if key not in self._known:
            version = await self._newest_before(header.entity_id)
            self._known[key] = (
                None
                if version is None
                else replace(
                    header,
                    version=version.version,
                    modified_unix_s=version.modified_unix_s,
                    modified_by=version.modified_by,
                )
            )
        return self._known[key]

    async def _newest_before(self, entity_id: str) -> VersionInfo | None:
        for offset in range(0, VERSIONS_MAX, PAGE_VERSIONS):
            versions = await self._api.versions(entity_id, offset=offset, limit=PAGE_VERSIONS)
            for each in versions:
                if each is None:
                    raise answers.not_understood(f"the request for the versions of {entity_id}")
                if each.modified_unix_s <= self._unix_s:
                    return each
            if len(versions) < PAGE_VERSIONS:
                return None
        raise endless(f"the request for the versions of {entity_id}")
