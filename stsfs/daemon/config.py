"""What was asked of a mount, or of a command: typed, complete and within sensible limits."""

import dataclasses
import math
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Literal

from stsfs import values
from stsfs.daemon.prices import PriceTable
from stsfs.errors import BadArgument

Consistency = Literal["open", "ttl"]
ViewOption = Literal["auto", "keys", "entities"]
Outside = Literal["fetch", "refuse"]
Verify = Literal["off", "on-full-read"]
ConditionalWrites = Literal["auto", "on", "off"]
Fsync = Literal["local", "s3"]
LogLevel = Literal["debug", "info", "warning", "error"]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

UMASK_DEFAULT = 0o022
METADATA_TTL_S_DEFAULT = 30.0
DEADLINE_S_DEFAULT = 60.0
CACHE_BYTES_DEFAULT = 100 * GIB
RENAME_LIMIT_DEFAULT = 10_000

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b|)", re.IGNORECASE)
_CANNED_ACL = re.compile(r"[a-z-]{1,64}")
"""What is sent in a header."""

_UNIT_BYTES = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}


def parse_size(text: str) -> int:
    """Bytes of `128MiB`, `128M`, `1.5g` or `4096`; all units are powers of 1024.

    Raises BadArgument.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadArgument(f"{text!r} is not a size.", remedy="Write sizes like 64KiB, 128MiB, 2G.")
    size_bytes = float(match[1]) * _UNIT_BYTES[match[2].lower()]
    if size_bytes > values.SIZE_BYTES_MAX:
        raise BadArgument(f"{text!r} is more than any disk has.", remedy="Write a smaller size.")
    return int(size_bytes)


def parse_moment(text: str) -> float:
    """Seconds since 1970 of `2026-11-24` (its end, in UTC) or `2026-11-24T10:00:00+01:00`.

    Raises BadArgument.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadArgument(
            f"{text!r} is not a date.",
            remedy="Write 2026-11-24 for the end of that day (UTC), or 2026-11-24T10:00:00Z.",
        ) from None
    if len(text.strip()) <= len("2026-11-24"):
        moment = datetime.combine(moment.date(), time.max)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return values.unix_s(moment.timestamp())
    except ValueError:
        raise BadArgument(f"{text!r} is too far away.", remedy="Name a day of this time.") from None


def format_size(size_bytes: float) -> str:
    """`1.5 GiB` for people."""
    if size_bytes < KIB:
        return f"{size_bytes:.0f} B"
    units = ["KiB", "MiB", "GiB", "TiB"]
    exponent = min(int(math.log(size_bytes, KIB)), len(units))
    return f"{size_bytes / KIB**exponent:.1f} {units[exponent - 1]}"


ENTITIES = "the entities view"


@dataclass(frozen=True, slots=True)
class Need:
    """An option that does something only beside something else."""

    option: str
    field: str
    """Of MountConfig; it is asked for where it differs from its default there."""

    of: str
    """An option, or ENTITIES."""

    @property
    def add(self) -> str:
        """What to write on the command line, to have what is needed."""
        return "--view entities" if self.of == ENTITIES else self.of


NEEDS = (
    Need("--staging-dir", "staging_dir", "--rw"),
    Need("--fsync", "fsync", "--rw"),
    Need("--conditional-writes", "conditional_writes", "--rw"),
    Need("--acl", "acl", "--rw"),
    Need("--rename-limit", "rename_limit", "--rw"),
    Need("--cache-size", "cache_bytes", "--cache-dir"),
    Need("--as-of", "as_of", ENTITIES),
    Need("--index-view", "index_view", ENTITIES),
    Need("--outside", "outside", ENTITIES),
    Need("--verify", "verify", ENTITIES),
)
"""An option that would silently do nothing is refused, wherever it was given.

The options that say who asks (`--profile`, `--token-file` ...) are not among them: they are meant
for whatever is asked, and a mount may have locations of several kinds.
"""


def check_needs(
    config: "PlaceOptions", lacking: str, *, why: str = "", remedy: str | None = None
) -> None:
    """Refuse the options that do nothing without what is lacking (see `Need.of`).

    why follows that in the sentence. Raises BadArgument.
    """
    defaults = {each.name: each.default for each in dataclasses.fields(config)}
    for need in NEEDS:
        if need.of != lacking or need.field not in defaults:
            continue
        if getattr(config, need.field) == defaults[need.field]:
            continue
        default = f"Add {need.add}, or leave {need.option} out."
        raise BadArgument(
            f"{need.option} needs {need.of}{why}.",
            remedy=default if remedy is None else f"Leave {need.option} out{remedy}.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOptions:
    """Where data are, who asks, and what is shown of them: of a mount, and of commands without one.

    Construction raises BadArgument for what cannot be right. None means that the program chooses.
    """

    locations: tuple[str, ...]
    """As typed: `syn12345`, `s3://bucket/prefix`; the path of a lock file is absolute."""

    view: ViewOption = "auto"
    index_view: str | None = None
    """An entity view that covers the folder; None: there is none."""

    as_of: str | None = None
    """A day or a moment of the past, whose versions are shown; None: the present."""

    outside: Outside = "fetch"
    rw: bool = False
    """Ask for credentials that may write, and show keys."""

    metadata_ttl_s: float = METADATA_TTL_S_DEFAULT

    endpoint_url: str | None = None
    region: str | None = None
    aws_profile: str | None = None
    token_file: Path | None = None
    synapse_profile: str | None = None
    synapse_endpoint: str | None = None
    whole_bucket: bool = False

    deadline_s: float = DEADLINE_S_DEFAULT
    connections_max: int | None = None

    def __post_init__(self) -> None:
        if not all(text.strip() for text in self.locations) or not self.locations:
            raise BadArgument("The location is empty.", remedy="Name a syn id or s3://bucket.")
        if self.index_view is not None and not re.fullmatch(r"syn[0-9]+", self.index_view):
            raise BadArgument(f"--index-view is {self.index_view!r}; it must be an id (syn12345).")
        assert self.as_of_unix_s is None or self.as_of_unix_s
        _check_range("--metadata-ttl", self.metadata_ttl_s, 0, 86400, "seconds")
        _check_range("--deadline", self.deadline_s, 1, 3600, "seconds")
        _check_range("--connections", self.connections_max, 1, 256)
        for option, url in (
            ("--endpoint-url", self.endpoint_url),
            ("--synapse-endpoint", self.synapse_endpoint),
        ):
            try:
                assert url is None or values.server_url(url)
            except ValueError:
                raise BadArgument(
                    f"{option} is {url!r}; it must begin with https:// or http://, and name a host."
                ) from None

    @property
    def as_of_unix_s(self) -> float | None:
        """The moment of `--as-of`. Raises BadArgument."""
        return None if self.as_of is None else parse_moment(self.as_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountConfig(PlaceOptions):
    """All options of one mount; construction raises BadArgument for what cannot be right.

    None means that the program chooses, by what it measures or by what the machine has.
    """

    mount_path: Path
    """Absolute, without symbolic links."""

    foreground: bool = False

    staging_dir: Path | None = None
    """Where what is being written lies until S3 has it; set where rw is, and only there."""

    conditional_writes: ConditionalWrites = "auto"
    """auto: where a probe has found that the server honours them."""

    acl: str | None = None
    """Canned ACL of new objects; None: `bucket-owner-full-control` on Synapse's locations."""

    fsync: Fsync = "local"
    rename_limit: int = RENAME_LIMIT_DEFAULT
    """Objects that the rename of a directory may move."""

    consistency: Consistency = "open"
    verify: Verify = "off"

    uid: int
    gid: int
    umask: int = UMASK_DEFAULT
    allow_other: bool = False
    xattrs: bool = False
    """Show what `stsfs info` tells as extended attributes."""

    block_bytes: int | None = None
    memory_bytes: int | None = None
    cache_dir: Path | None = None
    """Where blocks are kept on disk; None: nowhere."""

    cache_bytes: int = CACHE_BYTES_DEFAULT
    prices: PriceTable | None = None
    """What S3 costs; None: the table that comes with the program, where the store is Amazon's."""

    read_ahead_kib: int | None = None
    """What to ask of the kernel; 0 leaves its own value."""

    log_file: Path | None = None
    """None: stderr."""
    log_level: LogLevel = "info"
    debug: bool = False

    def __post_init__(self) -> None:
        PlaceOptions.__post_init__(self)
        self._check_paths()
        self._check_writing()
        _check_range("--uid", self.uid, 0, 2**32 - 2)
        _check_range("--gid", self.gid, 0, 2**32 - 2)
        if not 0 <= self.umask <= 0o777:
            raise BadArgument(f"--umask is {self.umask:o}; it must lie between 0 and 777 (octal).")
        _check_range("--read-ahead-kib", self.read_ahead_kib, 0, 64 * KIB, "KiB")
        self._check_sizes()
        self._check_needs()

    def _check_needs(self) -> None:
        """What is certain before anybody is asked; `opening` checks the rest."""
        if not self.rw:
            check_needs(self, "--rw")
        if self.cache_dir is None:
            check_needs(self, "--cache-dir")
        if self.rw:
            check_needs(self, ENTITIES, why=", and --rw shows keys", remedy=", or --rw")
        elif self.view == "keys":
            check_needs(self, ENTITIES, why=", and --view keys was given", remedy=", or --view")

    def _check_writing(self) -> None:
        _check_range("--rename-limit", self.rename_limit, 1, 1_000_000)
        if not self.rw:
            return
        if self.acl is not None and not _CANNED_ACL.fullmatch(self.acl):
            raise BadArgument(
                f"--acl is {self.acl!r}, which is not the name of a canned ACL.",
                remedy="They are called private, bucket-owner-full-control and the like.",
            )
        assert self.staging_dir is not None
        if self.view == "entities" or self.as_of is not None:
            raise BadArgument(
                "Writing is for the keys view of the present.",
                remedy="Leave out --rw, or --view entities and --as-of.",
            )

    def _check_paths(self) -> None:
        local = {
            "--log-file": self.log_file,
            "--cache-dir": self.cache_dir,
            "--staging-dir": self.staging_dir,
        }
        for path in (self.mount_path, self.token_file, *local.values()):
            # The daemon works in `/`: a relative path would mean another file there.
            assert path is None or path.is_absolute()
        for option, path in local.items():
            if path is not None and path.is_relative_to(self.mount_path):
                raise BadArgument(f"{option} must not lie inside the mount.")

    def _check_sizes(self) -> None:
        block, memory = self.block_bytes, self.memory_bytes
        if self.cache_bytes < 64 * MIB:
            raise BadArgument(
                f"--cache-size is {format_size(self.cache_bytes)}; it must be at least 64 MiB."
            )
        if block is not None and (block & (block - 1) or not 4 * KIB <= block <= 16 * MIB):
            raise BadArgument(
                f"--block-size is {format_size(block)}; "
                "it must be a power of two between 4 KiB and 16 MiB."
            )
        if memory is not None and memory < 16 * MIB:
            raise BadArgument(f"--memory is {format_size(memory)}; it must be at least 16 MiB.")
        if memory is not None and block is not None and memory < 8 * block:
            raise BadArgument("--memory must have room for at least eight blocks (--block-size).")

    @property
    def location(self) -> str:
        """All locations as one text, for people and for mount(8)."""
        return ",".join(self.locations)

    @property
    def effective_log_level(self) -> LogLevel:
        """`debug` when --debug was given, whatever --log-level says."""
        return "debug" if self.debug else self.log_level


def own_ids() -> tuple[int, int]:
    """The uid and gid that files belong to unless an option says otherwise."""
    return os.getuid(), os.getgid()


def _check_range(
    option: str, value: float | None, least: float, most: float, unit: str = ""
) -> None:
    # `not <=` also refuses nan.
    if value is not None and not least <= value <= most:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        raise BadArgument(
            f"{option} is {shown}; it must lie between {least} and {most} {unit}".rstrip() + "."
        )
