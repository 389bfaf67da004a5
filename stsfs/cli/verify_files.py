"""The files that `stsfs verify` is about, and what the daemon of their mount says of each."""

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stsfs.cli.asking import Place, ask_about, ask_mount, dead_remedy, dead_sentence
from stsfs.daemon.control_client import DaemonSilent
from stsfs.daemon.runtime_dir import KnownMount
from stsfs.errors import DeadlineExceeded, NoSuchMount, NotFound, StoreFailure, StsfsError

BATCH_MAX = 100
"""Files of one question."""

BATCH_BYTES_MAX = 32 * 1024
"""Of their paths, as JSON: half of what the daemon reads of a request."""

QUESTIONS_MAX = 4
"""At once; the daemon hears sixteen clients, and others have questions too."""


@dataclass(frozen=True, slots=True)
class Target:
    """A file or directory in a mount; error is why the directory could not be listed."""

    mount: KnownMount
    inner: str
    """Below the mount point; empty for the mount point itself."""

    error: OSError | None = None

    @property
    def path(self) -> str:
        """The whole path."""
        return os.path.join(self.mount.record.mount_path, self.inner).rstrip("/")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the daemon knows of a file. error: why it knows nothing, in a sentence."""

    entity_id: str | None = None
    version: int | None = None
    md5: str | None = None
    size_bytes: int | None = None
    etag: str | None = None
    error: str | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Facts":
        """From the daemon's answer, or a line of a report. Raises KeyError."""
        return cls(
            values["entity_id"],
            values["version"],
            values["md5"],
            values["size_bytes"],
            values["etag"],
            values.get("error"),
        )

    @property
    def identity(self) -> bytes | None:
        """A digest of what must not change for a result to hold; None where some is not known."""
        parts = (self.entity_id, self.version, self.md5, self.size_bytes, self.etag)
        if None in parts:
            return None
        return hashlib.blake2b(json.dumps(parts).encode("ascii"), digest_size=16).digest()


def roots(places: Iterable[Place]) -> list[Target]:
    """Where to begin, none below another. Raises NotFound, or NoSuchMount for a dead mount."""
    found: dict[str, Target] = {}
    for place in places:
        mount = place.mount
        if mount.state == "dead":
            raise NoSuchMount(dead_sentence(mount), remedy=dead_remedy(mount))
        inner = os.path.normpath(place.inner).strip("/")
        target = Target(mount, "" if inner == "." else inner)
        if not os.path.lexists(target.path):
            raise NotFound(
                f"There is no {target.path}.", remedy="`stsfs explain` says what is there instead."
            )
        found[target.path] = target
    return [
        target
        for path, target in sorted(found.items())
        if not any(path.startswith(f"{other}/") for other in found)
    ]


def walk(root: Target) -> Iterator[Target]:
    """The files at and below root, directory by directory in order of their names.

    Mounts within the mount are left out. A directory that cannot be listed comes with its error.
    """
    try:
        status = os.lstat(root.path)
    except OSError as exc:
        yield Target(root.mount, root.inner, exc)
        return
    if not stat.S_ISDIR(status.st_mode):
        yield root
        return
    stack = [root.inner]
    while stack:
        at = Target(root.mount, stack.pop())
        try:
            if os.lstat(at.path).st_dev != status.st_dev:
                continue
            with os.scandir(at.path) as entries:
                names = sorted(
                    (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries
                )
        except OSError as exc:
            yield Target(at.mount, at.inner, exc)
            continue
        for name, is_directory in names:
            if not is_directory:
                yield Target(at.mount, os.path.join(at.inner, name))
        stack += [os.path.join(at.inner, name) for name, is_dir in reversed(names) if is_dir]


def batches(targets: Iterable[Target]) -> Iterator[list[Target]]:
    """The targets of one mount in groups whose paths fit into one question."""
    batch: list[Target] = []
    size_bytes = 0
    for target in targets:
        path_bytes = len(json.dumps(target.inner))
        if batch and (len(batch) == BATCH_MAX or size_bytes + path_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, size_bytes = [], 0
        batch.append(target)
        size_bytes += path_bytes
    if batch:
        yield batch


class Asking:
    """Questions to the daemons, from any thread."""

    def __init__(self) -> None:
        self._at_once = threading.BoundedSemaphore(QUESTIONS_MAX)

    def facts(self, targets: Sequence[Target]) -> list[Facts]:
        """What the daemon knows of files of one mount, in their order.

        What it had to ask Synapse for stays known to it: if it was too much for one answer, half
        of it is asked for. Raises NoSuchMount, and what the daemon answers.
        """
        known = [target for target in targets if target.error is None]
        if not known:
            return [_unlisted(target) for target in targets]
        paths = [target.inner for target in known]
        try:
            with self._at_once:
                answer = ask_mount(known[0].mount, "digests", paths=paths)
        except DeadlineExceeded as exc:
            if len(targets) == 1 or isinstance(exc, DaemonSilent):
                raise
            middle = len(targets) // 2
            return self.facts(targets[:middle]) + self.facts(targets[middle:])
        try:
            told = dict(zip(paths, map(Facts.from_json, answer["files"]), strict=True))
        except (KeyError, TypeError, ValueError) as exc:
            raise StoreFailure(
                f"The daemon of {known[0].mount.record.mount_path} gives an unknown answer.",
                remedy="It may be of another version of stsfs: unmount, and mount again.",
            ) from exc
        return [told[t.inner] if t.error is None else _unlisted(t) for t in targets]

    def reason(self, target: Target, errno_name: str) -> str:
        """Why something met this errno, as far as the daemon knows; empty where it does not."""
        try:
            with self._at_once:
                answer = ask_about(Place(target.mount, target.inner), "explain")
        except StsfsError:
            return ""
        for refused in (answer.get("last_refusal"), answer.get("read")):
            if refused and refused["errno"] == errno_name:
                return str(refused["sentence"])
        return ""


def _unlisted(target: Target) -> Facts:
    assert target.error is not None
    return Facts(error=f"It cannot be looked at: {target.error.strerror}.")
