"""Which storage locations cannot be shown in one mount. Pure."""

from collections.abc import Collection, Sequence

from stsfs.errors import BadArgument
from stsfs.location.location import Location


def check_overlaps(locations: Sequence[tuple[Location, bool]]) -> None:
    """Refuse two locations of which one holds the other: a change would have two places.

    Each comes with whether its keys are shown: several folders of Synapse may share one storage
    location, if all are shown as Synapse shows them. Raises BadArgument.
    """
    for index, (one, one_by_keys) in enumerate(locations):
        for other, other_by_keys in locations[:index]:
            if one.bucket != other.bucket or one.endpoint_url != other.endpoint_url:
                continue
            nested = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
            shared = one.prefix == other.prefix and not one_by_keys and not other_by_keys
            if nested and not shared:
                raise BadArgument(
                    f"{other.label} and {one.label} overlap: {other.uri} and {one.uri}.",
                    remedy="Mount the outer one alone, or each on a directory of its own.",
                )


def check_folders(folders: Sequence[tuple[str, Collection[str]]]) -> None:
    """Refuse folders of Synapse of which one lies in another, or that are named twice.

    Each comes with the ids of all that it lies in. Raises BadArgument.
    """
    ids = [folder_id for folder_id, _ in folders]
    for index, (inner, above) in enumerate(folders):
        if inner in ids[:index]:
            raise BadArgument(f"{inner} is named twice.", remedy="Name each location once.")
        for outer in ids:
            if outer != inner and outer in above:
                raise BadArgument(
                    f"{inner} lies in {outer}, so one mount cannot show both beside each other.",
                    remedy=f"Mount {outer} alone.",
                )
