"""The calls of the Synapse REST API that show entities, their versions and their files."""

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from stsfs.errors import EntityNotFound, PermissionMissing, SynapseRefusal, SynapseUnavailable
from stsfs.synapse import answers, records
from stsfs.synapse.paging import Paging
from stsfs.synapse.records import (
    MODEL,
    ChildHeader,
    ChildPage,
    EntityBundle,
    TableRows,
    VersionInfo,
)
from stsfs.synapse.transport import ABSENT, Transport, parsed

CHILD_TYPES = (
    "folder",
    "file",
    "link",
    "table",
    "entityview",
    "submissionview",
    "materializedview",
    "virtualtable",
    "dataset",
    "datasetcollection",
    "dockerrepo",
)
"""All that can lie in a folder, in words that every server of recent years knows."""

HEADERS_MAX = 100
ROWS_MAX = 200_000
"""What `query` collects at most, about 200 MB of a view's usual columns."""

ROWS_CHARS_MAX = 400_000_000
"""Of all cells together."""

QUERY_DEADLINE_S = 300.0
"""A view that was not asked for long is first brought up to date, which takes minutes."""

_POLL_PAUSE_MIN_S = 0.1
_POLL_PAUSE_MAX_S = 5.0
_QUERY_RESULTS = 1
"""The bit of `partMask` that asks for rows and nothing else."""

_BUNDLE_PARTS = {
    "includeEntity": True,
    "includeAnnotations": True,
    "includeFileHandles": True,
    "includeRestrictionInformation": True,
}


class EntityApi:
    """Asks about entities, over the transport and at the pace of its SynapseClient.

    Every method raises what those of SynapseClient raise. With `background` it lets requests of
    the foreground go first, and waits for its turn as long as that takes.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def children(
        self,
        parent_id: str,
        *,
        token: str | None = None,
        with_total: bool = False,
        background: bool = False,
    ) -> ChildPage:
        """Return at most 50 children by name, of all kinds; `token` continues a listing.

        Pages are cut by position: what is made or deleted meanwhile can repeat or skip a child.
        """
        body: dict[str, object] = {
            "parentId": parent_id,
            "includeTypes": CHILD_TYPES,
            "sortBy": "NAME",
            "sortDirection": "ASC",
        }
        if token is not None:
            body["nextPageToken"] = token
        if with_total:
            body["includeTotalChildCount"] = True
        url = f"{self._transport.endpoints.repo_url}/entity/children"
        answer = await self._transport.post(url, body, entity_id=parent_id, background=background)
        return parsed(answer, f"the request for the children of {parent_id}", records.child_page)

    async def child_id(self, parent_id: str, name: str, *, background: bool = False) -> str | None:
        """Return the id of the child with this name; None where there is none."""
        answer = await self._transport.post(
            f"{self._transport.endpoints.repo_url}/entity/child",
            {"parentId": parent_id, "entityName": name},
            entity_id=parent_id,
            absent_reason="Child not found",
            background=background,
        )
        if answer is ABSENT:
            return None
        return parsed(
            answer,
            f"the request for a child of {parent_id}",
            lambda found: records.entity_id(found, "id"),
        )

    async def bundle(
        self, entity_id: str, version: int | None = None, *, background: bool = False
    ) -> EntityBundle:
        """Return all about an entity, as it is or as it was in this version."""
        at = () if version is None else ("version", str(version))
        answer = await self._transport.post(
            self._transport.entity_url(entity_id, *at, "bundle2"),
            _BUNDLE_PARTS,
            entity_id=entity_id,
            background=background,
        )
        return parsed(answer, f"the request for {entity_id}", records.entity_bundle)

    async def headers(
        self, entity_ids: Sequence[str], *, background: bool = False
    ) -> tuple[ChildHeader, ...]:
        """Return the headers of at most 100 entities; those unknown or unreadable are left out."""
        assert len(entity_ids) <= HEADERS_MAX
        answer = await self._transport.post(
            f"{self._transport.endpoints.repo_url}/entity/header",
            {"references": [{"targetId": entity_id} for entity_id in entity_ids]},
            background=background,
        )
        return parsed(answer, "the request for several entities", records.headers)

    async def versions(
        self, entity_id: str, *, offset: int = 0, limit: int = 50, background: bool = False
    ) -> tuple[VersionInfo | None, ...]:
        """Return versions of a file, newest first, from the `offset`th on.

        None stands for one of which Synapse says what cannot be.
        """
        answer = await self._transport.get(
            self._transport.entity_url(entity_id, "version"),
            entity_id=entity_id,
            params={"offset": str(offset), "limit": str(limit)},
            background=background,
        )
        return parsed(answer, f"the request for the versions of {entity_id}", records.versions)

    async def presigned_url(
        self, handle_id: str, entity_id: str, *, background: bool = False
    ) -> str:
        """Return an address that gives a file's bytes to anyone, for a short time: a secret."""
        answer = await self._transport.post(
            f"{self._transport.endpoints.file_url}/fileHandle/batch",
            {
                "requestedFiles": [
                    {
                        "fileHandleId": handle_id,
                        "associateObjectId": entity_id,
                        "associateObjectType": "FileEntity",
                    }
                ],
                "includePreSignedURLs": True,
                "includeFileHandles": False,
                "includePreviewPreSignedURLs": False,
            },
            entity_id=entity_id,
            background=background,
        )
        url, failure = parsed(answer, f"the request for the content of {entity_id}", _one_url)
        if failure is not None:
            raise _no_url(failure, handle_id, entity_id)
        return url

    async def columns(self, view_id: str) -> Mapping[str, str]:
        """Return the columns of a view: name → type as Synapse calls it (`STRING`, `DATE` …)."""
        answer = await self._transport.get(
            self._transport.entity_url(view_id, "column"), entity_id=view_id
        )
        return parsed(answer, f"the request for the columns of {view_id}", records.columns)

    async def query(self, view_id: str, sql: str, *, background: bool = False) -> TableRows:
        """Return all rows of a query; SynapseRefusal for bad SQL and for too many rows."""
        page = await self.query_page(view_id, sql, background=background)
        rows, left_out = list(page.rows), page.left_out
        paging, chars = Paging(f"the query of {view_id}"), _chars(page)
        while page.next_token is not None:
            if len(rows) > ROWS_MAX or chars > ROWS_CHARS_MAX:
                raise SynapseRefusal(
                    f"The query of {view_id} finds more than {ROWS_MAX} rows.",
                    remedy="Name a view that covers less.",
                )
            paging.turn(page.next_token, new=len(page.rows) + page.left_out)
            page = await self.next_query_page(view_id, page.next_token, background=background)
            rows += page.rows
            left_out += page.left_out
            chars += _chars(page)
        return TableRows(page.columns, tuple(rows), left_out=left_out)

    async def query_page(self, view_id: str, sql: str, *, background: bool = False) -> TableRows:
        """Return the first rows of a query, as many as Synapse likes to give at a time."""
        body = {
            "concreteType": f"{MODEL}table.QueryBundleRequest",
            "entityId": view_id,
            "query": {"sql": sql},
            "partMask": _QUERY_RESULTS,
        }
        answer = await self._job(view_id, ("table", "query", "async"), body, background=background)
        return parsed(
            answer,
            f"the query of {view_id}",
            lambda found: records.table_rows(found["queryResult"]),
        )

    async def next_query_page(
        self, view_id: str, token: str, *, background: bool = False
    ) -> TableRows:
        """Return the rows that follow a page with this `next_token`."""
        body = {"concreteType": f"{MODEL}table.QueryNextPageToken", "token": token}
        call = ("table", "query", "nextPage", "async")
        answer = await self._job(view_id, call, body, background=background)
        return parsed(answer, f"the query of {view_id}", records.table_rows)

    async def _job(
        self,
        view_id: str,
        call: tuple[str, ...],
        body: Mapping[str, object],
        *,
        background: bool,
    ) -> object:
        """Start a job of the server and return what comes of it."""
        started = await self._transport.post(
            self._transport.entity_url(view_id, *call, "start"),
            body,
            entity_id=view_id,
            background=background,
        )
        what = f"the query of {view_id}"
        job = parsed(started, what, lambda found: records.word(found, "token"))
        url = self._transport.entity_url(view_id, *call, "get", job)
        pause_s = _POLL_PAUSE_MIN_S
        with trio.move_on_after(QUERY_DEADLINE_S):
            while True:
                answer = await self._transport.get(url, entity_id=view_id, background=background)
                state, failure = parsed(answer, what, _job_state)
                if state == "FAILED":
                    raise SynapseRefusal(
                        f"Synapse cannot answer the query of {view_id}: "
                        f"{answers.reason_of(failure)}"
                    )
                if state is None:
                    return answer
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, _POLL_PAUSE_MAX_S)
        raise SynapseUnavailable(
            f"Synapse did not answer the query of {view_id} within {QUERY_DEADLINE_S:g} s.",
            remedy="It may be bringing the view up to date; ask again in a few minutes.",
        )


def _chars(page: TableRows) -> int:
    return sum(len(cell or "") for row in page.rows for cell in row)


def _job_state(answer: Any) -> tuple[object, object]:
    """Parse an AsynchronousJobStatus; what the job made has no state."""
    return answer.get("jobState"), answer.get("errorMessage")


def _one_url(answer: Any) -> tuple[str, str | None]:
    """Parse a BatchFileResult about one file: its address, or why there is none."""
    (found,) = answer["requestedFiles"]
    if found.get("failureCode") is not None:
        return "", records.text(found, "failureCode")
    return records.text(found, "preSignedURL"), None


def _no_url(failure: str, handle_id: str, entity_id: str) -> SynapseRefusal:
    if failure == "NOT_FOUND":
        return EntityNotFound(
            f"Synapse does not know the file handle {handle_id} of {entity_id}.",
            remedy="The file may have a new version: look at it again.",
        )
    if failure == "UNAUTHORIZED":
        return PermissionMissing(
            f"You may not download the content of {entity_id}.",
            remedy=f"See what it takes at {answers.WEB_URL}/Synapse:{entity_id}.",
        )
    return SynapseRefusal(f"Synapse gives no content of {entity_id}: {answers.reason_of(failure)}.")
