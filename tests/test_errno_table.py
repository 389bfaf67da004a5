"""Every error that a file system request can end with has an errno of its own."""

import errno

from stsfs import errors
from stsfs.fuse import errno_table

ENDS_COMMANDS_ONLY = {
    errors.BadArgument,
    errors.MountPointUnusable,
    errors.FuseUnavailable,
    errors.WholeBucketRefused,
    errors.NoSuchMount,
    errors.MountBusy,
    errors.ChangesLeft,
    errors.ForeignPath,
}
"""Raised before a mount stands, or by commands that only talk to one."""


def all_errors(base=errors.StsfsError):
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from all_errors(kind)


def test_every_error_of_a_request_has_a_row_or_a_base_that_has_one():
    missing = [
        kind.__name__
        for kind in all_errors()
        if kind not in ENDS_COMMANDS_ONLY
        and not any(base in errno_table.REPLIES for base in kind.__mro__)
    ]
    assert missing == []


def test_token_session_and_policy_are_three_different_errnos():
    numbers = [
        errno_table.reply_for(kind("no")).errno
        for kind in (errors.TokenRejected, errors.SessionExpired, errors.AccessDenied)
    ]
    assert numbers == [errno.EKEYREJECTED, errno.EKEYEXPIRED, errno.EACCES]


def test_an_answer_that_makes_no_sense_is_trouble_and_says_nothing_of_a_session():
    assert errno_table.reply_for(errors.AnswerNotUnderstood("no")).errno == errno.EIO
    assert errno_table.reply_for(errors.SynapseUnavailable("no")).errno == errno.EKEYEXPIRED


def test_what_nobody_raised_on_purpose_is_a_bug():
    assert errno_table.reply_for(KeyError("x")) is errno_table.BUG


def test_a_more_special_error_is_answered_like_its_kind():
    assert errno_table.reply_for(errors.ArchivedObject("glacier")).errno == errno.EACCES
    assert errno_table.reply_for(errors.PermissionMissing("no")).errno == errno.EACCES


def test_a_machine_short_of_something_is_no_bug():
    for number, expected in (
        (errno.EMFILE, errno.ENFILE),
        (errno.ENFILE, errno.ENFILE),
        (errno.ENOMEM, errno.ENOMEM),
        (errno.ENOSPC, errno.ENOSPC),
        (errno.EDQUOT, errno.ENOSPC),
    ):
        assert errno_table.reply_for(OSError(number, "no more")).errno == expected
    assert errno_table.reply_for(MemoryError()).errno == errno.ENOMEM
    assert errno_table.reply_for(OSError(errno.EPERM, "no")) is errno_table.BUG
