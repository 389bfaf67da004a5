"""`stsfs recover`: what was written and has not reached S3, and what to do with it."""

import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stsfs.cli import output, recover_view
from stsfs.cli.location_options import location_options
from stsfs.cli.path_type import OwnPath
from stsfs.daemon import locks, mountinfo, staging_dirs
from stsfs.daemon.config import PlaceOptions
from stsfs.daemon.core_dumps import keep_memory_out_of_core_files
from stsfs.errors import BadArgument, StagingFailure, joined
from stsfs.location.parse import parse_target
from stsfs.staging.left import Left, LeftBehind

if TYPE_CHECKING:
    from stsfs.daemon.recovering import Done

_DIRECTORY = OwnPath(is_directory=True)
_ID = re.compile(r"[0-9a-f]{12}")


_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Age(click.ParamType[float]):
    """`30d` on the command line, seconds inside."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        if isinstance(value, int | float):
            return value
        match = re.fullmatch(r"(\d{1,6})([mhdw])", value.strip())
        if match is None:
            self.fail(f"{value!r} is not an age such as 12h, 30d or 8w.", param, ctx)
        return float(match[1]) * _UNITS_S[match[2]]


@click.command()
@click.argument("what", nargs=-1, metavar="[LOCATION|DIR|ID]...")
@click.option("--upload", is_flag=True, help="Put it into S3, unless somebody else changed it.")
@click.option("--force", is_flag=True, help="With --upload: replace whatever is there.")
@click.option("--save", metavar="DIR", type=_DIRECTORY, help="Write the files below DIR.")
@click.option("--discard", is_flag=True, help="Give up the named IDs for ever.")
@click.option(
    "--older-than",
    type=Age(),
    metavar="AGE",
    help="Only what was last changed so long ago: 12h, 30d, 8w; with --discard, in place of IDs.",
)
@click.option("--json", "as_json", is_flag=True, help="The list as one JSON object, for scripts.")
@click.option(
    "--staging-dir",
    type=_DIRECTORY,
    help="Look at this directory alone.  [default: at all that mounts of yours have used]",
)
@click.option(
    "--forget-dir",
    type=_DIRECTORY,
    metavar="DIR",
    help="Look no more at a directory that is gone for good.",
)
@location_options
def recover(
    what: tuple[str, ...],
    upload: bool,
    force: bool,
    save: Path | None,
    discard: bool,
    older_than: float | None,
    as_json: bool,
    staging_dir: Path | None,
    forget_dir: Path | None,
    **who: Any,
) -> None:
    """List what was written to mounts and has not reached S3; with an option, do something with it.

    A LOCATION (syn12345, s3://bucket/prefix), a path in what was mounted, or the IDs of the list
    say which; without any, all. The next mount of a location uploads by itself what is whole.
    Half-written files are uploaded only where their ID is named. Saved files stay in the list until
    they are uploaded or discarded. Every staging directory that mounts of yours have used is looked
    at; one that cannot be is named, and the exit code is not 0 then.
    """
    if sum((upload, save is not None, discard)) > 1 or (as_json and (upload or save or discard)):
        raise BadArgument("--upload, --save, --discard and --json exclude each other.")
    if force and not upload:
        raise BadArgument("--force is for --upload.")
    if discard and older_than is None and not (what and all(map(_ID.fullmatch, what))):
        raise BadArgument(
            "--discard gives bytes up for ever, and so it wants the IDs, or --older-than.",
            remedy="See the list that `stsfs recover` prints.",
        )
    if forget_dir is not None:
        staging_dirs.forget(forget_dir)
    looked = staging_dirs.look() if staging_dir is None else staging_dirs.look_at(staging_dir)
    for trouble in looked.troubles:
        output.warn(f"stsfs: {trouble}")
    found = _chosen(looked.left, what)
    if older_than is not None:
        latest_unix_s = time.time() - older_than
        found = [each for each in found if each.changed_unix_s <= latest_unix_s]
    if as_json:
        output.tell_json(recover_view.answer(found, looked))
    elif upload or discard or save is not None:
        ids = {each for each in what if _ID.fullmatch(each)}
        found = _usable(found, ids, upload=upload, saving=save is not None)
        _act(found, _options(**who), force=force, save=save, discard=discard)
    else:
        _print(found, looked)
    for named in looked.directories:
        staging_dirs.forget_if_unused(named)
    if looked.troubles:
        raise StagingFailure(
            "It is not known whether everything that was written has reached S3.",
            remedy="Mount the disk that belongs there; if it is gone for good:"
            " `stsfs recover --forget-dir DIR`.",
        )


def _print(found: Sequence[Left], looked: staging_dirs.Looked) -> None:
    if found:
        output.tell_parts([recover_view.table(found)])
        for line in recover_view.advice(found):
            output.tell(line)
        return
    for line in recover_view.nothing(looked):
        output.tell(line)


def _chosen(found: Sequence[Left], what: Sequence[str]) -> list[Left]:
    """Those that are meant. Raises BadArgument for an ID that none has."""
    if not what:
        return list(found)
    chosen: list[Left] = []
    for text in what:
        if _ID.fullmatch(text):
            same = [each for each in found if each.id == text]
            if not same:
                raise BadArgument(f"Nothing is left with the ID {text}.", remedy="See the list.")
        elif locks.is_location(text):
            meant = str(parse_target(text))
            same = [each for each in found if meant in _places(each)]
        else:
            path = mountinfo.resolve(Path(text))
            same = [each for each in found if _is_below(each, path)]
        chosen += [each for each in same if each not in chosen]
    return chosen


def _places(left: Left) -> set[str]:
    """The locations that it belongs to, as people type them."""
    record = left.record
    if record is None:
        return set()
    label = record.label
    return {record.location_uri, str(parse_target(label)) if locks.is_location(label) else label}


def _is_below(left: Left, path: Path) -> bool:
    """Whether it was written at or below a path, or in a mount at or below it."""
    info = left.owner.info
    if info is None or not info.mount_path:
        return False
    mounted = Path(info.mount_path)
    if mounted.is_relative_to(path):
        return True
    return left.record is not None and (mounted / left.record.path).is_relative_to(path)


def _usable(found: Sequence[Left], ids: set[str], *, upload: bool, saving: bool) -> list[Left]:
    """Those that something can be done with; says why not of the others.

    What only might be wanted is left out, unless it was named. Raises BadArgument where what was
    named cannot be touched.
    """
    usable = []
    for each in found:
        if each.owner.state == "living" and not (saving and recover_view.is_conflict(each)):
            if each.id in ids:
                raise BadArgument(
                    f"{each.id} is in use by {recover_view.owner(each)}.",
                    remedy="Unmount that first, or wait.",
                )
            continue
        doubt = recover_view.doubt(each)
        if upload and doubt and each.id not in ids:
            output.warn(f"{each.id} is left alone ({doubt}): name it to upload it.")
            continue
        usable.append(each)
    return usable


def _options(**who: Any) -> PlaceOptions:
    """Who asks, and where; each record brings its location along. Raises BadArgument."""
    return PlaceOptions(
        locations=("s3://placeholder",),
        endpoint_url=who["endpoint_url"],
        region=who["region"],
        aws_profile=who["profile"],
        token_file=who["token_file"],
        synapse_profile=who["synapse_profile"],
        synapse_endpoint=who["synapse_endpoint"],
        whole_bucket=who["whole_bucket"],
    )


def _act(
    found: Sequence[Left], options: PlaceOptions, *, force: bool, save: Path | None, discard: bool
) -> None:
    """Do it, and say what came of each; ends with the error of the first that went wrong."""
    if not found:
        output.tell("There is nothing to do.")
        return
    keep_memory_out_of_core_files()
    # Imported late: event loop, SDKs, the whole program.
    import trio

    from stsfs.daemon import recovering, saving
    from stsfs.staging.directory import StagingDirectory

    if save is not None:
        files = [each for each in found if isinstance(each, LeftBehind)]
        _end(trio.run(saving.save, files, save, options, _tell))
        return
    done: list[Done] = []
    by_directory: dict[Path, list[Left]] = {}
    for each in found:
        by_directory.setdefault(staging_dirs.staging_dir_of(each), []).append(each)
    for named, group in by_directory.items():
        staging = StagingDirectory.open(named)
        try:
            if discard:
                done += trio.run(recovering.discard, group, staging, options, _tell)
            else:
                upload = partial(recovering.upload, group, staging, options, _tell, force=force)
                done += trio.run(upload)
        finally:
            staging.close()
    _end(done)


def _tell(done: "Done") -> None:
    name = f"{done.left.id} {recover_view.name(done.left)}"
    if done.error is None:
        output.tell(f"{name}: {done.sentence}")
    else:
        output.warn(f"{name}: {joined(done.error.sentence, done.error.remedy)}")


def _end(done: "Sequence[Done]") -> None:
    failed = [each.error for each in done if each.error is not None]
    if failed:
        raise type(failed[0])(
            f"{len(failed)} of {len(done)} are still left.", remedy="See `stsfs recover`."
        )
