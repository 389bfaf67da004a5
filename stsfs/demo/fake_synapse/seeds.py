"""Ways to change what the fake Synapse knows, past its rules: as other people do, elsewhere."""

from collections.abc import Sequence
from datetime import datetime

from stsfs.demo.fake_synapse.state import Entity, Kind, Revision, State, User, new_etag


def add_version(
    state: State, entity: Entity, owner: User, *, key: str, size_bytes: int, md5: str
) -> Revision:
    """A new version of a file, with bytes of its own."""
    with state.lock:
        assert entity.parent is not None
        parent = state.entities[entity.parent]
        handle = state.new_handle(entity.name, parent, owner, key, size_bytes, md5)
        entity.etag = new_etag()
        return entity.new_version(state.now_unix_s(), owner.user_id, handle.handle_id)


def rename(state: State, entity: Entity, name: str, owner: User) -> None:
    """Another name, any name: old entities have some that are not allowed any more."""
    with state.lock:
        entity.name = name
        state.touch(entity, owner.user_id)


def move(state: State, entity: Entity, parent: Entity, owner: User) -> None:
    """Another folder."""
    with state.lock:
        state.move(entity, parent.number)
        state.touch(entity, owner.user_id)


def trash(state: State, entity: Entity) -> None:
    """Gone, for thirty days."""
    with state.lock:
        entity.trashed = True


def annotate(
    state: State, entity: Entity, owner: User, annotations: dict[str, Sequence[object]]
) -> None:
    """These annotations, in place of all others."""
    with state.lock:
        entity.annotations = {
            name: {"type": _type(values[0]), "value": [_text(value) for value in values]}
            for name, values in annotations.items()
        }
        state.touch(entity, owner.user_id)


def add_link(
    state: State, name: str, parent: Entity, owner: User, target: Entity, version: int | None = None
) -> Entity:
    """A link to another entity."""
    with state.lock:
        link = state.insert("link", name, parent.number, owner.user_id)
        link.link_to, link.link_kind = (target.number, version), target.kind
        return link


def add_table(state: State, name: str, parent: Entity, owner: User, kind: Kind = "table") -> Entity:
    """A table, or what else is neither file nor folder, of which only the name matters here."""
    with state.lock:
        return state.insert(kind, name, parent.number, owner.user_id)


def add_entity_view(
    state: State,
    name: str,
    parent: Entity,
    owner: User,
    scope: Sequence[Entity],
    annotation_columns: Sequence[str] = (),
) -> Entity:
    """A view of all files below some containers."""
    with state.lock:
        view = state.insert("entityview", name, parent.number, owner.user_id)
        view.scope = tuple(each.number for each in scope)
        view.annotation_columns = tuple(annotation_columns)
        return view


def _text(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return str(int(value.timestamp() * 1000))
    return str(value)


def _type(value: object) -> str:
    match value:
        case datetime():
            return "TIMESTAMP_MS"
        case bool():
            return "BOOLEAN"
        case int():
            return "LONG"
        case float():
            return "DOUBLE"
    return "STRING"
