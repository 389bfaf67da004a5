"""What the tests of `stsfs recover` share: directories of their own, and a bucket to upload to."""

from contextlib import asynccontextmanager
from types import SimpleNamespace

from click.testing import CliRunner

from stsfs.cli.main import main
from stsfs.daemon import recovering
from stsfs.location.location import Location
from tests.fakes import MemoryStore


def own_directories(monkeypatch, tmp_path):
    """An account of its own; returns its default staging directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "state" / "stsfs" / "staging"


def run_recover(*arguments):
    """Run the command in this process."""
    return CliRunner().invoke(main, ["recover", *map(str, arguments)])


class Bucket:
    """What is opened in place of the location of a record."""

    def __init__(self):
        self.store = MemoryStore()
        self.opened = []
        self.trouble = None

    @asynccontextmanager
    async def open(self, kept, options):
        self.opened.append((kept.label, options))
        if self.trouble is not None:
            raise self.trouble
        location = Location(kept.label, "bucket", "base", endpoint_url=kept.endpoint_url)
        yield SimpleNamespace(store=self.store, location=location, location_id=1)


def bucket_in_place_of_all(monkeypatch):
    """Whatever is opened is one bucket; returns it."""
    made = Bucket()
    monkeypatch.setattr(recovering, "opened", made.open)
    monkeypatch.setattr("stsfs.daemon.saving.opened", made.open)
    monkeypatch.setattr(recovering, "object_writer", lambda place, **_options: place.store.writer)
    return made
