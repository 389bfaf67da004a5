"""Several locations in one mount: which are found below a project, and which cannot go together."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from stsfs.errors import BadArgument, NotStsLocation, SynapseUnavailable
from stsfs.location.discover import FOLDERS_MAX, sts_folders_below
from stsfs.location.location import Location
from stsfs.location.overlap import check_folders, check_overlaps
from tests.entities_fakes import FakeApi
from tests.fakes import MemoryStore


class Client:
    """As much of a SynapseClient as is asked; some folders have STS enabled."""

    def __init__(self):
        self.entities, self.sts_ids, self.asked = FakeApi(MemoryStore()), set(), []

    async def upload_destination(self, folder_id):
        self.asked.append(folder_id)
        return SimpleNamespace(sts_enabled=folder_id in self.sts_ids)

    def folder(self, parent_id, name, *, sts=False):
        folder_id = self.entities.folder(parent_id, name)
        if sts:
            self.sts_ids.add(folder_id)
        return folder_id

    async def found(self):
        below = await sts_folders_below(self, self.entities.root_id)
        return ["/".join(each.path) for each in below]


async def test_locations_are_found_at_any_depth_and_not_looked_into(autojump_clock):
    client = Client()
    root = client.entities.root_id
    inner = client.folder(client.folder(root, "b"), "c")
    client.folder(inner, "sts", sts=True)
    within = client.folder(client.folder(root, "a", sts=True), "within")
    client.entities.file(root, "file")
    assert await client.found() == ["a", "b/c/sts"]
    assert within not in client.asked


async def test_all_pages_of_a_folder_are_looked_at(autojump_clock):
    client = Client()
    for number in range(120):
        client.folder(client.entities.root_id, f"d{number:03d}", sts=number == 119)
    assert await client.found() == ["d119"]


async def test_folders_that_no_path_can_name_are_left_out_and_said(autojump_clock, caplog):
    client = Client()
    root = client.entities.root_id
    names = ["..", "a/b", "a\0b", "\ud800", "x" * 300]
    for name in names:
        client.folder(root, name, sts=True)
    client.folder(root, "good", sts=True)
    assert await client.found() == ["good"]
    assert [each.getMessage().isprintable() for each in caplog.records] == [True] * len(names)


async def test_pages_of_folders_without_end_are_an_error(autojump_clock):
    client = Client()
    client.folder(client.entities.root_id, "d")
    pages = client.entities.children

    async def endless(folder_id, *, token=None, **kwargs):
        return replace(await pages(folder_id), next_token="again")

    client.entities.children = endless
    with pytest.raises(SynapseUnavailable, match="do not come to an end"):
        await client.found()


async def test_where_there_is_none_or_too_much_to_look_at_that_is_said(autojump_clock):
    client = Client()
    client.folder(client.entities.root_id, "d")
    with pytest.raises(NotStsLocation, match=client.entities.root_id):
        await client.found()
    for number in range(FOLDERS_MAX):
        client.folder(client.entities.root_id, f"d{number}")
    with pytest.raises(BadArgument, match=str(FOLDERS_MAX)):
        await client.found()


def place(base_key, *, bucket="b", keys=True, endpoint_url=None):
    return Location(f"{bucket}:{base_key}", bucket, base_key, endpoint_url=endpoint_url), keys


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        (place("a"), place("b"), True),
        (place("a"), place("ab"), True),
        (place("a"), place("a/b"), False),
        (place("a/b"), place("a"), False),
        (place(""), place("a"), False),
        (place("a"), place("a"), False),
        (place("a"), place("a", bucket="c"), True),
        (place("a"), place("a", endpoint_url="http://x"), True),
        (place("a", keys=False), place("a", keys=False), True),
        (place("a", keys=False), place("a"), False),
        (place("a", keys=False), place("a/b", keys=False), False),
    ],
)
def test_locations_that_hold_each_other_are_refused(one, other, fits):
    if fits:
        check_overlaps([one, other])
        return
    with pytest.raises(BadArgument, match="overlap"):
        check_overlaps([one, other])


def test_folders_that_hold_each_other_are_refused_in_any_order():
    check_folders([("syn2", {"syn1"}), ("syn3", {"syn1"})])
    for folders in ([("syn2", {"syn1"}), ("syn1", ())], [("syn1", ()), ("syn2", {"syn1"})]):
        with pytest.raises(BadArgument, match="syn2 lies in syn1"):
            check_folders(folders)
    with pytest.raises(BadArgument, match="twice"):
        check_folders([("syn2", {"syn2"}), ("syn2", {"syn2"})])
