"""An editor saves by renaming over the file, is told that it failed, and saves once more."""

import pytest

from stsfs.errors import DeadlineExceeded, StoreFailure, TargetChanged
from tests.fakes import Fault
from tests.writing_vfs.machine import a_moment_later, data

DOWN = DeadlineExceeded("no answer")


async def save(mount, content):
    await mount.put("f~", content)
    await mount.rename("f~", "f")


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("is_long_ago", [True, False])
async def test_a_copy_of_ours_whose_answer_was_lost_is_no_change_by_another_client(
    is_read, is_long_ago, mount, store, autojump_clock
):
    await save(mount, b"first")
    if is_read:
        await mount.get("f")
    store.script("copy", Fault(DOWN, happened=True))
    with pytest.raises(DeadlineExceeded):
        await save(mount, b"second")
    if is_long_ago:
        await a_moment_later()
    await save(mount, b"third")
    assert data(store, "f") == b"third"
    assert "f~" not in store.objects


@pytest.mark.parametrize("happened", [True, False])
async def test_a_copy_of_ours_whose_source_was_not_removed_is_no_change_by_another_client(
    happened, mount, store, autojump_clock
):
    await save(mount, b"first")
    store.script("delete", Fault(StoreFailure("503"), happened=happened))
    with pytest.raises(StoreFailure):
        await save(mount, b"second")
    await save(mount, b"third")
    assert data(store, "f") == b"third"


@pytest.mark.parametrize("is_named_anew", [True, False])
async def test_the_rename_itself_is_repeated(is_named_anew, mount, store, autojump_clock):
    store.writer.names_copies_anew = is_named_anew
    await save(mount, b"first")
    store.script("copy", Fault(DOWN, happened=True))
    with pytest.raises(DeadlineExceeded):
        await save(mount, b"second")
    await mount.rename("f~", "f")
    assert data(store, "f") == b"second"


async def test_what_another_client_has_put_over_our_copy_is_still_noticed(
    mount, store, autojump_clock
):
    await save(mount, b"first")
    store.script("copy", Fault(DOWN, happened=True))
    with pytest.raises(DeadlineExceeded):
        await save(mount, b"second")
    store.put("f", b"theirs")
    await a_moment_later()
    with pytest.raises(TargetChanged):
        await save(mount, b"third")
    assert data(store, "f") == b"theirs"
    await mount.rename("f~", "f")
    assert data(store, "f") == b"third"
