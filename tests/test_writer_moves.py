"""Renames in S3: another client in between, failures at each step, a process that dies."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import trio

from stsfs.errors import AccessDenied, StaleVersion, StoreFailure, WriteConflict, sole
from stsfs.staging.directory import StagingDirectory
from stsfs.store.object_store import NO_TIME_UNIX_S, Expected, Traits
from stsfs.writer.moves import Mover
from stsfs.writer.recovery import recover_at_mount
from stsfs.writer.writing import Writers
from tests.fakes import MemoryStore
from tests.faults import Fault, Hold
from tests.writer_stage import LOCATION

NOTHING = Expected(None)
SMALL = {"path": "a", "target_path": "b"}
TREE = {f"base/a/{name}": name.encode() for name in ("", "1", "2", "3/", "3/4", "//odd")}


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed():
    try:
        yield
    except BaseException as exc:
        if not isinstance(sole(exc), Killed):
            raise
    else:
        raise AssertionError("the process lives on")


class Scene:
    """A store and a mover over it."""

    def __init__(self, path):
        path.mkdir(exist_ok=True)
        self.named = path
        self.store = MemoryStore()
        self.begin()

    def begin(self):
        self.staging = StagingDirectory.open(self.named)
        self.mover = Mover(LOCATION, self.store, self.store.writer, self.staging)

    def script(self, method, *faults):
        self.store.script(method, *faults)

    def names(self):
        return {key: found.data for key, found in self.store.objects.items()}

    def journals(self):
        return list(self.staging.path.glob("*.move"))

    async def move_tree(self):
        page = await self.store.list_page("base/a/", delimiter="")
        return await self.mover.move_tree(page.objects, "base/a/", "base/b/", **SMALL)

    async def recovered(self):
        """What the next process does first."""
        self.staging.close()
        self.store.scripts.clear()
        self.begin()
        writers = Writers(LOCATION, self.store, self.store.writer, self.staging)
        return await recover_at_mount(writers, self.mover)


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path / "staging")
    yield scene
    scene.staging.close()


def moved(tree):
    return {key.replace("base/a/", "base/b/"): data for key, data in tree.items()}


def put_tree(scene):
    for key, data in TREE.items():
        scene.store.put(key, data)


async def test_an_object_moves_with_what_is_stored_beside_it(scene):
    kept = Traits({"sample": "s1"}, "text/csv", "STANDARD_IA")
    source = scene.store.put("base/a", b"abc", traits=kept, storage_class="STANDARD_IA")
    scene.store.put("base/b", b"old")
    version = await scene.mover.move_object(source, "base/b", storage_class="STANDARD_IA", **SMALL)
    assert scene.names() == {"base/b": b"abc"}
    assert version == (await _version(scene, "base/b"))
    assert scene.store.objects["base/b"].traits == kept
    assert scene.journals() == []


async def _version(scene, key):
    found = scene.store.objects[key]
    return type(scene.store.put("base/other"))(1, key, found.etag, len(found.data))


async def test_a_move_onto_what_another_client_made_is_refused_where_nothing_may_be_there(scene):
    source = scene.store.put("base/a", b"abc")
    scene.store.put("base/b", b"theirs")
    with pytest.raises(WriteConflict):
        await scene.mover.move_object(source, "base/b", expected=NOTHING, **SMALL)
    assert scene.names() == {"base/a": b"abc", "base/b": b"theirs"}


async def test_a_longer_name_does_not_pass_for_the_target(scene):
    source = scene.store.put("base/a", b"abc")
    scene.store.put("base/b1", b"theirs")
    await scene.mover.move_object(source, "base/b", expected=NOTHING, **SMALL)
    assert scene.names() == {"base/b": b"abc", "base/b1": b"theirs"}


async def test_a_source_that_was_replaced_before_the_copy_moves_nothing(scene):
    source = scene.store.put("base/a", b"abc")
    scene.store.put("base/a", b"theirs")
    with pytest.raises(WriteConflict):
        await scene.mover.move_object(source, "base/b", **SMALL)
    assert scene.names() == {"base/a": b"theirs"}
    assert scene.journals() == []


async def test_a_source_that_was_replaced_after_the_copy_stays(scene):
    source = scene.store.put("base/a", b"abc")
    scene.script("copy", Fault(happened=True, hold=(hold := Hold())))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: scene.mover.move_object(source, "base/b", **SMALL))
        await hold.reached()
        assert "base/b" in scene.store.objects
        scene.store.put("base/a", b"theirs")
        hold.let_go()
    assert scene.names() == {"base/a": b"theirs", "base/b": b"abc"}


async def test_a_role_that_may_not_delete_leaves_both_and_says_so(scene):
    source = scene.store.put("base/a", b"abc")
    scene.script("delete", Fault(AccessDenied("You may not delete.", remedy="Ask.")))
    with pytest.raises(AccessDenied, match="both exist") as caught:
        await scene.mover.move_object(source, "base/b", **SMALL)
    assert caught.value.remedy == "Ask."
    assert scene.names() == {"base/a": b"abc", "base/b": b"abc"}
    assert scene.journals() == []


async def test_a_tree_moves_hidden_keys_and_markers_too(scene):
    put_tree(scene)
    scene.store.put("base/ab", b"beside")
    versions = await scene.move_tree()
    assert scene.names() == moved(TREE) | {"base/ab": b"beside"}
    assert {key: v.etag for key, v in versions.items()} == {
        key: scene.store.objects[key].etag for key in moved(TREE)
    }
    assert scene.journals() == []


@pytest.mark.parametrize("happened", [False, True])
async def test_a_tree_of_which_one_copy_fails_is_as_before(scene, happened):
    put_tree(scene)
    scene.script("copy", None, None, Fault(StoreFailure("503"), happened=happened))
    with pytest.raises(StoreFailure):
        await scene.move_tree()
    assert scene.names() == TREE
    assert scene.journals() == []


async def test_a_tree_of_which_one_object_was_replaced_is_as_before(scene):
    put_tree(scene)
    page = await scene.store.list_page("base/a/", delimiter="")
    scene.store.put("base/a/2", b"theirs")
    with pytest.raises(WriteConflict):
        await scene.mover.move_tree(page.objects, "base/a/", "base/b/", **SMALL)
    assert scene.names() == TREE | {"base/a/2": b"theirs"}


async def test_a_tree_that_may_not_be_removed_exists_twice_and_the_error_says_so(scene):
    put_tree(scene)
    scene.script("delete", *[Fault(AccessDenied("no"))] * 20)
    with pytest.raises(AccessDenied, match="both exist"):
        await scene.move_tree()
    assert scene.names() == TREE | moved(TREE)
    assert scene.journals() == []


@pytest.mark.parametrize("method", ["copy", "delete"])
@pytest.mark.parametrize("happened", [False, True])
@pytest.mark.parametrize("step", range(len(TREE)))
async def test_a_tree_whose_move_is_killed_is_put_right_at_the_next_mount(
    scene, method, happened, step
):
    put_tree(scene)
    delay_s = 0.01 * (step % 2)  # in which the others get through
    scene.script(method, *[None] * step, Fault(Killed(), happened=happened, delay_s=delay_s))
    with killed():
        await scene.move_tree()
    assert len(scene.journals()) == 1
    recovery = await scene.recovered()
    assert scene.names() == (TREE if method == "copy" else moved(TREE))
    assert len(recovery.moves) == 1
    assert scene.journals() == []
    assert (await scene.recovered()).moves == []


async def test_a_directory_that_is_moved_replaces_nothing_and_leaves_no_copies(scene):
    put_tree(scene)
    theirs = next(reversed(moved(TREE)))
    scene.store.put(theirs, b"theirs")
    with pytest.raises(WriteConflict):
        await scene.move_tree()
    assert scene.names() == TREE | {theirs: b"theirs"}
    assert scene.journals() == []


async def test_a_directory_that_another_client_moves_to_the_same_place_is_moved_once(scene):
    put_tree(scene)
    keys = list(TREE)

    def the_same_by_another_client():
        for key in keys:
            scene.store.put(key.replace("base/a/", "base/b/"), TREE[key])
            scene.store.delete(key)

    page = await scene.store.list_page("base/a/", delimiter="")
    the_same_by_another_client()
    with pytest.raises((WriteConflict, StaleVersion)):
        await scene.mover.move_tree(page.objects, "base/a/", "base/b/", **SMALL)
    assert scene.names() == moved(TREE)


async def test_a_copy_whose_source_another_client_has_moved_away_is_not_removed(scene):
    put_tree(scene)
    gone, *others = TREE
    scene.script(
        "copy", *[None] * (len(TREE) - 1), Fault(StoreFailure("503"), hold=(hold := Hold()))
    )
    async with trio.open_nursery() as nursery:

        async def another_client():
            await hold.reached()
            while len(scene.names()) < 2 * len(TREE) - 1:
                await trio.sleep(0)
            scene.store.delete(gone)
            hold.let_go()

        nursery.start_soon(another_client)
        with pytest.raises(StoreFailure):
            await scene.move_tree()
    kept = {key: TREE[key] for key in others}
    assert scene.names() == kept | moved({gone: TREE[gone]})


async def test_only_the_marker_of_the_empty_directory_at_the_target_is_replaced(scene):
    put_tree(scene)
    scene.store.put("base/b/", b"")
    page = await scene.store.list_page("base/", delimiter="")
    there = {each.key: each for each in page.objects}
    below = [each for key, each in there.items() if key.startswith("base/a/")]
    await scene.mover.move_tree(below, "base/a/", "base/b/", replaced=there["base/b/"], **SMALL)
    assert scene.names() == moved(TREE)


@pytest.mark.parametrize("step", range(len(TREE)))
async def test_copies_with_etags_of_their_own_are_removed_when_a_killed_move_is_undone(scene, step):
    put_tree(scene)
    for key, found in scene.store.objects.items():
        scene.store.objects[key] = replace(found, write_id=f"id of {key}")
    scene.store.writer.names_copies_anew = True
    scene.script("copy", *[None] * step, Fault(Killed(), happened=True, delay_s=0.01))
    with killed():
        await scene.move_tree()
    scene.store.put("base/b/theirs", b"1")
    recovery = await scene.recovered()
    assert scene.names() == TREE | {"base/b/theirs": b"1"}
    assert "undone" in recovery.moves[0]


@pytest.mark.parametrize("method", ["copy", "delete"])
@pytest.mark.parametrize("happened", [False, True])
async def test_a_file_whose_move_is_killed_has_one_name_at_the_next_mount(scene, method, happened):
    source = scene.store.put("base/a", b"abc")
    scene.store.put("base/b", b"old")
    scene.script(method, Fault(Killed(), happened=happened))
    with killed():
        await scene.mover.move_object(source, "base/b", **SMALL)
    await scene.recovered()
    if (method, happened) == ("copy", False):
        assert scene.names() == {"base/a": b"abc", "base/b": b"old"}
    else:
        assert scene.names() == {"base/b": b"abc"}


@pytest.mark.parametrize("method", ["copy", "delete"])
async def test_recovery_removes_nothing_that_others_have_put_there_or_left_alone(scene, method):
    put_tree(scene)
    scene.script(method, None, None, None, Fault(Killed(), delay_s=0.01))
    with killed():
        await scene.move_tree()
    for key in list(scene.store.objects):
        if key.endswith("1"):
            scene.store.put(key, b"theirs")
        if key.endswith("2") and key.startswith("base/b" if method == "delete" else "base/a"):
            scene.store.delete(key)
    before = scene.names()
    await scene.recovered()
    after = scene.names()
    for key, data in before.items():
        if data == b"theirs":
            assert after[key] == data
    for name in ("2", "3/4"):  # what existed once still does
        assert {f"base/a/{name}", f"base/b/{name}"} & set(before) == set() or (
            {f"base/a/{name}", f"base/b/{name}"} & set(after)
        )


async def test_recovery_keeps_the_source_of_a_copy_that_was_replaced_since(scene):
    """Who saw both names and wrote to the new one has the old bytes at the old one only."""
    put_tree(scene)
    scene.script("delete", Fault(Killed()))
    with killed():
        await scene.move_tree()
    old = next(key for key in scene.store.objects if key.startswith("base/a/"))
    new = old.replace("base/a/", "base/b/")
    scene.store.put(new, b"theirs")
    (sentence,) = (await scene.recovered()).moves
    assert "1 objects stay at the old place" in sentence
    assert scene.names() == {**moved(TREE), old: TREE[old], new: b"theirs"}


@pytest.mark.parametrize("method", ["copy", "delete"])
async def test_recovery_keeps_a_source_that_was_made_anew_with_the_same_bytes(scene, method):
    """The ETag of equal bytes is equal; the store's clock tells the object from the old one."""
    source = scene.store.put("base/a", b"abc")
    scene.script(method, Fault(Killed(), happened=True))
    with killed():
        await scene.mover.move_object(source, "base/b", **SMALL)
    scene.store.put("base/a", b"abc")
    again = scene.store.objects["base/a"]
    later_s = again.modified_unix_s + 10
    scene.store.objects["base/a"] = replace(again, modified_unix_s=later_s)
    await scene.recovered()
    assert scene.names() == {"base/a": b"abc", "base/b": b"abc"}


@pytest.mark.parametrize("unix_s", [NO_TIME_UNIX_S, -62_135_000_000.0])
async def test_recovery_keeps_a_source_of_which_no_time_says_how_old_it_is(scene, unix_s):
    source = scene.store.put("base/a", b"abc")
    scene.script("copy", Fault(Killed(), happened=True))
    with killed():
        await scene.mover.move_object(source, "base/b", **SMALL)
    for key, found in scene.store.objects.items():
        scene.store.objects[key] = replace(found, modified_unix_s=unix_s)
    (sentence,) = (await scene.recovered()).moves
    assert "1 objects stay at the old place" in sentence
    assert scene.names() == {"base/a": b"abc", "base/b": b"abc"}


async def test_recovery_lists_no_more_than_the_two_places(scene, monkeypatch):
    put_tree(scene)
    scene.script("delete", Fault(Killed()))
    with killed():
        await scene.move_tree()
    listed, list_page = [], scene.store.list_page

    async def told(prefix, *args, **options):
        listed.append(prefix)
        return await list_page(prefix, *args, **options)

    monkeypatch.setattr(scene.store, "list_page", told)
    await scene.recovered()
    assert scene.names() == moved(TREE)
    assert listed == ["base/a/", "base/b/"]


async def test_recovery_knows_copies_whose_etag_is_not_that_of_their_source(scene, monkeypatch):
    """So it is of those that were made in parts, or are encrypted with other keys."""
    put_tree(scene)
    copy = scene.store.writer.copy

    async def encrypted(source, target_key, **options):
        etag = "sealed-" + await copy(source, target_key, **options)
        scene.store.objects[target_key] = replace(scene.store.objects[target_key], etag=etag)
        return etag

    monkeypatch.setattr(scene.store.writer, "copy", encrypted)
    scene.script("delete", Fault(Killed()))
    with killed():
        await scene.move_tree()
    await scene.recovered()
    assert scene.names() == moved(TREE)


async def test_copies_that_cannot_be_removed_again_are_named_in_the_log(scene, caplog):
    put_tree(scene)
    scene.script("copy", Fault(StoreFailure("503"), hold=(hold := Hold())))
    scene.script("delete", *[Fault(AccessDenied("no"))] * 20)
    async with trio.open_nursery() as nursery:

        async def let_go():
            while len(scene.names()) < 2 * len(TREE) - 1:  # the others get through
                await trio.sleep(0)
            hold.let_go()

        nursery.start_soon(let_go)
        with pytest.raises(StoreFailure):
            await scene.move_tree()
    assert TREE.items() < scene.names().items()
    (said,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "'b'" in said.getMessage()


async def test_trouble_during_recovery_leaves_the_move_to_the_next_mount(scene):
    put_tree(scene)
    scene.script("copy", None, None, Fault(Killed(), delay_s=0.01))
    with killed():
        await scene.move_tree()
    scene.staging.close()
    scene.begin()
    scene.store.scripts.clear()
    scene.script("delete", Fault(StoreFailure("503")))
    writers = Writers(LOCATION, scene.store, scene.store.writer, scene.staging)
    (sentence,) = (await recover_at_mount(writers, scene.mover)).moves
    assert "not put right" in sentence
    await scene.recovered()
    assert scene.names() == TREE


@pytest.mark.parametrize("denied", [True, False])
async def test_the_upload_of_a_large_copy_whose_process_died_is_aborted(scene, denied):
    """The fake's process dies without giving it up, as a real one does."""
    source = scene.store.put("base/a", b"large")
    scene.store.writer.copy_bytes_max = 3
    scene.script("copy", Fault(Killed()))
    with killed():
        await scene.mover.move_object(source, "base/b", **SMALL)
    uploads = scene.store.writer.uploads
    assert len(uploads) == 1
    if denied:
        abort = scene.store.writer.abort_upload

        async def refused(key, upload_id):
            raise AccessDenied("The role may not abort uploads.")

        scene.store.writer.abort_upload = refused
    await scene.recovered()
    if denied:
        assert len(uploads) == 1
        await abort("base/b", next(iter(uploads)))
    assert uploads == {}
    assert scene.names() == {"base/a": b"large"}
    assert scene.journals() == []


async def test_a_large_copy_that_succeeds_is_noted_and_leaves_nothing(scene):
    put_tree(scene)
    scene.store.writer.copy_bytes_max = 0
    await scene.move_tree()
    assert scene.names() == moved(TREE)
    assert scene.store.writer.uploads == {}
    assert scene.journals() == []
