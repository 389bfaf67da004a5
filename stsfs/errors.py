"""Every error stsfs raises on purpose, in the words the user will read.

Nothing here knows about errno, exit codes or HTTP: `fuse.errno_table` says what number a caller
of the kernel sees, `cli.exit_codes` what the shell sees, `store.answers` and `synapse.answers`
which answer of a service becomes which of these.
"""

from collections.abc import Sequence

from stsfs.redaction import redact


class StsfsError(Exception):
    """Base of all errors raised on purpose: a sentence, and what the user can do about it.

    Both are redacted when they are looked at, and not when the error is made: most errors are
    answers to lookups, which nobody reads. `details` are lines that a command prints below both,
    such as the paths that are meant.
    """

    def __init__(self, sentence: str, *, remedy: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self._sentence = sentence
        self._remedy = remedy
        self.details = tuple(details)

    @property
    def sentence(self) -> str:
        """What is wrong, without secrets."""
        return redact(self._sentence)

    @property
    def remedy(self) -> str:
        """What the user can do about it, without secrets; may be empty."""
        return redact(self._remedy)

    def __str__(self) -> str:
        return joined(self.sentence, self.remedy)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sentence!r})"


# What a file system request can end with.


class NotFound(StsfsError):
    """No object, and no key below it, exists at this path."""


class NotADirectory(StsfsError):
    """A path component is a file."""


class NameTooLong(StsfsError):
    """A name over 255 bytes."""


class StaleVersion(StsfsError):
    """The object was replaced or deleted since this version of it was seen."""


class AccessDenied(StsfsError):
    """A policy or a permission says no; credentials are otherwise in order."""


class ArchivedObject(AccessDenied):
    """The object lies in an archive storage class and cannot be read as it is."""


class TokenRejected(StsfsError):
    """Synapse refuses the token: invalid, revoked or expired (it does not say which)."""


class SessionExpired(StsfsError):
    """The temporary credentials are over, and new ones cannot be had."""


class DeadlineExceeded(StsfsError):
    """No answer within the deadline."""


class StoreFailure(StsfsError):
    """The object store failed, and went on failing while we retried."""


class ContentMismatch(StsfsError):
    """What was read of a file has not the MD5 that Synapse has on record."""


class ObjectMissing(StoreFailure):
    """Synapse knows a file, and the bucket has no object for it."""


class PartCopyRefused(StoreFailure):
    """The server does not make a part of an upload from bytes that it has: send them instead."""


# What a change can end with.


class ForbiddenByRule(StsfsError):
    """A rule of the storage location, or of this file system, forbids it; see `rules`."""


class InvalidRequest(StsfsError):
    """A name or a flag that cannot be right here."""


class KeyTooLong(NameTooLong):
    """The key of the object would have more than 1024 bytes."""


class OtherLocation(StsfsError):
    """A rename from one storage location to another: a copy, which is the caller's to make."""


class NotSupported(StsfsError):
    """This file system has no such thing (access control lists, extended attributes to set)."""


class ReadOnlyPlace(StsfsError):
    """Nothing may be changed there, whatever the mount was asked for."""


class AlreadyExists(StsfsError):
    """The name is taken."""


class IsADirectory(StsfsError):
    """The name is that of a directory."""


class NotEmpty(StsfsError):
    """The directory has entries, or keys that no path can show."""


class TooManyObjects(StsfsError):
    """A directory with more objects than one rename may move."""


class WriteConflict(StsfsError):
    """Another client has changed the object since; ours is kept, see `stsfs recover`."""


class TargetChanged(StsfsError):
    """Another client has changed what a rename would replace, since it was seen here."""


class StagingFull(StsfsError):
    """The local disk has no room for what is being written."""


class StagingFailure(StsfsError):
    """The local disk failed with what is being written."""


class UnexpectedError(StsfsError):
    """An error in stsfs itself ended what was being done; the log has its traceback."""


# What Synapse answers (see synapse.answers for the table).


class SynapseRefusal(StsfsError):
    """Synapse understood the request and says no; retrying does not help."""


class EntityNotFound(SynapseRefusal):
    """There is no entity with this id, or none that this user may know of."""


class EntityInTrash(SynapseRefusal):
    """The entity is in the trash can."""


class NotStsLocation(SynapseRefusal):
    """Neither the folder nor a folder above it has an STS-enabled storage location."""


class ManagedStorageReadOnly(SynapseRefusal):
    """Synapse-managed storage gives no write access through STS."""


class PermissionMissing(SynapseRefusal):
    """The user lacks a permission on the entity (DOWNLOAD, UPDATE, CREATE or DELETE)."""


class AccessRequirementUnmet(SynapseRefusal):
    """Conditions for use have to be accepted first, on the entity's page."""


class TwoFactorRequired(SynapseRefusal):
    """An access requirement demands two-factor authentication."""


class CertificationRequired(SynapseRefusal):
    """Only certified Synapse users may do this."""


class AnonymousRefused(SynapseRefusal):
    """The request ran without a token, and anonymous users may only read."""


class TermsOfUseUnsigned(SynapseRefusal):
    """The user has not accepted Synapse's terms of use."""


class ScopeMissing(SynapseRefusal):
    """The token lacks a scope (view, modify or download)."""


class SynapseUnavailable(StsfsError):
    """Synapse cannot be reached, is down for maintenance, or throttles us beyond the deadline."""


class AnswerNotUnderstood(SynapseUnavailable):
    """What came in answer to one request is nothing that Synapse sends."""


class NoSynapseToken(StsfsError):
    """None of the places where a Synapse token may be has one."""


class AwsCredentialsMissing(StsfsError):
    """The AWS chain (environment, profile, instance role …) gives no credentials."""


# What ends a command before, or instead of, a mount.


class BadArgument(StsfsError):
    """The command line, an environment variable or a configuration file cannot be right."""


class ForeignPath(BadArgument):
    """A directory or a file that others own or can exchange, or that is of another kind."""


class MountPointUnusable(StsfsError):
    """The mount point is missing, not empty, not a directory, or already a mount."""


class FuseUnavailable(StsfsError):
    """The kernel or fusermount3 does not let us mount."""


class WholeBucketRefused(StsfsError):
    """The credentials would cover a whole bucket, and --whole-bucket was not given."""


class NoSuchMount(StsfsError):
    """No running stsfs answers for this path."""


class MountBusy(StsfsError):
    """Files of the mount are still open."""


class ChangesLeft(StsfsError):
    """Changes have not reached S3; they are kept, see `stsfs recover`."""


def joined(sentence: str, remedy: str) -> str:
    """A sentence and what can be done about it, in one line."""
    if remedy and sentence[-1:].isalnum():  # words of a server, which need no period
        sentence += "."
    return f"{sentence} {remedy}".rstrip()


def sole(exc: BaseException) -> BaseException:
    """Unwrap groups of one: what a nursery with a single failing child raises."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def without_frames(exc: StsfsError) -> StsfsError:
    """The error itself, of which the frames it came through are no longer kept alive.

    Some errors are remembered, and a frame holds what it worked on: buffers, listings, itself.
    """
    exc.__traceback__ = exc.__context__ = exc.__cause__ = None
    return exc
