"""The one table from stsfs errors to errno and log level."""

import errno
import logging
from typing import NamedTuple

from stsfs import errors


class Reply(NamedTuple):
    """What the caller sees (errno) and how loudly we say it (level)."""

    errno: int
    level: int


REPLIES: dict[type[errors.StsfsError], Reply] = {
    # Ordinary answers: asked all day long by every shell.
    errors.NotFound:           Reply(errno.ENOENT,       logging.DEBUG),
    errors.NotADirectory:      Reply(errno.ENOTDIR,      logging.DEBUG),
    errors.NameTooLong:        Reply(errno.ENAMETOOLONG, logging.DEBUG),
    errors.AlreadyExists:      Reply(errno.EEXIST,       logging.DEBUG),
    errors.IsADirectory:       Reply(errno.EISDIR,       logging.DEBUG),
    errors.OtherLocation:      Reply(errno.EXDEV,        logging.INFO),
    errors.NotSupported:       Reply(errno.ENOTSUP,      logging.DEBUG),
    errors.NotEmpty:           Reply(errno.ENOTEMPTY,    logging.INFO),
    # Refusals: the user can act on these, so the log gives the reason.
    errors.ForbiddenByRule:    Reply(errno.EPERM,        logging.WARNING),
    errors.InvalidRequest:     Reply(errno.EINVAL,       logging.WARNING),
    errors.ReadOnlyPlace:      Reply(errno.EROFS,        logging.WARNING),
    errors.TooManyObjects:     Reply(errno.E2BIG,        logging.WARNING),
    errors.AccessDenied:       Reply(errno.EACCES,       logging.WARNING),
    errors.SynapseRefusal:     Reply(errno.EACCES,       logging.WARNING),
    errors.AwsCredentialsMissing: Reply(errno.EACCES,    logging.WARNING),
    errors.TokenRejected:      Reply(errno.EKEYREJECTED, logging.WARNING),
    errors.NoSynapseToken:     Reply(errno.EKEYREJECTED, logging.WARNING),
    errors.SessionExpired:     Reply(errno.EKEYEXPIRED,  logging.WARNING),
    errors.SynapseUnavailable: Reply(errno.EKEYEXPIRED,  logging.WARNING),
    errors.AnswerNotUnderstood: Reply(errno.EIO,         logging.ERROR),  # no session is over
    # Trouble: the data is not to be had right now.
    errors.StaleVersion:       Reply(errno.ESTALE,       logging.INFO),
    errors.WriteConflict:      Reply(errno.ESTALE,       logging.ERROR),
    # Not ESTALE: the kernel repeats a rename after that by itself, and nobody would have looked.
    errors.TargetChanged:      Reply(errno.EBUSY,        logging.WARNING),
    errors.StagingFull:        Reply(errno.ENOSPC,       logging.ERROR),
    errors.StagingFailure:     Reply(errno.EIO,          logging.ERROR),
    errors.DeadlineExceeded:   Reply(errno.ETIMEDOUT,    logging.ERROR),
    errors.StoreFailure:       Reply(errno.EIO,          logging.ERROR),
    errors.UnexpectedError:      Reply(errno.EIO,          logging.ERROR),
    errors.ContentMismatch:    Reply(errno.EIO,          logging.ERROR),
}  # fmt: skip

SHORTAGES: dict[int, Reply] = {
    errno.EMFILE: Reply(errno.ENFILE, logging.ERROR),  # ours, and not those of the caller
    errno.ENFILE: Reply(errno.ENFILE, logging.ERROR),
    errno.ENOMEM: Reply(errno.ENOMEM, logging.ERROR),
    errno.ENOSPC: Reply(errno.ENOSPC, logging.ERROR),
    errno.EDQUOT: Reply(errno.ENOSPC, logging.ERROR),
}
"""What this machine has not got enough of now, by the errno of an OSError."""

BUG = Reply(errno.EIO, logging.CRITICAL)
"""Reply for anything that is not raised on purpose, which is always a bug."""


def reply_for(exc: BaseException) -> Reply:
    """Return the Reply of the nearest listed class or of a shortage, or BUG."""
    for kind in type(exc).__mro__:
        if kind in REPLIES:
            return REPLIES[kind]
    if isinstance(exc, MemoryError):
        return SHORTAGES[errno.ENOMEM]
    if isinstance(exc, OSError) and exc.errno in SHORTAGES:
        return SHORTAGES[exc.errno]
    return BUG
