"""From what the user typed to a location, and to credentials that open it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from stsfs.credentials.aws_chain import AwsChainSource, endpoint_of_chain, region_of_chain
from stsfs.credentials.credentials import Credentials, CredentialSource
from stsfs.credentials.synapse_sts import SynapseStsSource
from stsfs.location.location import Location
from stsfs.location.parse import S3Target, SynapseTarget
from stsfs.location.rules_place import rules_place
from stsfs.rules.asking import check
from stsfs.rules.question import Question, Spot
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.endpoints import Endpoints
from stsfs.synapse.tokens import TokenChain

SYNAPSE_RESERVED_NAMES = frozenset({b"owner.txt"})
"""Proves to Synapse whose bucket it is; listed, but closed to every STS session."""


@dataclass(frozen=True, slots=True)
class ResolveOptions:
    """What the command line adds to the target; None means that it was not given."""

    profile: str | None = None
    """Of AWS; for `s3://` targets."""

    region: str | None = None
    endpoint_url: str | None = None
    token_file: Path | None = None
    synapse_profile: str | None = None
    synapse_endpoint: str | None = None
    whole_bucket: bool = False
    rw: bool = False


class SynapseAccess:
    """One client of Synapse, and the place where its token comes from, for all who need them."""

    def __init__(
        self,
        options: ResolveOptions,
        make_client: Callable[..., SynapseClient] = SynapseClient,
    ) -> None:
        """`make_client` takes what SynapseClient takes. Raises BadArgument."""
        self.tokens = TokenChain(token_file=options.token_file, profile=options.synapse_profile)
        self.endpoints = Endpoints.chosen(options.synapse_endpoint)
        self.client = make_client(self.endpoints, token=self.tokens.token)

    async def aclose(self) -> None:
        """Close the connections, after the last request. Waits for nobody."""
        await self.client.aclose()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A location, who gives credentials for it, and the first set: for the lease."""

    location: Location
    source: CredentialSource
    first: Credentials
    warnings: list[str]


async def resolve(
    target: S3Target | SynapseTarget,
    *,
    options: ResolveOptions,
    synapse: SynapseAccess | None = None,
) -> Resolved:
    """Find out where the target is, and fetch credentials once: it takes one request.

    synapse is needed for a SynapseTarget. Raises WholeBucketRefused, BadArgument, or what the
    source raises.
    """
    if isinstance(target, S3Target):
        return await _resolve_s3(target, options)
    assert synapse is not None
    return await _resolve_synapse(target, options, synapse)


async def _resolve_s3(target: S3Target, options: ResolveOptions) -> Resolved:
    """The ambient chain gives credentials; it may also name a region and another endpoint."""
    region = options.region or await trio.to_thread.run_sync(region_of_chain, options.profile)
    endpoint_url = options.endpoint_url or await trio.to_thread.run_sync(
        endpoint_of_chain, options.profile
    )
    source = AwsChainSource(options.profile)
    first = await source.fetch()
    warnings = []
    if first.session_token is not None and first.expires_at_unix_s is None:
        warnings.append(
            f"The credentials of {source.description} are temporary, but do not say when they end:"
            " they are replaced only after the store has refused them."
        )
    location = Location(
        label=str(target),
        bucket=target.bucket,
        base_key=target.prefix,
        region=region,
        endpoint_url=endpoint_url,
    )
    return Resolved(location, source, first, warnings)


async def _resolve_synapse(
    target: SynapseTarget, options: ResolveOptions, synapse: SynapseAccess
) -> Resolved:
    """One STS call names the location and gives the first credentials for it.

    Region and endpoint of the AWS tools' configuration are not asked: they speak of the user's
    own buckets. The store discovers the region.
    """
    source = SynapseStsSource(
        synapse.client,
        lambda: synapse.tokens.place,
        target.synapse_id,
        "read_write" if options.rw else "read_only",
    )
    first = await source.fetch()
    assert source.bucket_and_base_key is not None
    bucket, base_key = source.bucket_and_base_key
    location = synapse_location(target, bucket, base_key, options)
    warnings = []
    if not base_key:
        warnings.append(f"The credentials of {target} cover the whole bucket {bucket}.")
    return Resolved(location, source, first, warnings)


def synapse_location(
    target: SynapseTarget, bucket: str, base_key: str, options: ResolveOptions
) -> Location:
    """Return the place that Synapse has named; raises WholeBucketRefused."""
    location = Location(
        label=str(target),
        bucket=bucket,
        base_key=base_key,
        region=options.region,
        endpoint_url=options.endpoint_url,
        synapse_id=target.synapse_id,
        reserved_names=SYNAPSE_RESERVED_NAMES,
    )
    place = rules_place(location, writable=options.rw, whole_bucket=options.whole_bucket)
    check(Question(operation="mount", at=Spot(place)))
    return location
