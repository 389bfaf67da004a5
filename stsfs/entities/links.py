"""Links between entities: what they lead to is shown in their place."""

from collections.abc import Sequence

from stsfs.entities.filler import Filler
from stsfs.entities.nodes import EntityDirectory
from stsfs.entities.records import FILE_KIND, FOLDER_KINDS, LINK_KIND
from stsfs.errors import AnswerNotUnderstood, SynapseRefusal
from stsfs.synapse.records import ChildHeader
from stsfs.vfs.nodes import Directory

Content = ChildHeader | str
"""What a link shows: the header of its target, or why it shows nothing."""


class LinkTargets:
    """Finds the targets of links; there are few, so they are not asked for in bulk."""

    def __init__(self, filler: Filler) -> None:
        self._filler = filler

    async def of(self, parent: Directory, headers: Sequence[ChildHeader]) -> dict[str, Content]:
        """What each link among these children of parent shows, by the link's id."""
        links = [each for each in headers if each.kind == LINK_KIND]
        return {each.entity_id: await self._target(parent, each) for each in links}

    async def _target(self, parent: Directory, link: ChildHeader) -> Content:
        try:
            record = await self._filler.want(link)
            entity_id, _, version = record.link_target.partition(".")
            if not entity_id:
                return record.unreadable or "the link leads nowhere"
            if version:
                header = (await self._filler.api.bundle(entity_id, int(version))).header
            else:
                header = (await self._filler.bundle(entity_id)).header
        except (SynapseRefusal, AnswerNotUnderstood) as exc:
            return f"its target cannot be seen: {exc.sentence}"
        if header.kind in FOLDER_KINDS:
            return _unless_above(parent, header)
        if header.kind != FILE_KIND:
            return f"the link leads to {header.entity_id}, which is neither a file nor a folder"
        return header


def _unless_above(parent: Directory, target: ChildHeader) -> Content:
    """A folder must not lie within itself: whoever walks the tree would never come to an end."""
    at: Directory | None = parent
    while at is not None:
        if isinstance(at, EntityDirectory) and at.entity_id == target.entity_id:
            return f"the link leads to {target.entity_id}, a folder that it lies in"
        at = at.parent
    return target
