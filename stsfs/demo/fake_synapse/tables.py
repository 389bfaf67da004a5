"""Queries of entity views over HTTP: as asynchronous jobs, a page at a time."""

import uuid
from dataclasses import dataclass

from flask import Blueprint
from flask.typing import ResponseReturnValue

from stsfs.demo.fake_synapse import rules, views
from stsfs.demo.fake_synapse.answers import MODEL, Json, Refused
from stsfs.demo.fake_synapse.guard import caller, json_body, needs, services, the_state
from stsfs.demo.fake_synapse.state import Entity

blueprint = Blueprint("tables", __name__)

JOBS_MAX = 50
"""How many jobs are remembered: the answers of all of them are."""


@dataclass(slots=True)
class _Result:
    """All rows of a query, or why there are none."""

    headers: list[dict[str, str]]
    rows: list[list[str | None]]
    refusal: Refused | None = None


@dataclass(slots=True)
class _Job:
    """One page of a result; it is asked for once in vain."""

    user_id: int
    view: Entity
    result: _Result
    offset: int
    asked: bool = False


@blueprint.post("/repo/v1/entity/<syn_id>/table/query/async/start")
@needs("view", "download")
def start(syn_id: str) -> ResponseReturnValue:
    """Begin a query; what is wrong with it is told by the job."""
    sql = str((json_body().get("query") or {}).get("sql") or "")
    view = _view(syn_id)
    try:
        result = _Result(*views.run(the_state(), view, caller(), sql))
    except Refused as refusal:
        result = _Result([], [], refusal)
    return {"token": _remember(_Job(caller(), view, result, 0))}, 201


@blueprint.post("/repo/v1/entity/<syn_id>/table/query/nextPage/async/start")
@needs("view", "download")
def start_next(syn_id: str) -> ResponseReturnValue:
    """Begin to fetch the next page of a query."""
    view = _view(syn_id)
    token, _, offset = str(json_body().get("token") or "").partition(" ")
    job = services().jobs.get(token)
    if job is None or job.view is not view or not offset.isdecimal():
        raise Refused(400, "The page token is not valid.")
    return {"token": _remember(_Job(caller(), view, job.result, int(offset)))}, 201


@blueprint.get("/repo/v1/entity/<syn_id>/table/query/async/get/<token>")
@needs("view", "download")
def get(syn_id: str, token: str) -> ResponseReturnValue:
    """Give the first page of a query, if it is there, or why there is none."""
    job = _job(syn_id, token)
    if not job.asked:
        return _not_yet(job, token)
    page = _page(job, token)
    return {"concreteType": f"{MODEL}table.QueryResultBundle", "queryResult": page}


@blueprint.get("/repo/v1/entity/<syn_id>/table/query/nextPage/async/get/<token>")
@needs("view", "download")
def get_next(syn_id: str, token: str) -> ResponseReturnValue:
    """The same for one of the other pages."""
    job = _job(syn_id, token)
    return _page(job, token) if job.asked else _not_yet(job, token)


@blueprint.get("/repo/v1/entity/<syn_id>/column")
@needs("view")
def columns(syn_id: str) -> ResponseReturnValue:
    """Give the columns of a view."""
    types = views.types(the_state(), _view(syn_id))
    return {
        "results": [
            {"id": str(number), "name": name, "columnType": type_name}
            for number, (name, type_name) in enumerate(types.items(), start=1)
        ]
    }


def _view(syn_id: str) -> Entity:
    state = the_state()
    entity = rules.find(state, syn_id)
    rules.authorize(state, caller(), entity, "READ")
    if entity.kind != "entityview":
        raise Refused(400, f"{entity.syn_id} is not a table or view.")
    return entity


def _remember(job: _Job) -> str:
    jobs, token = services().jobs, uuid.uuid4().hex
    jobs[token] = job
    while len(jobs) > JOBS_MAX:
        del jobs[next(iter(jobs))]
    return token


def _job(syn_id: str, token: str) -> _Job:
    view = _view(syn_id)
    job: _Job | None = services().jobs.get(token)
    if job is None or job.view is not view:
        raise Refused(404, f"The job {token} does not exist")
    if job.user_id != caller():
        raise Refused(403, "Only the user that started a job can access the job")
    return job


def _not_yet(job: _Job, token: str) -> tuple[Json, int]:
    job.asked = True
    return {
        "concreteType": f"{MODEL}asynch.AsynchronousJobStatus",
        "jobId": token,
        "jobState": "PROCESSING",
        "startedByUserId": job.user_id,
    }, 202


def _page(job: _Job, token: str) -> Json:
    """QueryResult."""
    result = job.result
    if result.refusal is not None:
        raise result.refusal
    end = job.offset + the_state().view_page_rows
    page: Json = {
        "concreteType": f"{MODEL}table.QueryResult",
        "queryResults": {
            "concreteType": f"{MODEL}table.RowSet",
            "tableId": job.view.syn_id,
            "headers": result.headers,
            "rows": [{"values": row} for row in result.rows[job.offset : end]],
        },
    }
    if len(result.rows) > end:
        page["nextPageToken"] = {
            "concreteType": f"{MODEL}table.QueryNextPageToken",
            "entityId": job.view.syn_id,
            "token": f"{token} {end}",
        }
    return page
