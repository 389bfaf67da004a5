"""A location that is written to: a store in memory, a staging directory, the tasks running."""

from contextlib import ExitStack, asynccontextmanager, contextmanager
from unittest import mock

import trio
import trio.testing

from stsfs.staging.directory import StagingDirectory
from stsfs.writer import content, part_sizes, plan, publication, sender
from stsfs.writer.dirty_state import DirtyState
from stsfs.writer.wire import LocationName
from stsfs.writer.writing import Writers
from tests.fakes import MemoryStore

LOCATION = LocationName(1, "s3://bucket", None, "syn123")
MIB = 1 << 20


class Watching:
    """Watcher that remembers what it was told."""

    def __init__(self):
        self.told = []

    def published(self, version):
        self.told.append(("published", version.etag))

    def failed(self, error):
        self.told.append(("failed", type(error).__name__))

    def gone(self):
        self.told.append(("gone",))


class Stage:
    """A store, a staging directory and the writers between them."""

    def __init__(self, path, store=None):
        self.store = store or MemoryStore()
        self.path = path
        path.mkdir(exist_ok=True)
        self.staging = StagingDirectory.open(path)
        self.writers = Writers(LOCATION, self.store, self.store.writer, self.staging)

    @property
    def writer(self):
        return self.store.writer

    @property
    def calls(self):
        return self.store.calls

    def new(self, key="base/a", **options):
        """A new file that is open for writing once."""
        return self._opened(self.writers.stage_new(key, key, **options))

    def over(self, version, **options):
        """A file over an object, open for writing once."""
        return self._opened(self.writers.stage_over(version, version.key, modified_ns=1, **options))

    def data(self, key="base/a"):
        """What S3 has; None: nothing."""
        found = self.store.objects.get(key)
        return None if found is None else found.data

    def left_on_disk(self):
        """Names of the files in our own staging directory, beside the lock."""
        return sorted(
            path.suffix
            for path in self.staging.path.iterdir()
            if path.suffix != ".json" or path.name != "owner.json"
        )

    def _opened(self, file):
        file.open_handles = file.writable_handles = 1
        file.watcher = Watching()
        return file


@asynccontextmanager
async def on_stage(path, store=None):
    """Run a Stage; everything ends with the block, and its directory is given up."""
    stage = Stage(path, store)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(stage.writers.run)
            yield stage
            nursery.cancel_scope.cancel()
    finally:
        stage.staging.close()


async def closed(file):
    """The last writable handle is closed, as the kernel does it: flush, then release."""
    await file.publish()
    return await released(file)


def check_state(file):
    """State and content do not contradict each other."""
    match file.state:
        case DirtyState.CLEAN:
            assert not file.dirty
        case DirtyState.WRITING | DirtyState.FAILED:
            assert file.dirty
    assert (file.state is DirtyState.PUBLISHING) <= (file._attempt is not None)
    assert file.state is not DirtyState.ENDED or file._attempt is None


async def released(file):
    """The last handle has gone."""
    file.open_handles = file.writable_handles = 0
    return await file.close()


@contextmanager
def small_parts(store, *, part_bytes=16, step_parts=8):
    """Files of a few dozen bytes go in parts, which the server takes from 10 bytes on.

    The first parts have part_bytes, the next step_parts parts twice as much, and so on.
    """
    store.writer.part_bytes_min = 10
    sizes = [
        (part_sizes, "FIRST_PART_BYTES", part_bytes),
        (part_sizes, "STEP_PARTS", step_parts),
        (plan, "FIRST_PART_BYTES", part_bytes),
        (plan, "PART_BYTES_MIN", 10),
        (plan, "COPY_BYTES_MAX", 40),
        (sender, "PUT_BYTES_MAX", 2 * part_bytes),
        (publication, "PUT_BYTES_MAX", 2 * part_bytes),
        (content, "FETCH_BYTES", 7),
    ]
    with ExitStack() as stack:
        for module, name, value in sizes:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


async def let_go_when_blocked(hold):
    """Let a request go when whoever is to wait for it does so."""
    await trio.testing.wait_all_tasks_blocked()
    hold.let_go()
