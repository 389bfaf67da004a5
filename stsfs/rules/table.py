"""The table of what may happen where: one row for each rule. Pure; `asking` asks it.

The order of the rows is part of the table: the first row that applies is the answer. It is

1. what a mount may be as a whole, asked before there is one;
2. places where nothing can be changed, for whatever reason: EROFS, as the kernel itself says it;
3. folders that have a location of their own, and directories that only lead to such folders;
4. what does not exist here at all: links, special files, access lists, attributes, exchanges;
5. permissions, which belong to the location;
6. names;
7. another location: last, because `mv` copies after EXDEV, and must not begin to copy what another
   rule forbids.

A row applies where its operation is asked, one of the places touched is one that it concerns, and
its condition holds. What only S3 knows (the policy of a bucket, the change of another client) is
no rule: it is tried.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from stsfs import errors
from stsfs.rules import conditions
from stsfs.rules.question import KEY_BYTES_MAX, NAME_BYTES_MAX, Operation, Place, Question

RESTRICTIONS = "Synapse: Additional Restrictions"
"""The list of this name in Synapse's documentation of STS storage locations."""

STS = "Synapse: STS"
"""The rest of that page, and the policy of the sessions that Synapse gives."""

S3 = "S3"
POSIX = "Linux"
OURS = "stsfs"

CHANGES: frozenset[Operation] = frozenset(get_args(Operation)) - {"mount", "mount_rw"}
MOVES: frozenset[Operation] = frozenset({"rename", "exchange"})
MAKES: frozenset[Operation] = frozenset({"create", "mkdir", "rename"})


def _always(_: object) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: where and when it applies, what the caller meets, and what people are told."""

    name: str
    operations: frozenset[Operation]
    says: str
    """The rule in general, for tables."""

    error: type[errors.StsfsError]
    sentence: str
    """What this caller is told; `asking` fills in {at}, {to}, {name} …"""

    remedy: str = ""
    source: str
    """Where the rule comes from: Synapse's documentation, S3, Linux, or this file system."""

    concerns: Callable[[Place], bool] = _always
    """Whether anything in a place can meet it."""

    applies: Callable[[Question], bool] = _always
    """The condition, for a question about one of its operations in a place that it concerns."""

    @property
    def is_last_word(self) -> bool:
        """Whether no change gets past it in a place that it concerns."""
        return self.operations == CHANGES and self.applies is _always

    def covers(self, question: Question) -> bool:
        """Whether it is an answer to the question."""
        return (
            question.operation in self.operations
            and any(map(self.concerns, question.places))
            and self.applies(question)
        )


ROWS: tuple[Rule, ...] = (
    Rule(
        name="whole-bucket",
        operations=frozenset({"mount"}),
        says="A location without a base key gives credentials for its whole bucket; such a mount"
        " needs `--whole-bucket`",
        error=errors.WholeBucketRefused,
        sentence="The storage location of {at} has no base key: its credentials cover all of the"
        " bucket {bucket}, also what belongs to other projects.",
        remedy="Add --whole-bucket if that is what you want.",
        source=STS,
        concerns=conditions.uncovered,
    ),
    Rule(
        name="managed-mount",
        operations=frozenset({"mount_rw"}),
        says="Storage managed by Synapse cannot be written through STS: no mount with `--rw`",
        error=errors.ManagedStorageReadOnly,
        sentence="{at} lies in storage managed by Synapse, which cannot be written through STS.",
        remedy="Mount it without --rw, and upload with the Synapse clients; or use a folder on a"
        " bucket of your own.",
        source=STS,
        concerns=lambda place: place.storage == "managed",
    ),
    Rule(
        name="lock",
        operations=CHANGES,
        says="A lock shows versions that never change",
        error=errors.ReadOnlyPlace,
        sentence="{at} shows the versions that a lock names, and those never change.",
        remedy="Mount the folder itself to change what is in it.",
        source=OURS,
        concerns=lambda place: place.shown == "lock",
    ),
    Rule(
        name="managed",
        operations=CHANGES,
        says="Storage managed by Synapse is read-only",
        error=errors.ReadOnlyPlace,
        sentence="{at} lies in storage managed by Synapse, which cannot be written through STS.",
        remedy="Change it with the Synapse clients.",
        source=STS,
        concerns=lambda place: place.storage == "managed",
    ),
    Rule(
        name="entities",
        operations=CHANGES,
        says="The entities view is read-only",
        error=errors.ReadOnlyPlace,
        sentence="{at} is shown as Synapse has it, and that view is read-only.",
        remedy="Mount it with --view keys --rw, or change it with the Synapse clients.",
        source=OURS,
        concerns=lambda place: place.shown == "entities",
    ),
    Rule(
        name="read-only",
        operations=CHANGES,
        says="A mount is read-only unless it was made with `--rw`",
        error=errors.ReadOnlyPlace,
        sentence="This mount is read-only.",
        remedy="Mount it with --rw; or change it with another client, and `stsfs refresh` shows it"
        " at once.",
        source=OURS,
        concerns=lambda place: not place.writable,
    ),
    Rule(
        name="sts-in-sts",
        operations=MOVES,
        says="A folder with an STS location cannot be moved into another folder with one, even"
        " where the location is the same",
        error=errors.ForbiddenByRule,
        sentence="{at} has a storage location of its own, and cannot be moved into {to}, which has"
        " one as well.",
        remedy="Copy what is in it.",
        source=RESTRICTIONS,
        concerns=lambda place: place.is_sts,
        applies=conditions.sts_into_sts,
    ),
    Rule(
        name="folder-into-sts",
        operations=MOVES,
        says="A folder without an STS location cannot be moved into one that has one",
        error=errors.ForbiddenByRule,
        sentence="A folder outside {to} cannot be moved into it.",
        remedy="Copy what is in it.",
        source=RESTRICTIONS,
        concerns=lambda place: place.is_sts or place.storage == "none",
        applies=conditions.folder_into_sts,
    ),
    Rule(
        name="outside-locations",
        operations=CHANGES,
        says="Bucket and base key of a file match its location: where a mount shows several, the"
        " directories that lead to them hold nothing else, and no location can be moved or removed",
        error=errors.ReadOnlyPlace,
        sentence="The directories that lead to the locations of this mount belong to none of them:"
        " nothing can be made, changed, moved or removed there.",
        remedy="Do it inside one of the locations.",
        source=RESTRICTIONS,
        applies=conditions.no_location,
    ),
    Rule(
        name="only-files",
        operations=frozenset({"symlink", "link", "fifo", "socket", "device"}),
        says="There are only files and folders: no symbolic or hard links, FIFOs, sockets or"
        " devices",
        error=errors.ForbiddenByRule,
        sentence="{at} holds only files and folders: no {thing} can be made there.",
        remedy="Copy the file instead of linking to it; keep what is special outside the mount.",
        source=RESTRICTIONS,
    ),
    Rule(
        name="access-list",
        operations=frozenset({"set_acl"}),
        says="Access lists are those of the location, for all that is in it",
        error=errors.NotSupported,
        sentence="{at} has one access list for all that is in it; files have none of their own.",
        remedy="Who may do what is decided by the location; chmod works, on this machine.",
        source=RESTRICTIONS,
    ),
    Rule(
        name="attributes",
        operations=frozenset({"setxattr"}),
        says="Extended attributes can be read (`--xattrs`), and not set",
        error=errors.NotSupported,
        sentence="Extended attributes cannot be set or removed here.",
        source=OURS,
    ),
    Rule(
        name="exchange",
        operations=frozenset({"exchange"}),
        says="Two names cannot be exchanged in one step (`RENAME_EXCHANGE`)",
        error=errors.InvalidRequest,
        sentence="S3 cannot exchange two names in one step.",
        remedy="Rename one of them to a third name first.",
        source=S3,
    ),
    Rule(
        name="special-bits",
        operations=frozenset({"chmod", "create", "mkdir"}),
        says="setuid, setgid and sticky bits cannot be set: permissions belong to the location"
        " (permission bits and times are kept on this machine)",
        error=errors.ForbiddenByRule,
        sentence="The permissions of {at} are those of the location: mode {mode} has bits (setuid,"
        " setgid, sticky) that cannot be set.",
        remedy="Leave these bits out.",
        source=RESTRICTIONS,
        applies=conditions.special_bits,
    ),
    Rule(
        name="owner",
        operations=frozenset({"chown"}),
        says="Owner and group cannot be changed: permissions belong to the location (a call that"
        " changes nothing succeeds)",
        error=errors.ForbiddenByRule,
        sentence="All that is in {at} has one owner here, {owner}: it cannot be given to another.",
        remedy="Leave the owner out (`cp -a --no-preserve=ownership`, `rsync -a --no-o --no-g`,"
        " `tar x --no-same-owner`), or mount with --uid and --gid.",
        source=RESTRICTIONS,
        applies=conditions.other_owner,
    ),
    Rule(
        name="reserved-name",
        operations=MAKES | {"write", "unlink", "rmdir"},
        says="`owner.txt` in the root of a Synapse location is Synapse's own: hidden, never made",
        error=errors.ForbiddenByRule,
        sentence="owner.txt in the root of {at} proves to Synapse whose bucket it is, and is"
        " closed to everybody else.",
        remedy="Choose another name, or a directory below.",
        source=STS,
        concerns=lambda place: bool(place.reserved_names),
        applies=conditions.reserved,
    ),
    Rule(
        name="name",
        operations=MAKES,
        says="A name is not empty, `.` or `..`, and holds neither a slash nor a zero byte",
        error=errors.InvalidRequest,
        sentence="{name} cannot be the name of a file.",
        source=POSIX,
        applies=conditions.of_name(conditions.impossible),
    ),
    Rule(
        name="utf-8",
        operations=MAKES,
        says="A name is UTF-8, as every key is",
        error=errors.InvalidRequest,
        sentence="The name {name} is not UTF-8, and the keys of S3 are.",
        remedy="Choose another name; `convmv` changes the encoding of many.",
        source=S3,
        applies=conditions.of_name(lambda spot: not conditions.is_utf8(spot.name)),
    ),
    Rule(
        name="long-name",
        operations=MAKES,
        says=f"A name has at most {NAME_BYTES_MAX} bytes",
        error=errors.NameTooLong,
        sentence=f"The name has {{name_bytes}} bytes, and {NAME_BYTES_MAX} is the limit.",
        remedy="Choose a shorter name.",
        source=POSIX,
        applies=conditions.of_name(lambda spot: len(spot.name) > NAME_BYTES_MAX),
    ),
    Rule(
        name="long-key",
        operations=MAKES,
        says=f"A key, from the bucket down, has at most {KEY_BYTES_MAX} bytes",
        error=errors.KeyTooLong,
        sentence=f"The key would have {{key_bytes}} bytes, and {KEY_BYTES_MAX} is the limit of S3.",
        remedy="Choose a shorter name, or a directory further up.",
        source=S3,
        applies=lambda question: conditions.key_bytes(question) > KEY_BYTES_MAX,
    ),
    Rule(
        name="other-location",
        operations=MOVES,
        says="Nothing is moved to another storage location; `mv` copies instead",
        error=errors.OtherLocation,
        sentence="{at} and {to} are different storage locations: nothing can be moved from one to"
        " the other.",
        remedy="Copy it and remove the original, which is what mv does by itself.",
        source=RESTRICTIONS,
        applies=conditions.elsewhere,
    ),
)
"""All rules, in the order in which they answer."""
