"""A Synapse folder filled as the website fills it: keys say nothing, entities everything."""

import hashlib
import itertools
import os
from dataclasses import replace

from stsfs.demo.fake_synapse import seeds
from tests.mount.stage import Folder


class EntityFolder(Folder):
    """Like Folder; `write` makes entities, and objects below `<base key>/<user>/<n>/<name>`."""

    _numbers = itertools.count(1)

    @property
    def state(self):
        return self.stage.state

    @property
    def user(self):
        return self.stage.user

    @property
    def entity(self):
        """The folder itself."""
        return self.state.entities[int(self.syn_id.removeprefix("syn"))]

    def find(self, name):
        """The entity of a path below the folder, or None."""
        at = self.entity
        for part in name.split("/"):
            at = None if at is None else self.state.child(at.number, part)
        return at

    def write(self, name, data):
        """Make a file entity, or give it new bytes in a new version."""
        self._store(name, data, self._write_object)
        return data

    def put(self, name, data):
        """The same while the mount looks: what exists is overwritten in place in the bucket."""
        found = self.find(name)
        if found is None:
            return self._store(name, data, self._put_object)
        return self.replace_in_place(name, data)

    def replace_in_place(self, name, data):
        """Overwrite the object of a file, of which Synapse learns nothing."""
        return self.stage.call_s3("PUT", self.key_of(name), data)

    def delete(self, name):
        """Delete a file as a person does who cleans up: the entity, and its object."""
        self.stage.call_s3("DELETE", self.key_of(name))
        seeds.trash(self.state, self.find(name))

    def delete_object(self, name):
        self.stage.call_s3("DELETE", self.key_of(name))

    def key_of(self, name):
        return self.state.handles[self.find(name).current.file_handle_id].key

    def adopt(self):
        """Make an entity for each object that has none, at the path that its key is."""
        known = {handle.key for handle in self.state.handles.values()}
        for path in sorted(each for each in self.path.rglob("*") if each.is_file()):
            name = path.relative_to(self.path).as_posix()
            if f"{self.base_key}/{name}" not in known:
                with open(path, "rb") as file:
                    md5 = hashlib.file_digest(file, "md5").hexdigest()
                self._add(name, f"{self.base_key}/{name}", path.stat().st_size, md5)
                handle_id = self.find(name).current.file_handle_id
                self.state.handles[handle_id] = replace(
                    self.state.handles[handle_id], created_on_unix_s=path.stat().st_mtime
                )

    def make_folders(self, path):
        """The folder of a path, made as far as it is missing."""
        at = self.entity
        for part in filter(None, path.split("/")):
            found = self.state.child(at.number, part)
            at = found or self.state.add_folder(part, at, self.user)
        return at

    def fill(self, folders, files, data=b"some bytes\n"):
        """Many files with the same bytes, fast: one object on disk, linked."""
        md5 = hashlib.md5(data).hexdigest()
        first = self.path / "first"
        first.write_bytes(data)
        for number in range(folders):
            folder = self.state.add_folder(f"folder{number:03d}", self.entity, self.user)
            place = self.path / f"objects{number}"
            place.mkdir()
            for index in range(files):
                name = f"file{index:04d}.txt"
                os.link(first, place / name)
                self.state.add_file(
                    name,
                    folder,
                    self.user,
                    key=f"{self.base_key}/objects{number}/{name}",
                    size_bytes=len(data),
                    md5=md5,
                )
        first.unlink()

    def _store(self, name, data, put):
        base = name.rpartition("/")[2]
        key = f"{self.base_key}/{self.user.user_id}/{next(self._numbers)}/{base}"
        put(key, data)
        return self._add(name, key, len(data), hashlib.md5(data).hexdigest())

    def _add(self, name, key, size_bytes, md5):
        folder, _, base = name.rpartition("/")
        parent = self.make_folders(folder)
        facts = {"key": key, "size_bytes": size_bytes, "md5": md5}
        found = self.state.child(parent.number, base)
        if found is None:
            return self.state.add_file(base, parent, self.user, **facts)
        return seeds.add_version(self.state, found, self.user, **facts)

    def _write_object(self, key, data):
        place = self.stage.bucket / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def _put_object(self, key, data):
        self.stage.call_s3("PUT", key, data)


def entity_folder(stage, *, managed=False):
    """A new, empty folder of this kind; managed storage lies in the same bucket here."""
    made = stage.folder()
    folder = EntityFolder(stage, made.syn_id, made.base_key, made.path)
    if managed:
        location = stage.state.location_of(folder.entity)
        stage.state.locations[location.location_id] = replace(location, kind="managed")
    return folder


def new_folder(stage, view):
    """A new, empty folder for tests that run in both views; mounted, it shows just that one."""
    return stage.folder() if view == "keys" else entity_folder(stage, managed=True)
