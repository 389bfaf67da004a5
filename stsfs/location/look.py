"""What a location is to the rules, before anybody mounts it: no credentials are asked for."""

from stsfs.errors import NotStsLocation
from stsfs.location.location import Location
from stsfs.location.parse import S3Target, Target
from stsfs.location.resolve import SYNAPSE_RESERVED_NAMES, ResolveOptions, SynapseAccess
from stsfs.location.rules_place import rules_place
from stsfs.rules.question import Place


async def look(
    target: Target, *, options: ResolveOptions, synapse: SynapseAccess | None = None
) -> Place:
    """What the target would be in a mount with --rw.

    synapse is needed for a SynapseTarget: it is asked once where files of that folder are kept,
    which it tells everybody. Raises NotStsLocation, and what the client raises.
    """
    if isinstance(target, S3Target):
        return rules_place(Location(str(target), target.bucket, target.prefix), writable=True)
    assert synapse is not None
    told = await synapse.client.upload_destination(target.synapse_id)
    if not told.sts_enabled:
        raise NotStsLocation(
            f"{target} has no STS-enabled storage location, and no folder above it has.",
            remedy="Name a folder that has one.",
        )
    location = Location(
        label=str(target),
        bucket=told.bucket or "",
        base_key=told.base_key,
        synapse_id=target.synapse_id,
        reserved_names=SYNAPSE_RESERVED_NAMES,
    )
    return rules_place(
        location,
        writable=True,
        whole_bucket=options.whole_bucket,
        managed=told.kind == "managed",
    )
