"""`stsfs mount`: check what can be checked at once, then serve."""

import faulthandler
import logging
import os
from pathlib import Path
from typing import Any

import click

from stsfs.cli import mounted, output
from stsfs.cli.location_options import location_options, locations_of
from stsfs.cli.mount_options import contradiction, parse_mount_options
from stsfs.cli.path_type import MountedPath, OwnPath
from stsfs.cli.reporting import remember_debug
from stsfs.cli.write_options import write_options
from stsfs.daemon import mountinfo, runtime_dir
from stsfs.daemon.config import (
    CACHE_BYTES_DEFAULT,
    DEADLINE_S_DEFAULT,
    METADATA_TTL_S_DEFAULT,
    UMASK_DEFAULT,
    MountConfig,
    own_ids,
    parse_size,
)
from stsfs.daemon.core_dumps import keep_memory_out_of_core_files
from stsfs.daemon.logs import log_to_file, log_to_stderr
from stsfs.daemon.mount_point import (
    check_cache_dir,
    check_fuse,
    check_mount_point,
    check_staging_dir,
    claimed,
    clear_dead_mount,
)
from stsfs.daemon.notify import ServiceManager
from stsfs.daemon.prices import read_prices
from stsfs.daemon.runtime_dir import Claim
from stsfs.daemon.spawn import Ready, run_in_background
from stsfs.errors import BadArgument
from stsfs.fuse.mount_point import MountPoint

log = logging.getLogger(__name__)


class Size(click.ParamType[int]):
    """`128MiB` on the command line, bytes inside."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes; a default is already a number."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except BadArgument as exc:
            self.fail(str(exc), param, ctx)


class Octal(click.ParamType[int]):
    """`022` on the command line, 18 inside."""

    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; a default is already one."""
        if isinstance(value, int):
            return value
        try:
            return int(value, 8)
        except ValueError:
            self.fail(f"{value!r} is not an octal number such as 022.", param, ctx)


_DIRECTORY = OwnPath(is_directory=True)
_FILE = click.Path(dir_okay=False, resolve_path=True, path_type=Path)


@click.command()
@click.argument("locations", metavar="LOCATION...", nargs=-1, required=True)
@click.argument("mountpoint", type=MountedPath(path_type=Path))
@click.option("-f", "--foreground", is_flag=True, help="Do not go into the background.")
@write_options
@click.option(
    "--metadata-ttl",
    type=float,
    metavar="S",
    default=METADATA_TTL_S_DEFAULT,
    show_default=True,
    help="How long a listing is trusted, in seconds.",
)
@click.option(
    "--consistency",
    type=click.Choice(["open", "ttl"]),
    default="open",
    show_default=True,
    help="open: each open sees the newest version. ttl: opens trust the listing, too.",
)
@click.option(
    "--view",
    type=click.Choice(["auto", "keys", "entities"]),
    default="auto",
    show_default=True,
    help="What is shown of a Synapse location: its keys, or its folders and files.",
)
@click.option("--index-view", metavar="SYN", help="An entity view that covers the folder.")
@click.option("--as-of", metavar="DATE", help="Show the versions of that day (entities view).")
@click.option(
    "--outside",
    type=click.Choice(["fetch", "refuse"]),
    default="fetch",
    show_default=True,
    help="Files outside the storage location: read by a URL of Synapse, or not at all.",
)
@click.option(
    "--verify",
    type=click.Choice(["off", "on-full-read"]),
    default="off",
    show_default=True,
    help="Compare what is read from the first to the last byte with Synapse's MD5.",
)
@click.option("--uid", type=int, help="Owner of all files.  [default: yours]")
@click.option("--gid", type=int, help="Group of all files.  [default: yours]")
@click.option(
    "--umask",
    type=Octal(),
    default=UMASK_DEFAULT,
    show_default="022",
    help="Permission bits that files do not have, octal.",
)
@click.option("--allow-other", is_flag=True, help="Let other users in, by the permission bits.")
@click.option("--xattrs", is_flag=True, help="Show keys, ETags and sizes as attributes user.s3.*.")
@location_options
@click.option("--block-size", type=Size(), help="Unit of the cache.  [default: chosen]")
@click.option(
    "--memory", type=Size(), help="Budget of the cache.  [default: by the machine's memory]"
)
@click.option(
    "--cache-dir", type=_DIRECTORY, help="Keep blocks on disk, too, below this local directory."
)
@click.option(
    "--cache-size",
    type=Size(),
    default=CACHE_BYTES_DEFAULT,
    show_default="100GiB",
    help="What --cache-dir may hold; a tenth of its file system always stays free.",
)
@click.option(
    "--deadline",
    type=float,
    metavar="S",
    default=DEADLINE_S_DEFAULT,
    show_default=True,
    help="When a request without an answer fails, in seconds.",
)
@click.option(
    "--connections",
    type=int,
    metavar="N",
    help="Connections to the store at most.  [default: chosen]",
)
@click.option(
    "--read-ahead-kib",
    type=int,
    metavar="KIB",
    help="Read-ahead of the kernel; 0 leaves it alone.  [default: chosen]",
)
@click.option(
    "--prices",
    type=_FILE,
    help="Table of prices for `stsfs status`.  [default: Amazon's of us-east-1]",
)
@click.option(
    "--log-file",
    type=OwnPath(is_directory=False),
    help="Where to log.  [default: stderr, in the background a file of its own]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log: this, and what is worse.",
)
@click.option(
    "--debug",
    is_flag=True,
    callback=remember_debug,
    help="Log everything, and show tracebacks of errors.",
)
@click.option(
    "-o",
    "mount_options",
    multiple=True,
    metavar="OPT[=VAL],...",
    help="The same options in the manner of fstab: uid=1000,allow_other,_netdev,ro.",
)
@click.pass_context
def mount(ctx: click.Context, /, mount_options: tuple[str, ...], **options: Any) -> None:
    """Mount LOCATION (syn12345 or s3://bucket/prefix) on the empty directory MOUNTPOINT.

    Several locations, and those below a project, are shown beside each other.

    Every option can also be given as an environment variable, as in STSFS_MOUNT_METADATA_TTL=5.
    """
    config = make_config(options | _from_mount_options(ctx, mount_options))
    manager = ServiceManager.from_environment()
    with claimed(config.mount_path) as claim:
        if clear_dead_mount(config.mount_path):
            output.warn(f"stsfs: cleared a dead mount away from {config.mount_path}")
        with check_mount_point(config.mount_path) as point:
            check_fuse(allow_other=config.allow_other)
            if config.cache_dir is not None:
                check_cache_dir(config.cache_dir)
            if config.rw and config.staging_dir is not None:
                check_staging_dir(config.staging_dir)
            if config.foreground:
                ctx.exit(_serve_in_foreground(config, point, manager, claim))
            assert config.log_file is not None
            run_in_background(
                lambda ready: _serve_in_background(config, point, manager, ready),
                config.log_file,
                kept=[point.descriptor],
            )
    output.tell(mounted.sentence(config, mounted.status_of(config)))


def make_config(options: dict[str, Any]) -> MountConfig:
    """The typed form of the command's options. Raises BadArgument."""
    mount_path = mountinfo.resolve(options["mountpoint"])
    log_file = options["log_file"]
    if log_file is None and not options["foreground"]:
        log_file = runtime_dir.default_log_file(mount_path)
    own_uid, own_gid = own_ids()
    return MountConfig(
        locations=locations_of(options["locations"]),
        mount_path=mount_path,
        foreground=options["foreground"],
        rw=options["rw"],
        staging_dir=options["staging_dir"]
        or (runtime_dir.staging_root() if options["rw"] else None),
        conditional_writes=options["conditional_writes"],
        acl=options["acl"],
        fsync=options["fsync"],
        rename_limit=options["rename_limit"],
        metadata_ttl_s=options["metadata_ttl"],
        consistency=options["consistency"],
        view=options["view"],
        index_view=options["index_view"],
        as_of=options["as_of"],
        outside=options["outside"],
        verify=options["verify"],
        uid=own_uid if options["uid"] is None else options["uid"],
        gid=own_gid if options["gid"] is None else options["gid"],
        umask=options["umask"],
        allow_other=options["allow_other"],
        xattrs=options["xattrs"],
        endpoint_url=options["endpoint_url"],
        region=options["region"],
        aws_profile=options["profile"],
        token_file=options["token_file"],
        synapse_profile=options["synapse_profile"],
        synapse_endpoint=options["synapse_endpoint"],
        whole_bucket=options["whole_bucket"],
        block_bytes=options["block_size"],
        memory_bytes=options["memory"],
        cache_dir=options["cache_dir"],
        cache_bytes=options["cache_size"],
        deadline_s=options["deadline"],
        connections_max=options["connections"],
        read_ahead_kib=options["read_ahead_kib"],
        prices=None if options["prices"] is None else read_prices(options["prices"]),
        log_file=log_file,
        log_level=options["log_level"],
        debug=options["debug"],
    )


def _from_mount_options(ctx: click.Context, texts: tuple[str, ...]) -> dict[str, Any]:
    """Values of `-o`, converted as their long options are; those given as such win."""
    parameters = {
        parameter.name: parameter
        for parameter in ctx.command.params
        if isinstance(parameter, click.Option) and parameter.name not in (None, "mount_options")
    }
    takes_value = {str(name): not option.is_flag for name, option in parameters.items()}
    values = parse_mount_options(texts, takes_value)
    if values.get("rw") == "false" and _is_typed(ctx, "rw"):
        raise contradiction()
    return {
        name: parameters[name].type_cast_value(ctx, value)
        for name, value in values.items()
        if not _is_typed(ctx, name)
    }


def _is_typed(ctx: click.Context, name: str) -> bool:
    """Whether the long option itself was given, and no variable."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _serve_in_foreground(
    config: MountConfig, point: MountPoint, manager: ServiceManager, claim: Claim
) -> int:
    faulthandler.enable()  # a watchdog's SIGABRT shows where we hang
    if config.log_file is None:
        log_to_stderr(config.effective_log_level)
    else:
        log_to_file(config.log_file, config.effective_log_level)

    def announce() -> None:
        claim.release()  # from here on the mount itself says that the place is taken
        manager.tell("READY=1")

    return _serve(config, point, manager, announce)


def _serve_in_background(
    config: MountConfig, point: MountPoint, manager: ServiceManager, ready: Ready
) -> int:
    assert config.log_file is not None
    log_to_file(config.log_file, config.effective_log_level)

    def announce() -> None:
        manager.tell("READY=1", f"MAINPID={os.getpid()}")
        ready()

    return _serve(config, point, manager, announce)


def _serve(config: MountConfig, point: MountPoint, manager: ServiceManager, ready: Ready) -> int:
    if not config.debug:
        keep_memory_out_of_core_files()
    # Imported late, and in the background after the fork: event loop, SDKs, the whole program.
    from stsfs.daemon.serve import serve_mount

    return serve_mount(config, point, manager, ready)
