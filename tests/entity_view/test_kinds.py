"""What is hidden, linked, not readable or elsewhere: entities that are not simply files."""

import pytest
import trio

from stsfs.entities.objects import Outside
from stsfs.errors import (
    AccessDenied,
    StaleVersion,
)
from tests.entities_fakes import TTL_S

AFTER_TTL_S = TTL_S + 1


async def test_entities_that_no_path_can_show_are_hidden_and_counted(api, root, clock, mount):
    second = [api.file(root, name) for name in ("twice", "twice")][1]
    for name in ("a/b", "..", "n" * 256, "nul\0", "half\ud800"):
        api.file(root, name)
    api.folder(root, "table", kind="TableEntity")
    api.folder(root, ".synapse")
    shown = await mount()
    assert await shown.names() == ["twice"]
    assert shown.tree.hidden_count == 8
    reasons = {what: reason for _, what, reason in shown.tree.hidden()}
    assert "has this name" in reasons[f"/twice ({second})"]
    assert all(reasons.values())
    top = shown.tree.inodes.root
    assert "a table is not a file" in await shown.view.hidden_reason(top, "table")
    assert "no slash" in await shown.view.hidden_reason(top, "a/b")
    assert await shown.view.hidden_reason(top, "twice") is not None
    assert await shown.view.hidden_reason(top, "nothing") is None
    await trio.sleep(AFTER_TTL_S)
    again = await mount(index=shown.location.index)
    assert await again.names() == ["twice"]


async def test_links_show_what_they_lead_to(api, root, clock, mount):
    folder = api.folder(root, "d")
    file = api.file(folder, "x", b"v1")
    api.upload(file, b"v2")
    api.link(root, "to-file", file)
    api.link(root, "to-version", file, 1)
    api.link(root, "to-folder", folder)
    api.link(folder, "up", root)
    api.link(root, "to-link", api.link(root, "gone", "syn999"))
    secret = api.file(folder, "secret")
    api.link(root, "to-secret", secret)
    api.invisible.add(secret)
    shown = await mount()
    assert await shown.names() == ["d", "to-file", "to-folder", "to-version"]
    assert await shown.read("to-file") == await shown.read("to-folder/x") == b"v2"
    assert await shown.read("to-version") == b"v1"
    assert "up" not in await shown.names("d")
    reasons = [reason for _, what, reason in shown.tree.hidden() if "(" in what]
    assert sum("cannot be seen" in each for each in reasons) == 2
    assert sum("it lies in" in each for each in reasons) == 2  # by both ways to the folder
    assert sum("neither a file" in each for each in reasons) == 1
    api.upload(file, b"v3")
    await trio.sleep(AFTER_TTL_S)
    assert await shown.read("to-file") == b"v3"
    assert await shown.read("to-version") == b"v1"


async def test_a_link_made_anew_is_followed_when_its_file_is_outdated(
    api, store, root, clock, mount
):
    file = api.file(api.folder(root, "d"), "x", b"1")
    link = api.link(root, "l", file)
    shown = await mount()
    assert await shown.read("l") == b"1"
    api.delete(link)
    api.link(root, "l", file)
    await trio.sleep(AFTER_TTL_S)
    assert await shown.find("l") is not None
    store.put(api.key_of(file), b"2")
    with pytest.raises(StaleVersion):
        await shown.open("l")
    assert await shown.read("l") == b"2"
    assert "child_id" not in api.calls


async def test_an_unreadable_file_is_shown_with_its_size_and_opens_once_it_is_allowed(
    api, root, clock, mount
):
    entity_id = api.file(root, "x", b"12345")
    api.denied.add(entity_id)
    shown = await mount()
    assert (await shown.stat("x")).size_bytes == 5
    with pytest.raises(AccessDenied, match="DOWNLOAD"):
        await shown.open("x")
    api.denied.clear()
    api.unmet.add(entity_id)
    await trio.sleep(301)
    with pytest.raises(AccessDenied, match="Conditions"):
        await shown.open("x")
    api.unmet.clear()
    await trio.sleep(301)
    assert await shown.read("x") == b"12345"


async def test_files_outside_the_location_are_fetched_or_refused(api, store, root, clock, mount):
    api.file(root, "far", b"12345", bucket="elsewhere")

    async def probe(name):
        version = store.put(name, b"12345")
        return version.etag, version.size_bytes, 1.0

    refusing = await mount()
    fetching = await mount(outside=Outside(1, probe))
    assert (await refusing.stat("far")).size_bytes == 5
    with pytest.raises(AccessDenied, match="outside"):
        await refusing.open("far")
    assert await fetching.read("far") == b"12345"


async def test_an_address_that_somebody_wrote_for_a_file_is_never_asked(api, root, clock, mount):
    api.file(root, "web", b"page", bucket=None, size_bytes=None)

    async def probe(name):
        raise AssertionError("asked")

    for outside in (None, Outside(1, probe)):
        shown = await mount(outside=outside)
        assert (await shown.stat("web")).size_bytes is None
        with pytest.raises(AccessDenied, match="lie in no bucket"):
            await shown.open("web")


async def test_why_something_is_hidden_is_told_also_where_the_folder_was_not_read_to_its_end(
    api, root, clock, mount
):
    for number in range(60):
        api.file(root, f"f{number:02d}")
    api.folder(root, "table", kind="TableEntity")
    api.link(root, "to-nothing", "syn999")
    shown = await mount()
    top = shown.tree.inodes.root
    assert await shown.find("table") is None
    assert "a table" in await shown.view.hidden_reason(top, "table")
    assert "cannot be seen" in await shown.view.hidden_reason(top, "to-nothing")
    for name in ("f59", "nothing"):
        assert await shown.view.hidden_reason(top, name) is None


async def test_a_file_is_shown_beside_a_table_of_the_same_name(api, root, clock, mount):
    api.folder(root, "x", kind="TableEntity")
    api.file(root, "x", b"1")
    shown = await mount()
    assert await shown.names() == ["x"]
    assert await shown.read("x") == b"1"
    assert "a table" in await shown.view.hidden_reason(shown.tree.inodes.root, "x")
