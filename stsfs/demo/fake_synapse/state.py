"""What the fake Synapse knows: users, entities, file handles, storage locations. In memory.

Methods assume that the caller holds `State.lock`, except the `add_` and `set_` methods, which
take it themselves: they are for tests and the demonstration, and bypass the rules.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "project", "folder", "file", "link", "table", "entityview", "submissionview", "dataset",
    "materializedview", "dockerrepo",
]  # fmt: skip
"""Synapse's words for types of entities, as far as they are known here."""

ROOT = 4489
ANONYMOUS = 273950
PUBLIC = 273949
"""The principal that stands for everyone, anonymous users included."""

DEFAULT_LOCATION = 1
MANAGED_BUCKET = "proddata.sagebase.org"
ALL_SCOPES = frozenset({"view", "download", "modify"})
READ = frozenset({"READ"})
DOWNLOAD = READ | {"DOWNLOAD"}
EDIT = DOWNLOAD | {"CREATE", "UPDATE"}
ADMIN = EDIT | {"DELETE", "CHANGE_PERMISSIONS", "CHANGE_SETTINGS", "MODERATE"}


def new_etag() -> str:
    """Return an etag that was never used."""
    return str(uuid.uuid4())


@dataclass(slots=True)
class User:
    """One account, and what decides about its requests."""

    user_id: int
    name: str
    certified: bool = True
    terms_signed: bool = True
    two_factor: bool = True

    @property
    def email(self) -> str:
        """Where mail would go; accepted in owner.txt."""
        return f"{self.name}@example.org"


@dataclass(slots=True)
class Revision:
    """One version of a file, or the only one of a folder."""

    number: int
    modified_on_unix_s: float
    modified_by: int
    file_handle_id: str | None = None
    label: str | None = None
    comment: str | None = None
    annotations: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Entity:
    """One node of the tree; ids are numbers here and `syn…` outside."""

    number: int
    kind: Kind
    name: str
    parent: int | None
    created_on_unix_s: float
    created_by: int
    revisions: list[Revision]
    etag: str = field(default_factory=new_etag)
    description: str | None = None
    trashed: bool = False
    version_max: int = 1
    """The highest version there ever was: numbers are not used again."""

    link_to: tuple[int, int | None] | None = None
    """Of a link: the target, and its version if one is named."""

    link_kind: Kind | None = None

    scope: tuple[int, ...] = ()
    """Of an entity view: the containers whose files it shows."""

    annotation_columns: tuple[str, ...] = ()
    """Of an entity view: annotations that it shows beside the usual columns."""

    frozen_rows: "list[tuple[Entity, list[object]]] | None" = None
    """Of an entity view that lags behind: the rows that it goes on showing."""

    @property
    def syn_id(self) -> str:
        """The id as users know it."""
        return f"syn{self.number}"

    @property
    def current(self) -> Revision:
        """The newest version."""
        return self.revisions[-1]

    @property
    def annotations(self) -> dict[str, object]:
        """Those of the newest version."""
        return self.current.annotations

    @annotations.setter
    def annotations(self, annotations: dict[str, object]) -> None:
        self.current.annotations = annotations

    def new_version(self, now_unix_s: float, user_id: int, handle_id: str) -> Revision:
        """Add a version, which begins with the annotations of the one before."""
        self.version_max += 1
        revision = Revision(self.version_max, now_unix_s, user_id, handle_id)
        revision.annotations = dict(self.annotations)
        self.revisions.append(revision)
        return revision


@dataclass(frozen=True, slots=True)
class FileHandle:
    """An object in a bucket, as Synapse knows it; immutable."""

    handle_id: str
    bucket: str
    key: str
    file_name: str
    content_type: str
    content_md5: str
    content_size_bytes: int | None
    """None where nobody has told; S3 knows."""

    storage_location_id: int
    created_by: int
    created_on_unix_s: float
    etag: str = field(default_factory=new_etag)


@dataclass(frozen=True, slots=True)
class StorageLocation:
    """Where files can be stored; immutable."""

    location_id: int
    kind: Literal["managed", "external"]
    created_by: int
    created_on_unix_s: float
    bucket: str = MANAGED_BUCKET
    base_key: str = ""
    sts_enabled: bool = False
    banner: str | None = None
    description: str | None = None
    made_from: str = ""
    """The request that made it: the same request by the same user finds it again."""

    etag: str = field(default_factory=new_etag)


@dataclass(slots=True)
class ProjectSetting:
    """Which storage locations a project or folder uses, and all below it."""

    setting_id: str
    entity: int
    locations: tuple[int, ...]
    etag: str = field(default_factory=new_etag)


class State:
    """Everything, behind one lock."""

    def __init__(self, *, now_unix_s: Callable[[], float] = time.time) -> None:
        self.lock = threading.RLock()
        self.now_unix_s = now_unix_s
        self._last_number = 12_000_000
        self.users: dict[int, User] = {
            ANONYMOUS: User(ANONYMOUS, "anonymous", certified=False, terms_signed=True)
        }
        self.tokens: dict[str, tuple[int, frozenset[str]]] = {}
        root = Entity(ROOT, "folder", "root", None, 0.0, 1, [Revision(1, 0.0, 1)])
        self.entities: dict[int, Entity] = {ROOT: root}
        self._by_parent: dict[int, dict[int, Entity]] = {}
        self.acls: dict[int, dict[int, frozenset[str]]] = {ROOT: {PUBLIC: READ}}
        self.handles: dict[str, FileHandle] = {}
        self.locations = {DEFAULT_LOCATION: StorageLocation(DEFAULT_LOCATION, "managed", 1, 0.0)}
        self.settings: dict[int, ProjectSetting] = {}
        """By the entity that has it."""

        self.unmet_requirements: dict[int, set[int]] = {}
        """Entity → users who have not met its conditions; they hold for all below it."""

        self.two_factor_required: set[int] = set()
        self.view_page_rows = 1000
        """How many rows a query gives at a time."""

    def next_number(self) -> int:
        """Return a number that names nothing yet."""
        self._last_number += 1
        return self._last_number

    def ancestry(self, entity: Entity) -> Iterator[Entity]:
        """Yield the entity and all above it, the root last."""
        current: Entity | None = entity
        while current is not None:
            yield current
            current = None if current.parent is None else self.entities.get(current.parent)

    def in_trash(self, entity: Entity) -> bool:
        """Say whether the entity, or one above it, was deleted."""
        return any(ancestor.trashed for ancestor in self.ancestry(entity))

    def children(self, parent: int, *, trashed: bool = False) -> list[Entity]:
        """Return the direct children; with `trashed` those in the trash can too."""
        return [
            entity
            for entity in self._by_parent.get(parent, {}).values()
            if trashed or not entity.trashed
        ]

    def child(self, parent: int, name: str) -> Entity | None:
        """Return the child of this name, if any."""
        return next((entity for entity in self.children(parent) if entity.name == name), None)

    def benefactor(self, entity: Entity) -> Entity:
        """Return the entity whose ACL counts for this one."""
        return next(each for each in self.ancestry(entity) if each.number in self.acls)

    def permissions(self, user_id: int, entity: Entity) -> frozenset[str]:
        """Return what the ACL gives to this user."""
        acl = self.acls[self.benefactor(entity).number]
        return acl.get(user_id, frozenset()) | acl.get(PUBLIC, frozenset())

    def setting_of(self, entity: Entity) -> ProjectSetting | None:
        """Return the setting in force, the entity's own or the nearest above it."""
        found = (self.settings.get(each.number) for each in self.ancestry(entity))
        return next((setting for setting in found if setting is not None), None)

    def location_of(self, entity: Entity) -> StorageLocation:
        """Return where files of this entity are stored by default."""
        setting = self.setting_of(entity)
        return self.locations[setting.locations[0] if setting else DEFAULT_LOCATION]

    def insert(
        self, kind: Kind, name: str | None, parent: int, user_id: int, *, handle: str | None = None
    ) -> Entity:
        """Add an entity; the one thing that makes entities."""
        number, now_unix_s = self.next_number(), self.now_unix_s()
        revision = Revision(1, now_unix_s, user_id, handle)
        name = f"syn{number}" if name is None else name
        entity = Entity(number, kind, name, parent, now_unix_s, user_id, [revision])
        self.entities[number] = entity
        self._by_parent.setdefault(parent, {})[number] = entity
        if kind == "project":
            self.acls[number] = {user_id: ADMIN}
        return entity

    def move(self, entity: Entity, parent: int) -> None:
        """Put an entity into another container."""
        if entity.parent is not None:
            del self._by_parent[entity.parent][entity.number]
        entity.parent = parent
        self._by_parent.setdefault(parent, {})[entity.number] = entity

    def touch(self, entity: Entity, user_id: int) -> None:
        """Note a change: the real server does so for annotations, too."""
        entity.etag = new_etag()
        entity.current.modified_on_unix_s = self.now_unix_s()
        entity.current.modified_by = user_id

    def add_user(
        self, name: str, *, token: str | None = None, scopes: frozenset[str] = ALL_SCOPES
    ) -> User:
        """Add an account, and a token for it."""
        with self.lock:
            user = User(self.next_number(), name)
            self.users[user.user_id] = user
            if token is not None:
                self.tokens[token] = (user.user_id, scopes)
            return user

    def add_token(self, user: User, token: str, *, scopes: frozenset[str] = ALL_SCOPES) -> None:
        """Let the user in with this token."""
        with self.lock:
            self.tokens[token] = (user.user_id, scopes)

    def revoke_token(self, token: str) -> None:
        """Answer 401 to this token from now on."""
        with self.lock:
            self.tokens.pop(token, None)

    def add_project(self, name: str, owner: User) -> Entity:
        """Add a project that only its owner may use."""
        with self.lock:
            return self.insert("project", name, ROOT, owner.user_id)

    def add_folder(self, name: str, parent: Entity, owner: User) -> Entity:
        """Add a folder."""
        with self.lock:
            return self.insert("folder", name, parent.number, owner.user_id)

    def add_sts_folder(
        self, name: str, parent: Entity, owner: User, *, bucket: str | None, base_key: str = ""
    ) -> Entity:
        """Add a folder with an STS location of its own; without a bucket a managed one."""
        with self.lock:
            folder = self.insert("folder", name, parent.number, owner.user_id)
            location = StorageLocation(
                self.next_number(),
                "managed" if bucket is None else "external",
                owner.user_id,
                self.now_unix_s(),
                bucket=bucket or MANAGED_BUCKET,
                base_key=base_key or (f"{owner.user_id}/{uuid.uuid4()}" if bucket is None else ""),
                sts_enabled=True,
            )
            self.locations[location.location_id] = location
            setting = ProjectSetting(
                str(self.next_number()), folder.number, (location.location_id,)
            )
            self.settings[folder.number] = setting
            return folder

    def add_file(
        self,
        name: str,
        parent: Entity,
        owner: User,
        *,
        key: str,
        size_bytes: int | None,
        md5: str,
        bucket: str | None = None,
    ) -> Entity:
        """Add a file whose object lies in the storage location of its parent, or in any bucket."""
        with self.lock:
            handle = self.new_handle(name, parent, owner, key, size_bytes, md5, bucket)
            return self.insert("file", name, parent.number, owner.user_id, handle=handle.handle_id)

    def new_handle(
        self,
        name: str,
        parent: Entity,
        owner: User,
        key: str,
        size_bytes: int | None,
        md5: str,
        bucket: str | None = None,
    ) -> FileHandle:
        """Make a file handle; in another bucket than its parent's it belongs to no STS location."""
        location = self.location_of(parent)
        handle = FileHandle(
            str(self.next_number()),
            bucket or location.bucket,
            key,
            name,
            "application/octet-stream",
            md5,
            size_bytes,
            location.location_id if bucket is None else DEFAULT_LOCATION,
            owner.user_id,
            self.now_unix_s(),
        )
        self.handles[handle.handle_id] = handle
        return handle

    def set_permissions(self, entity: Entity, user_id: int, permissions: frozenset[str]) -> None:
        """Give a user (or PUBLIC) exactly these on the entity; it gets an ACL of its own."""
        with self.lock:
            acl = self.acls.setdefault(
                entity.number, dict(self.acls[self.benefactor(entity).number])
            )
            acl[user_id] = permissions
