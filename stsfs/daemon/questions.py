"""What the daemon answers about a path: the control commands `explain`, `info` and `refresh`.

Paths arrive relative to the mount point. Answers are JSON values described by stsfs/cli/schemas.
"""

import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stsfs.daemon.control import Handler
from stsfs.daemon.places import Place
from stsfs.entities.nodes import EntityFile
from stsfs.errors import BadArgument, NotFound, StsfsError
from stsfs.fuse import errno_table
from stsfs.location.rules_place import place_record, way_place
from stsfs.rules.question import Place as RulesPlace
from stsfs.store.object_store import ObjectVersion
from stsfs.values import TEXT_CHARS_MAX, one_line
from stsfs.vfs import explain
from stsfs.vfs.explain import Verdict
from stsfs.vfs.inspector import Found, Inspector, KernelCache
from stsfs.vfs.nodes import Directory, File, Node
from stsfs.vfs.refusals import Refusal, Refusals

Request = dict[str, Any]
Answer = dict[str, Any]

DIGESTS_MAX = 100
"""Files of one question; each may cost a request."""

DiskBytes = Callable[[ObjectVersion], Awaitable[int | None]]
"""How many bytes of a version are on disk; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Questions:
    """The parts of a mount that know about paths."""

    places: Mapping[int, Place]
    """By their location ids."""

    inspector: Inspector
    refusals: Refusals
    kernel: KernelCache
    disk_bytes: DiskBytes | None = None

    def handlers(self) -> dict[str, Handler]:
        """For `serve_control`, by command."""
        return {
            "explain": self.explain,
            "info": self.info,
            "refresh": self.refresh,
            "rules": self.rules,
            "digests": self.digests,
        }

    async def explain(self, request: Request) -> Answer:
        """What a path is, what was refused there, what reading and changing it would meet."""
        found = await self.inspector.find(_path(request))
        last = self.refusals.of_path(found.path)
        place = self._place(found)
        facts = self.inspector.facts(
            found,
            _why_no_credentials(place),
            place=self._rules_place(found),
            refused_before=last is not None,
        )
        lease = place.lease.status()
        return {
            "path": found.path,
            "kind": found.kind,
            "what": explain.what(facts),
            "key": found.key,
            "uri": _uri(place, found),
            "size_bytes": facts.size_bytes if found.kind == "file" else None,
            "storage_class": facts.storage_class or None,
            "read": _verdict(explain.reading(facts)),
            "change": _verdict(explain.changing(facts)),
            "last_refusal": None if last is None else refusal_record(last),
            "known": await self._known(found),
            "credentials": None
            if lease.in_force and not lease.last_error
            else {
                "source": lease.source,
                "in_force": lease.in_force,
                "seconds_left": lease.seconds_left,
                "last_error": lease.last_error,
            },
        }

    async def info(self, request: Request) -> Answer:
        """What an object is, and how much of it is cached. Raises NotFound."""
        found = await self.inspector.find(_path(request))
        if found.node is None:
            if found.kind == "unknown" and found.error is not None:
                raise found.error
            raise NotFound(
                f"There is no {found.path} in this mount.",
                remedy="`stsfs explain` says what is there instead.",
            )
        place = self._place(found)
        properties = await self.inspector.properties(found.node)
        return {
            "path": found.path,
            "kind": found.kind,
            "location": place.location.label,
            "bucket": _bucket(place, found),
            "key": found.key,
            "uri": _uri(place, found),
            "inode": found.node.inode,
            **_object(found.node),
            "properties": dict(properties),
            "known": await self._known(found),
        }

    async def digests(self, request: Request) -> Answer:
        """What is known of the content of several files, for whoever compares it."""
        paths = request.get("paths")
        if not isinstance(paths, list) or len(paths) > DIGESTS_MAX:
            raise BadArgument(f"The request names no list of at most {DIGESTS_MAX} paths.")
        return {"files": [await self._digest(_checked(path)) for path in paths]}

    async def _digest(self, path: str) -> Answer:
        answer: Answer = {"path": path, "entity_id": None, "version": None, "md5": None,
                          "size_bytes": None, "etag": None, "error": None}  # fmt: skip
        found = await self.inspector.find(path)
        if not isinstance(found.node, File):
            answer["error"] = str(found.error or NotFound(f"{found.path} is not a file."))
            return answer
        try:
            told = await self.inspector.properties(found.node)
        except StsfsError as exc:
            answer["error"] = str(exc)
            return answer
        version = told.get("synapse.version")
        return answer | {
            "entity_id": told.get("synapse.id"),
            "version": None if version is None else int(version),
            "md5": found.node.md5 or None,
            "size_bytes": found.node.size_bytes,
            "etag": None if found.node.version is None else found.node.version.etag,
        }

    async def refresh(self, request: Request) -> Answer:
        """Drop what is known of a path, here and in the kernel."""
        return asdict(await self.inspector.forget(_path(request), self.kernel))

    async def rules(self, request: Request) -> Answer:
        """Which rules concern the place that a path lies in, and what is known of it."""
        return place_record(self._rules_place(await self.inspector.find(_path(request))))

    async def _known(self, found: Found) -> Answer:
        """What is remembered of a path at this moment."""
        node = found.node
        directory = node if isinstance(node, Directory) else found.parent
        known: Answer = {
            "listing": None if directory is None else self.inspector.listing_age(directory),
            "memory_bytes": None,
            "disk_bytes": None,
            "open_handles": self.inspector.open_handles(node),
        }
        if isinstance(node, File) and node.version is not None:
            known["memory_bytes"] = self.inspector.held_bytes(node.version)
            if self.disk_bytes is not None:
                known["disk_bytes"] = await self.disk_bytes(node.version)
        return known

    def _place(self, found: Found) -> Place:
        """The location that a path lies in; the first where it lies in none."""
        return self._location(found) or next(iter(self.places.values()))

    def _location(self, found: Found) -> Place | None:
        node = found.node or found.parent
        at: Directory | None = node.parent if isinstance(node, File) else node
        while at is not None:
            if at.site.location_id in self.places:
                return self.places[at.site.location_id]
            at = at.parent
        return None

    def _rules_place(self, found: Found) -> RulesPlace:
        """What the rules want to know of the place that a path lies in."""
        place = self._place(found).rules_place
        leads_on = found.node is not None or found.parent is not None
        if leads_on and self._location(found) is None:
            return way_place("this mount", writable=place.writable)
        return place


def _why_no_credentials(place: Place) -> StsfsError | None:
    try:
        place.lease.current()
    except StsfsError as exc:
        return exc
    return None


def _uri(place: Place, found: Found) -> str | None:
    """Where the bytes are; None for what has no key."""
    node = found.node
    is_bucket = isinstance(node, Directory) and node.site.view is None
    return f"s3://{_bucket(place, found)}/{found.key}" if found.key or is_bucket else None


def _bucket(place: Place, found: Found) -> str:
    """The bucket of a file, which may lie outside its location; else that of the location."""
    node = found.node
    if isinstance(node, EntityFile) and node.record is not None and node.record.bucket:
        return node.record.bucket
    return place.location.bucket


def refusal_record(refusal: Refusal) -> Answer:
    """A refusal in JSON values, as status and explain show it."""
    return {
        "path": refusal.path,
        "operation": refusal.operation,
        "errno": refusal.errno_name,
        "sentence": refusal.sentence,
        "remedy": refusal.remedy,
        "when_unix_s": refusal.at_unix_s,
    }


def _object(node: Node) -> Answer:
    if not isinstance(node, File):
        return {"etag": None, "size_bytes": None, "storage_class": None, "modified_unix_s": None}
    return {
        "etag": None if node.version is None else node.version.etag,
        "size_bytes": node.size_bytes,
        "storage_class": node.storage_class,
        "modified_unix_s": node.modified_ns / 1e9,
    }


def _verdict(verdict: Verdict) -> Answer:
    name = None
    if verdict.error is not None:
        name = errno.errorcode[errno_table.reply_for(verdict.error).errno]
    return {
        "allowed": verdict.allowed,
        "errno": name,
        "sentence": verdict.sentence,
        "remedy": verdict.remedy,
    }


def _path(request: Request) -> str:
    return _checked(request.get("path"))


def _checked(path: object) -> str:
    """A path as the system may have it. Raises BadArgument."""
    if not isinstance(path, str) or "\0" in path or len(path) > TEXT_CHARS_MAX:
        raise BadArgument("The request names no path.")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise BadArgument(f"{one_line(path)!r} is no path.") from None
    return path
