"""A storage location as the rules see it. Pure."""

from typing import Any

from stsfs.location.location import Location
from stsfs.rules.asking import concerning
from stsfs.rules.question import Place, Shown, Storage


def rules_place(
    location: Location,
    *,
    shown: Shown = "keys",
    writable: bool = False,
    whole_bucket: bool = False,
    managed: bool | None = None,
) -> Place:
    """What the rules want to know of a location; managed is None where nobody has been asked.

    A location of Synapse that is writable is somebody's own bucket: Synapse gives no credentials
    that could write to another.
    """
    storage: Storage = "s3"
    if location.synapse_id is not None:
        if managed is None and not writable:
            storage = "synapse"
        else:
            storage = "managed" if managed else "external"
    return Place(
        label=location.label,
        storage=storage,
        bucket=location.bucket,
        prefix=location.prefix,
        shown=shown,
        writable=writable,
        whole_bucket=whole_bucket,
        reserved_names=location.reserved_names,
    )


def way_place(label: str, *, writable: bool = False) -> Place:
    """The directories of a mount that lead to its locations; label is what the mount is called."""
    return Place(label=label, storage="none", writable=writable)


def place_record(place: Place) -> dict[str, Any]:
    """A place in JSON values, with the names of the rules that can be met there."""
    return {
        "label": place.label,
        "storage": place.storage,
        "bucket": place.bucket,
        "prefix": place.prefix,
        "shown": place.shown,
        "writable": place.writable,
        "reserved_names": sorted(name.decode() for name in place.reserved_names),
        "rules": [rule.name for rule in concerning(place)],
    }
