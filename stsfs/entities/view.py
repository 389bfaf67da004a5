"""The folder as Synapse shows it: entities by their names, files by way of their file handles."""

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import trio

from stsfs.entities.filler import AHEAD_FILES, Filler, record_of
from stsfs.entities.links import Content, LinkTargets
from stsfs.entities.names import file_name, hidden_label, reason_hidden
from stsfs.entities.nodes import EntityDirectory, EntityFile, EntityListing, inner_path
from stsfs.entities.objects import Objects
from stsfs.entities.properties import properties_of
from stsfs.entities.records import FOLDER_KINDS, FileKey, FileRecord, ObjectFact, key_of
from stsfs.errors import EntityInTrash, EntityNotFound, StaleVersion, SynapseUnavailable
from stsfs.synapse.records import ChildHeader, ChildPage
from stsfs.vfs.listing import Listing
from stsfs.vfs.nodes import Directory, File, Node, is_outdated, new_number, path_of
from stsfs.vfs.probes import ProbedDirectories
from stsfs.vfs.view import Found

log = logging.getLogger(__name__)

STALE_PATIENCE_S = 5.0
"""How long Synapse is waited for where an old listing can be shown instead."""

STALE_SERVED_S = 10.0
"""How long that is shown before Synapse is asked again."""

PIECE_CHILDREN = 200
"""So many of a page are shown at a time, so that no reader of cached bytes waits for thousands."""


class Moment(Protocol):
    """What the children of a folder were at some time; the present needs none."""

    async def at(self, headers: Sequence[ChildHeader]) -> list[ChildHeader]:
        """The headers of that time, without those that did not exist."""


Special = Callable[[Directory, bytes], Node | None]
"""Entries that are in no folder; see `magic`."""


class EntityView:
    """Implements View on the children of folders. `filler.run` must be running."""

    is_fixed = False

    def __init__(
        self,
        root_id: str,
        filler: Filler,
        objects: Objects,
        *,
        metadata_ttl_s: float,
        moment: Moment | None = None,
    ) -> None:
        self.root_id = root_id
        self.filler, self.objects = filler, objects
        self.specials: Special = lambda parent, name: None
        self._ttl_s = metadata_ttl_s
        self._moment = moment
        self._links = LinkTargets(filler)
        self._probed = ProbedDirectories(self._ttl_s, trio.current_time)
        self._distrusted: set[str] = set()

    def begin(self, directory: Directory, old: Listing | None) -> EntityListing:
        """See View."""
        return EntityListing(directory, old, expires_s=trio.current_time() + self._ttl_s)

    async def next_page(self, listing: Listing) -> None:
        """See View. From the index where that is fresh, else fifty children."""
        assert isinstance(listing, EntityListing)
        directory = listing.directory
        assert isinstance(directory, EntityDirectory)
        if not listing.pages and await self._from_index(listing, directory):
            return
        folder_id = directory.entity_id
        page = await self._page(folder_id, listing)
        if page is None:
            await self._from_index(listing, directory, stale=True)
            return
        new: dict[str, ChildHeader] = {}  # each once, however often pages tell of it
        for each in page.children:
            if each.entity_id not in listing.headers:
                new.setdefault(each.entity_id, each)
        await self._add(listing, list(new.values()))
        if page.next_token is not None:
            listing.paging.turn(page.next_token, new=len(new))
        listing.pages += 1
        listing.next_token = page.next_token
        if page.next_token is None:
            listing.complete, listing.old = True, None
            await self._save(listing, directory)

    async def _save(self, listing: EntityListing, directory: EntityDirectory) -> None:
        """Keep a complete listing, unless `.synapse` led there: that may be anywhere."""
        path = inner_path(directory, self.root_id)
        if path is None:
            return
        index, headers = self.filler.index, list(listing.headers.values())
        await index.ask(index.save_listed, directory.entity_id, path, headers)
        if not listing.distrusted:
            self._distrusted.discard(directory.entity_id)
        self.filler.more()

    async def _page(self, folder_id: str, listing: EntityListing) -> ChildPage | None:
        """The next page; None where Synapse gives none now, and the index can tell instead."""
        index = self.filler.index
        may_be_stale = not listing.pages and await index.ask(index.listed, folder_id) is not None
        if not may_be_stale:
            return await self.filler.api.children(folder_id, token=listing.next_token)
        try:
            with trio.move_on_after(STALE_PATIENCE_S):
                return await self.filler.api.children(folder_id)
        except SynapseUnavailable as exc:
            log.info("%s is shown as it was: %s", folder_id, exc)
        return None

    async def _from_index(
        self, listing: EntityListing, directory: EntityDirectory, *, stale: bool = False
    ) -> bool:
        """Take all of a folder from the index if that was told within the TTL, or if need be."""
        if directory.entity_id in self._distrusted and not stale:
            return False
        index = self.filler.index
        listed = await index.ask(index.listed, directory.entity_id)
        age_s = float("inf") if listed is None else time.time() - listed.unix_s
        if listed is None or not (stale or 0 <= age_s < self._ttl_s):
            return False
        if stale:
            listing.expires_s = trio.current_time() + STALE_SERVED_S
        else:
            listing.expires_s -= age_s
        await self._add(listing, listed.headers)
        listing.pages, listing.complete, listing.old = 1, True, None
        return True

    async def _add(self, listing: EntityListing, raw: Sequence[ChildHeader]) -> None:
        """Show what a page tells, with what is known of its files."""
        headers = raw if self._moment is None else await self._moment.at(raw)
        targets = await self._links.of(listing.directory, headers)
        contents = [targets.get(each.entity_id, each) for each in headers]
        files = [each for each in contents if isinstance(each, ChildHeader)]
        records = await self.filler.remembered(files)
        facts = await self.objects.remembered(list(records.values()))
        with trio.CancelScope(shield=True):  # a page is taken whole or not at all
            listing.headers.update({each.entity_id: each for each in raw})
            for count, (header, content) in enumerate(zip(headers, contents, strict=True), 1):
                self._show(listing, header, content, records, facts)
                if count % PIECE_CHILDREN == 0:
                    await trio.lowlevel.checkpoint()

    def _show(
        self,
        listing: EntityListing,
        header: ChildHeader,
        content: Content,
        records: Mapping[FileKey, FileRecord],
        facts: Mapping[str, ObjectFact],
    ) -> None:
        """Show one child, or note why it is not shown."""
        directory = listing.directory
        reason = reason_hidden(header, listing.by_name, in_root=directory.is_site_root)
        if reason or isinstance(content, str):
            listing.hidden.add(hidden_label(header, path_of(directory)), reason or str(content))
            return
        name, old = file_name(header), listing.old
        node = self.node(directory, name, content, old, listed_id=header.entity_id)
        if isinstance(node, EntityFile):
            node.listing = weakref.ref(listing)
            if node.record is None and (record := records.get(node.file_key)) is not None:
                node.record, node.fact = record, facts.get(record.object_key)
                _set_time(node)
        listing.show(node)

    def node(
        self,
        parent: Directory,
        name: bytes,
        header: ChildHeader,
        old: Listing | None = None,
        *,
        listed_id: str = "",
    ) -> EntityDirectory | EntityFile:
        """The node of an entity: the one we have if it is the same version, else a new one."""
        told = self._probed.answer(parent, name)
        olds = (
            None if old is None else old.find(name),
            None if told is None else told[0],
            parent.looked_up.get(name),
        )
        if header.kind in FOLDER_KINDS:
            for each in olds:
                if isinstance(each, EntityDirectory) and each.entity_id == header.entity_id:
                    each.header, each.changed_ns = header, _ns(header.modified_unix_s)
                    return each
            return self.directory(parent, name, header)
        for each in olds:
            if (
                isinstance(each, EntityFile)
                and each.file_key == key_of(header)
                and not each.outdated
            ):
                each.listed_id = listed_id or header.entity_id
                return each
        return EntityFile(
            new_number(),
            parent,
            name,
            None,
            _ns(header.modified_unix_s),
            "",
            header=header,
            listed_id=listed_id or header.entity_id,
        )

    def directory(self, parent: Directory, name: bytes, header: ChildHeader) -> EntityDirectory:
        """A new directory for a folder."""
        changed_ns = _ns(header.modified_unix_s)
        return EntityDirectory(
            new_number(),
            parent.site,
            "",
            parent,
            name,
            entity_id=header.entity_id,
            changed_ns=changed_ns,
            header=header,
        )

    async def probe(self, parent: Directory, listing: Listing, name: bytes) -> Found:
        """See View. Two requests, whatever the size of the folder."""
        assert isinstance(parent, EntityDirectory)
        probes = self._probed.of(parent)  # if these are forgotten meanwhile, so is the answer
        known = probes.answer(name)
        if known is not None and not is_outdated(known.node):
            return known.node, known.until_s
        asked_s = trio.current_time()
        expires_s = asked_s + self._ttl_s
        found = None
        shown = listing.find(name)
        if isinstance(shown, EntityFile):
            found = await self._looked_up(parent, name, shown.listed_id)
        if found is None:  # or is it another entity by now?
            entity_id = await self.filler.api.child_id(parent.entity_id, name.decode())
            if entity_id is not None:
                found = await self._looked_up(parent, name, entity_id)
        probes.tell(name, found, asked_s=asked_s)
        if listing.passed(name):
            listing.replace(name, found)
        return found, expires_s

    async def _looked_up(self, parent: EntityDirectory, name: bytes, entity_id: str) -> Node | None:
        """The entity as it is now, if it is still there under this name."""
        try:
            bundle = await self.filler.api.bundle(entity_id)
        except (EntityNotFound, EntityInTrash):
            return None
        if bundle.parent_id != parent.entity_id or file_name(bundle.header) != name:
            return None
        if bundle.handle is not None:  # all that a getattr would ask for
            await self.filler.remember([record_of(bundle, key_of(bundle.header))])
        headers = [bundle.header]
        if self._moment is not None:
            headers = await self._moment.at(headers)
        targets = await self._links.of(parent, headers)
        for header in headers:
            content = targets.get(header.entity_id, header)
            if not isinstance(content, str) and not reason_hidden(header):
                return self.node(parent, name, content, listed_id=entity_id)
        return None

    def special(self, parent: Directory, name: bytes) -> Node | None:
        """See View."""
        return self.specials(parent, name) if parent.is_site_root else None

    def told(self, parent: Directory, name: bytes) -> Node | None:
        """See View."""
        known = self._probed.answer(parent, name)
        return None if known is None else known[0]

    def asked(self) -> Iterable[Directory]:
        """See View."""
        return self._probed.directories()

    def forget(self, directory: Directory) -> bool:
        """See View."""
        return self._probed.forget(directory)

    def distrust(self, directory: Directory) -> None:
        """See View: the index is not believed."""
        if isinstance(directory, EntityDirectory):
            self._distrusted.add(directory.entity_id)

    async def attributes(self, file: File) -> None:
        """See View."""
        assert isinstance(file, EntityFile)
        if file.record is None:
            self._ahead_of(file)
            file.record = await self.filler.want(file.entity)
            facts = await self.objects.remembered([file.record])
            file.fact = facts.get(file.record.object_key)
            _set_time(file)
        if file.size_bytes is not None or not self.objects.is_open_to_us(file.record):
            return
        if self.objects.is_inside(file.record):
            file.fact, _ = await self.objects.fact(file.record)
        else:
            await self.resolve(file)

    def _ahead_of(self, file: EntityFile) -> None:
        """Whoever looks at one file of a folder often looks at those after it."""
        listing = None if file.listing is None else file.listing()
        if listing is not None:
            after = listing.after(file, AHEAD_FILES)
            self.filler.ahead(
                [each.entity for each in after if isinstance(each, EntityFile) and not each.record]
            )

    async def resolve(self, file: File) -> bool:
        """See View."""
        assert isinstance(file, EntityFile)
        shown_bytes = file.size_bytes
        if file.record is None or file.record.unreadable:  # it may be readable by now
            file.record = await self.filler.want(file.entity)
        version, fact, asked = await self.objects.version(file.record)
        file.fact = fact
        if shown_bytes is not None and shown_bytes != version.size_bytes:
            raise StaleVersion(
                f"The object of {file.entity.entity_id} has {version.size_bytes} bytes, and not"
                f" {shown_bytes} as Synapse says: it was replaced without Synapse."
            )
        file.version = version
        file.storage_class = fact.storage_class
        return asked

    async def gone(self, file: File, error: StaleVersion) -> StaleVersion:
        """See View."""
        assert isinstance(file, EntityFile)
        if file.record is not None:
            await self.objects.forget(file.record.object_key)
        return error

    async def properties(self, node: Node) -> Mapping[str, str]:
        """See View."""
        if isinstance(node, EntityFile):
            await self.attributes(node)
            assert node.record is not None
            record = node.record
            if record.annotations is None:  # learnt in bulk, without them
                record = node.record = await self.filler.again(node.entity)
            return properties_of(node.entity, record, record.annotations or {})
        assert isinstance(node, EntityDirectory)
        bundle = await self.filler.bundle(node.entity_id)
        return properties_of(bundle.header, None, bundle.annotations)

    async def hidden_reason(self, root: Directory, path: str) -> str | None:
        """See View."""
        if not isinstance(root, EntityDirectory):
            return None
        taken: set[bytes] = set()
        for header in await self._called(root, path):
            reason = reason_hidden(header, taken, in_root=root.is_site_root)
            if not reason:
                taken.add(file_name(header))
            if path in {header.name, header.entity_id}:
                if not reason:
                    content = (await self._links.of(root, [header])).get(header.entity_id)
                    reason = content if isinstance(content, str) else ""
                if reason:
                    return f"{reason} ({header.entity_id})"
        return None

    async def _called(self, root: EntityDirectory, name: str) -> Sequence[ChildHeader]:
        """The children of a folder as they were last told; else the one that has the name."""
        index, api = self.filler.index, self.filler.api
        listed = await index.ask(index.listed, root.entity_id)
        if listed is not None:
            return listed.headers
        entity_id = await api.child_id(root.entity_id, name)
        return () if entity_id is None else [(await api.bundle(entity_id)).header]


def _ns(unix_s: float) -> int:
    return int(unix_s * 1e9)


def _set_time(file: EntityFile) -> None:
    """The time of the bytes, where it is known, and not that of the last annotation."""
    if file.record is not None and file.record.created_unix_s is not None:
        file.modified_ns = _ns(file.record.created_unix_s)
