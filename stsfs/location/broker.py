"""Credentials for other programs: what `resolve` finds out for a mount, for whoever asks.

Sets from Synapse are kept between calls, under who asked: the Synapse token is looked up each
time, and its digest is part of the name. Nothing is kept of the AWS chain: what it gives can
depend on files, logins and variables that we cannot all see, may have no end, and the AWS tools
have caches of their own.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from stsfs.credentials.credential_cache import CredentialCache, KeptSet, cache_key
from stsfs.credentials.credentials import Credentials
from stsfs.errors import BadArgument
from stsfs.location.location import Location
from stsfs.location.parse import S3Target, SynapseTarget, Target
from stsfs.location.resolve import ResolveOptions, resolve, synapse_location
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.endpoints import Endpoints
from stsfs.synapse.tokens import TokenChain

UNDER_WAY_VARIABLE = "STSFS_ASKED_FOR"
"""Tells a stsfs that we start by way of an AWS profile what we have been asked for."""


@dataclass(frozen=True, slots=True)
class Access:
    """A place, and credentials that open it for reading."""

    location: Location
    credentials: Credentials


def obtain(target: Target, options: ResolveOptions, cache: CredentialCache | None) -> Access:
    """Return credentials from `cache`, or fetched. Blocks; runs an event loop of its own.

    Raises like `resolve`, and BadArgument if we are asked in order to answer ourselves.
    """
    with _not_in_a_circle(target, options):
        if isinstance(target, S3Target):
            return trio.run(_of_aws_chain, target, options)
        kept = _of_synapse(target, options, cache)
    location = synapse_location(target, kept.bucket, kept.base_key, options)
    return Access(location, kept.credentials)


async def _of_aws_chain(target: S3Target, options: ResolveOptions) -> Access:
    resolved = await resolve(target, options=options)
    return Access(resolved.location, resolved.first)


def _of_synapse(
    target: SynapseTarget, options: ResolveOptions, cache: CredentialCache | None
) -> KeptSet:
    endpoints = Endpoints.chosen(options.synapse_endpoint)
    tokens = TokenChain(token_file=options.token_file, profile=options.synapse_profile)
    token = trio.run(tokens.token)

    def fetch() -> KeptSet:
        # With the token of the key: another one in its place by now is another identity.
        return trio.run(_ask_synapse, target, endpoints, token)

    if cache is None:
        return fetch()
    key = cache_key(target.synapse_id, "read_only", endpoints.repo_url, token)
    return cache.obtain(key, fetch)


async def _ask_synapse(target: SynapseTarget, endpoints: Endpoints, token: str) -> KeptSet:
    async def known() -> str:
        return token

    async with SynapseClient(endpoints, token=known) as client:
        grant = await client.sts_credentials(target.synapse_id, "read_only")
    return KeptSet(
        target=str(target),
        bucket=grant.bucket,
        base_key=grant.base_key,
        credentials=Credentials(
            access_key_id=grant.access_key_id,
            secret_access_key=grant.secret_access_key,
            session_token=grant.session_token,
            expires_at_unix_s=grant.expires_at_unix_s,
        ),
        fetched_unix_s=time.time(),
    )


@contextlib.contextmanager
def _not_in_a_circle(target: Target, options: ResolveOptions) -> Iterator[None]:
    """Refuse to be asked by the AWS profile that we are about to ask, which would never end.

    The chain for `s3://`, and an SSM parameter with the Synapse token, are read with an AWS
    profile; its `credential_process` may be this program, even rightly so for another location.
    """
    asked = [str(target), options.profile or os.environ.get("AWS_PROFILE") or "default"]
    mark = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    before = os.environ.get(UNDER_WAY_VARIABLE, "")
    if mark in before.split(":"):
        raise BadArgument(
            f"The AWS profile {asked[1]} asks stsfs for credentials of {target}, and stsfs needs"
            " that profile to answer.",
            remedy="Name another AWS profile with --profile or AWS_PROFILE.",
        )
    os.environ[UNDER_WAY_VARIABLE] = f"{before}:{mark}".lstrip(":")
    try:
        yield
    finally:
        del os.environ[UNDER_WAY_VARIABLE]
        if before:
            os.environ[UNDER_WAY_VARIABLE] = before
