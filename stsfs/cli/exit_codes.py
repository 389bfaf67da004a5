"""What the shell sees: one code per reason, in one table, never used again for another.

0 is success and 130 an interrupt. Scripts and units (`RestartPreventExitStatus=`) may rely on them.
"""

from stsfs import errors
from stsfs.daemon.error_record import InternalError
from stsfs.daemon.spawn import DaemonDied

USAGE = 2
"""The command line cannot be right; click uses the same code."""

BUG = 70
"""An error nobody thought of (EX_SOFTWARE of sysexits.h)."""

INTERRUPTED = 130
"""Ctrl-C, as shells report it."""


class ExtraMissing(errors.StsfsError):
    """A command needs packages that a plain installation leaves out."""


_CODES: dict[type[errors.StsfsError], int] = {
    errors.StsfsError:             1,
    errors.BadArgument:            USAGE,
    # The machine and the mount point.
    errors.MountPointUnusable:     3,
    errors.FuseUnavailable:        4,
    errors.NoSuchMount:            5,
    errors.MountBusy:              6,
    errors.WholeBucketRefused:     7,
    ExtraMissing:                  8,
    errors.ChangesLeft:            9,
    # Synapse.
    errors.NoSynapseToken:         10,
    errors.TokenRejected:          11,
    errors.SynapseUnavailable:     12,
    errors.SynapseRefusal:         13,
    errors.EntityNotFound:         14,
    errors.EntityInTrash:          15,
    errors.NotStsLocation:         16,
    errors.ManagedStorageReadOnly: 17,
    errors.PermissionMissing:      18,
    errors.AccessRequirementUnmet: 19,
    errors.TwoFactorRequired:      20,
    errors.CertificationRequired:  21,
    errors.AnonymousRefused:       22,
    errors.TermsOfUseUnsigned:     23,
    errors.ScopeMissing:           24,
    errors.AnswerNotUnderstood:    25,
    # AWS credentials and the object store.
    errors.AwsCredentialsMissing:  30,
    errors.SessionExpired:         31,
    errors.AccessDenied:           33,
    errors.ArchivedObject:         34,
    errors.PartCopyRefused:        35,
    errors.StoreFailure:           36,
    errors.DeadlineExceeded:       37,
    errors.ContentMismatch:        38,
    errors.ObjectMissing:          39,
    # Paths.
    errors.NotFound:               40,
    errors.NotADirectory:          41,
    errors.StaleVersion:           42,
    errors.WriteConflict:          43,
    errors.StagingFull:            44,
    errors.NameTooLong:            45,
    errors.StagingFailure:         46,
    errors.UnexpectedError:        47,
    errors.ForeignPath:            48,
    # Changes.
    errors.ForbiddenByRule:        50,
    errors.InvalidRequest:         51,
    errors.KeyTooLong:             52,
    errors.OtherLocation:          53,
    errors.NotSupported:           54,
    errors.ReadOnlyPlace:          55,
    errors.AlreadyExists:          56,
    errors.IsADirectory:           57,
    errors.NotEmpty:               58,
    errors.TooManyObjects:         59,
    errors.TargetChanged:          60,
    # Ourselves.
    InternalError:                 BUG,
    DaemonDied:                    71,
}  # fmt: skip


def exit_code(exc: BaseException) -> int:
    """The code of an error, or of its nearest base class that has one; BUG for all else."""
    exc = errors.sole(exc)
    if isinstance(exc, KeyboardInterrupt):
        return INTERRUPTED
    if not isinstance(exc, errors.StsfsError):
        return BUG
    return next(_CODES[cls] for cls in type(exc).__mro__ if cls in _CODES)
