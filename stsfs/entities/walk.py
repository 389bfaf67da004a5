"""All files of a folder, for commands that want everything: pin and find."""

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import trio

from stsfs.entities.filler import Filler, all_children
from stsfs.entities.names import file_name, reason_hidden
from stsfs.entities.nodes import EntityDirectory, EntityFile
from stsfs.entities.parallel import work_off
from stsfs.entities.records import FILE_KIND, FOLDER_KINDS, FileRecord, key_of
from stsfs.entities.view import EntityView, Moment
from stsfs.errors import BadArgument, EntityInTrash, EntityNotFound
from stsfs.synapse.records import ChildHeader
from stsfs.vfs.nodes import Directory, path_of

WORKERS = 3
"""As many requests as Synapse allows at a time: somebody waits for all of them."""

FILES_MAX = 4_000_000
"""As many as a lock holds. Links can show one folder in many places."""

_Folder = TypeVar("_Folder")


@dataclass(frozen=True, slots=True)
class WalkedFile:
    """One file that a mount would show."""

    path: str
    """Below the folder, without a slash in front."""

    header: ChildHeader
    record: FileRecord | None = None


@dataclass(slots=True)
class Progress:
    """How far a walk is; `told` is called after each step."""

    told: Callable[["Progress"], None] = lambda progress: None
    folders: int = 1
    folders_done: int = 0
    files: int = 0
    files_done: int = 0
    hidden: int = 0
    """Entities or keys that no path can show."""

    def found(self, files: int, folders: int = 0, hidden: int = 0) -> None:
        """One folder, or one page, is done. Raises BadArgument over FILES_MAX."""
        self.folders += folders
        self.folders_done += 1
        self.files += files
        self.hidden += hidden
        if self.files > FILES_MAX:
            raise BadArgument(
                f"There are more than {FILES_MAX} files.", remedy="Name a folder further down."
            )
        self.told(self)

    def done(self) -> None:
        """All about one file is known."""
        self.files_done += 1
        self.told(self)


async def walk_headers(
    filler: Filler, root_id: str, progress: Progress, moment: Moment | None = None
) -> list[WalkedFile]:
    """Every file below a folder, by path, as Synapse lists them now; and keep that in the index.

    Links are not followed. Raises what EntityApi raises, and BadArgument over FILES_MAX.
    """
    found: list[WalkedFile] = []

    async def visit(folder: tuple[str, str]) -> list[tuple[str, str]]:
        folder_id, path = folder
        headers = await all_children(filler.api, folder_id)
        index = filler.index
        inner = f"/{path}".rstrip("/") or "/"
        await index.ask(index.save_listed, folder_id, inner, headers)
        if moment is not None:
            headers = await moment.at(headers)
        files, folders, hidden = _sorted_out(path, headers)
        found.extend(files)
        progress.found(len(files), len(folders), hidden)
        return folders

    await _everywhere((root_id, ""), visit)
    return sorted(found, key=lambda each: each.path.encode())


async def walk_shown(
    view: EntityView, root: EntityDirectory, progress: Progress
) -> list[WalkedFile]:
    """Every file that a mount shows, by path: links are followed, and a past moment is kept to.

    Raises what EntityApi raises, and BadArgument over FILES_MAX.
    """
    found: list[WalkedFile] = []

    async def visit(directory: EntityDirectory) -> list[EntityDirectory]:
        listing = view.begin(directory, None)
        while not listing.complete:
            await view.next_page(listing)
        files = [each for each in listing.entries if isinstance(each, EntityFile)]
        folders = [each for each in listing.entries if isinstance(each, EntityDirectory)]
        found.extend(
            WalkedFile(_inner_path(each, root), each.entity, each.record) for each in files
        )
        progress.found(len(files), len(folders), listing.hidden.count)
        return folders

    await _everywhere(root, visit)
    return sorted(found, key=lambda each: each.path.encode())


async def with_records(
    filler: Filler, files: Sequence[WalkedFile], progress: Progress, *, annotations: bool
) -> list[WalkedFile]:
    """The same files, with what Synapse knows of them; asks only for what the index lacks.

    What was deleted meanwhile is left out.
    """
    known = await filler.remembered([each.header for each in files])
    records: dict[int, FileRecord] = {}
    waiting: list[int] = []
    for number, each in enumerate(files):
        record = known.get(key_of(each.header))
        is_told = record is not None and not record.unreadable
        if record is not None and is_told and not (annotations and record.annotations is None):
            records[number] = record
        else:
            waiting.append(number)
    progress.files_done = len(records)

    async def ask(number: int) -> None:
        with contextlib.suppress(EntityNotFound, EntityInTrash):
            records[number] = await filler.again(files[number].header)
        progress.done()

    await work_off([partial(ask, number) for number in waiting], WORKERS)
    return [replace(files[number], record=records[number]) for number in sorted(records)]


async def _everywhere(
    root: _Folder, visit: Callable[[_Folder], Awaitable[Sequence[_Folder]]]
) -> None:
    """Visit a folder, and all that visits find below it, several at a time."""
    waiting = deque([root])
    busy = 0
    changed = trio.Event()

    async def work() -> None:
        nonlocal busy, changed
        while waiting or busy:
            if not waiting:
                await changed.wait()
                continue
            folder = waiting.popleft()
            busy += 1
            try:
                waiting.extend(await visit(folder))
            finally:
                busy -= 1
            changed.set()
            changed = trio.Event()

    await work_off([work] * WORKERS, WORKERS)


def _inner_path(file: EntityFile, root: Directory) -> str:
    """The path of a file below root, wherever that is."""
    above = path_of(root).rstrip("/")
    return path_of(file)[len(above) + 1 :]


def _sorted_out(
    path: str, headers: Sequence[ChildHeader]
) -> tuple[list[WalkedFile], list[tuple[str, str]], int]:
    """The files and the folders among children, and how many are neither or cannot be shown."""
    files: list[WalkedFile] = []
    folders: list[tuple[str, str]] = []
    taken: set[bytes] = set()
    hidden = 0
    for header in headers:
        inner = f"{path}{header.name}"
        if reason_hidden(header, taken, in_root=not path):
            hidden += 1
            continue
        taken.add(file_name(header))
        if header.kind in FOLDER_KINDS:
            folders.append((header.entity_id, f"{inner}/"))
        elif header.kind == FILE_KIND:
            files.append(WalkedFile(inner, header))
    return files, folders, hidden
