"""What a local file system would do: the model that a mount is compared with."""

from dataclasses import dataclass, field

from stsfs.errors import AlreadyExists, IsADirectory, NotADirectory, NotEmpty, NotFound


@dataclass(eq=False)
class PlainFile:
    """Content that lives as long as it has a name or is open."""

    data: bytearray = field(default_factory=bytearray)
    writers: int = 0
    states: list = field(default_factory=list)

    def note(self):
        """Remember the content as it is now."""
        self.states.append(bytes(self.data))

    def write(self, offset, data):
        """pwrite(2)."""
        if not data:
            return
        self.truncate(max(len(self.data), offset), note=False)
        self.data[offset : offset + len(data)] = data
        self.note()

    def truncate(self, size_bytes, *, note=True):
        """ftruncate(2)."""
        del self.data[size_bytes:]
        self.data.extend(bytes(size_bytes - len(self.data)))
        if note:
            self.note()


class PlainFiles:
    """Directories are dicts, files are PlainFile. Errors are of the classes that a mount raises."""

    def __init__(self):
        self.root = {}

    def add(self, path, data):
        """A file that was always there, and the directories above it."""
        *above, name = path.split("/")
        node = self.root
        for each in above:
            node = node.setdefault(each, {})
        node[name] = PlainFile(bytearray(data))
        node[name].note()

    def root_or(self, path):
        """What a path leads to; None for nothing."""
        try:
            return self.find(path)
        except (NotFound, NotADirectory):
            return None

    def find(self, path):
        """What a path leads to. Raises NotFound and NotADirectory."""
        node = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(node, dict):
                raise NotADirectory(path)
            if name not in node:
                raise NotFound(path)
            node = node[name]
        return node

    def split(self, path):
        """The directory of a path, and the name in it."""
        above, _, name = path.rpartition("/")
        directory = self.find(above)
        if not isinstance(directory, dict):
            raise NotADirectory(path)
        return directory, name

    def open(self, path, *, create=False, exclusive=False, truncate=False, writes=False):
        """open(2)."""
        directory, name = self.split(path)
        node = directory.get(name)
        if node is None:
            if not create:
                raise NotFound(path)
            node = directory[name] = PlainFile()
            node.note()
        elif create and exclusive:
            raise AlreadyExists(path)
        elif isinstance(node, dict):
            raise IsADirectory(path)
        if truncate:
            node.truncate(0)
        node.writers += writes
        return node

    def mkdir(self, path):
        """mkdir(2)."""
        directory, name = self.split(path)
        if name in directory:
            raise AlreadyExists(path)
        directory[name] = {}

    def rmdir(self, path):
        """rmdir(2)."""
        directory, name = self.split(path)
        if name not in directory:
            raise NotFound(path)
        if not isinstance(directory[name], dict):
            raise NotADirectory(path)
        if directory[name]:
            raise NotEmpty(path)
        del directory[name]

    def unlink(self, path):
        """unlink(2)."""
        directory, name = self.split(path)
        if name not in directory:
            raise NotFound(path)
        if isinstance(directory[name], dict):
            raise IsADirectory(path)
        del directory[name]

    def rename(self, old, new, *, replace=True):
        """rename(2), for paths of which none lies in the other."""
        directory, name = self.split(old)
        if name not in directory:
            raise NotFound(old)
        target_directory, target_name = self.split(new)
        node, target = directory[name], target_directory.get(target_name)
        if old == new:
            return
        if target is not None and not replace:
            raise AlreadyExists(new)
        if isinstance(node, dict) and target is not None:
            if not isinstance(target, dict):
                raise NotADirectory(new)
            if target:
                raise NotEmpty(new)
        elif isinstance(target, dict):
            raise IsADirectory(new)
        elif target is not None:
            node.states += target.states  # which S3 has until the new content is published
        del directory[name]
        target_directory[target_name] = node

    def walk(self, path="", node=None):
        """All paths, with what they lead to."""
        node = self.root if node is None else node
        for name, child in node.items():
            here = f"{path}/{name}".removeprefix("/")
            yield here, child
            if isinstance(child, dict):
                yield from self.walk(here, child)
