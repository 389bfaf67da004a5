"""Which view a folder gets where nobody has said: decided by a few files, and remembered."""

from types import SimpleNamespace

import pytest

from stsfs.entities.choose import FILES_LOOKED_AT, choose_view
from tests.entities_fakes import DirectIndex, FakeApi
from tests.fakes import MemoryStore

PREFIX = "cohort/"


@pytest.fixture
def api():
    return FakeApi(MemoryStore())


@pytest.fixture
def choose(api):
    """Chooses for the root, below which other folders the root itself may lie."""
    index = DirectIndex(None)

    async def make(*above, prefix=PREFIX):
        async def entity_path(entity_id):
            assert entity_id == api.root_id
            return [SimpleNamespace(name=name) for name in ("root", "project", *above)]

        client = SimpleNamespace(entities=api, entity_path=entity_path)
        return await choose_view(client, index, api.root_id, prefix)

    return make


async def test_keys_that_are_paths_are_shown_as_keys_and_that_is_remembered(api, choose):
    folder = api.folder(api.root_id, "d")
    api.file(api.root_id, "a", key="cohort/a")
    api.file(folder, "b", key="cohort/d/b")
    first = await choose()
    assert first.view == "keys"
    calls = api.calls.total()
    assert await choose() == first
    assert api.calls.total() == calls


async def test_one_key_that_is_not_a_path_is_enough_for_entities(api, choose):
    api.file(api.root_id, "a", key="cohort/a")
    odd = api.file(api.root_id, "b", key="cohort/1234/b")
    choice = await choose()
    assert choice.view == "entities"
    assert odd in choice.why
    assert "cohort/1234/b" in choice.why
    assert await choose() == choice


@pytest.mark.parametrize(
    ("above", "view"), [(("study", "site"), "keys"), (("other",), "entities"), ((), "entities")]
)
async def test_a_folder_below_the_location_has_the_names_in_between_in_its_keys(
    api, choose, above, view
):
    api.file(api.root_id, "a", key="cohort/study/site/a")
    assert (await choose(*above)).view == view


async def test_an_empty_folder_is_shown_as_keys_and_looked_at_again(api, choose):
    assert (await choose()).view == "keys"
    api.file(api.root_id, "a", key="cohort/x/y")
    assert (await choose()).view == "entities"


async def test_files_that_tell_no_key_are_passed_over(api, choose):
    api.denied.add(api.file(api.root_id, "a", key="cohort/xx"))
    api.invisible.add(api.file(api.root_id, "b", key="cohort/xx"))
    api.file(api.root_id, "c", bucket=None, key="")
    assert (await choose()).why == "Synapse knows no file there to compare with"
    api.file(api.root_id, "d", key="cohort/d")
    assert "the file compared" in (await choose()).why


async def test_it_asks_for_a_few_files_and_folders_only(api, choose):
    for number in range(20):
        folder = api.folder(api.root_id, f"d{number}")
        api.file(folder, "x", key=f"cohort/d{number}/x")
        api.file(api.root_id, f"f{number}", key=f"cohort/f{number}")
    assert (await choose()).view == "keys"
    assert api.calls["bundle"] == FILES_LOOKED_AT
    assert api.calls.total() <= 10
