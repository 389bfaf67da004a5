"""The ambient AWS chain: environment, profile, SSO, process, container, instance.

botocore walks it; only its session is imported, and only when needed: clients and their data
are large, and a mount through Synapse never asks AWS for credentials. A fetch makes a new
session, because a session keeps what it has read of the files for life.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

from stsfs.credentials.credentials import Credentials
from stsfs.errors import AccessDenied, AwsCredentialsMissing

if TYPE_CHECKING:  # slow to import
    from botocore.session import Session

_DENIALS = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_SURPRISES = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What botocore raises because it trusts what a file holds, or a process prints."""

_REMEDY = (
    "Give some in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), in a profile of"
    " ~/.aws/credentials or ~/.aws/config, by `aws sso login`, or by a role of the instance;"
    " `aws sts get-caller-identity` shows what AWS sees."
)


class AwsChainSource:
    """Fetches what the AWS tools would use here, or with `--profile`."""

    def __init__(self, profile: str | None = None) -> None:
        self._profile = profile
        self._method = ""  # which link of the chain answered last, in botocore's words
        # An abandoned thread keeps its token, so a hanging process is not started twice.
        self._one_thread = trio.CapacityLimiter(1)

    @property
    def description(self) -> str:
        """One line for `stsfs status`."""
        profile = f", profile {self._profile}" if self._profile else ""
        return f"AWS chain{profile}{f' ({self._method})' if self._method else ''}"

    async def fetch(self) -> Credentials:
        """Walk the chain anew in a worker thread.

        Raises AwsCredentialsMissing, or AccessDenied where a role may not be assumed. A caller
        that is cancelled leaves at once; the thread ends by botocore's own timeouts.
        """
        credentials, self._method = await trio.to_thread.run_sync(
            _load, self._profile, abandon_on_cancel=True, limiter=self._one_thread
        )
        return credentials


def region_of_chain(profile: str | None = None) -> str | None:
    """Return AWS_REGION, AWS_DEFAULT_REGION or the profile's region. Reads files, no network.

    Raises AwsCredentialsMissing for a profile that does not exist or a file that is broken.
    """
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if region := os.environ.get(variable):
            return region
    _, settings = _configuration(profile)
    region = settings.get("region")
    return region if isinstance(region, str) and region else None


def endpoint_of_chain(profile: str | None = None) -> str | None:
    """Return the S3 endpoint named for the AWS tools; None is AWS itself. No network.

    In their order: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's `services` section,
    the profile's endpoint_url; nothing if these are switched off
    (https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html).
    Raises like `region_of_chain`.
    """
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if url := os.environ.get(variable):
            return url
    config, settings = _configuration(profile)
    if str(settings.get("ignore_configured_endpoint_urls", "")).lower() == "true":
        return None
    services = _section(_section(config, "services"), settings.get("services"))
    url = _section(services, "s3").get("endpoint_url") or settings.get("endpoint_url")
    return url if isinstance(url, str) and url else None


def _section(settings: Mapping[str, Any], name: object) -> Mapping[str, Any]:
    """The settings of an inner section; none where a plain value stands in its place."""
    found = settings.get(name) if isinstance(name, str) else None
    return found if isinstance(found, dict) else {}


def _session(profile: str | None) -> "Session":
    import botocore.session

    return botocore.session.Session(profile=profile)


def _configuration(profile: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the whole configuration, and the settings of the profile in force."""
    from botocore.exceptions import BotoCoreError

    session = _session(profile)
    try:
        return session.full_config, session.get_scoped_config()
    except BotoCoreError as exc:
        raise AwsCredentialsMissing(f"The AWS configuration is not usable: {exc}.") from None
    except _SURPRISES:
        raise AwsCredentialsMissing("The AWS configuration is not usable.") from None


def _load(profile: str | None) -> tuple[Credentials, str]:
    """Return the first set of the chain, and the name of the link that gave it. Blocks.

    The causes of errors are cut off: a parser's message quotes lines, which may be secrets.
    """
    from botocore.credentials import RefreshableCredentials
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = _session(profile).get_credentials()
        if found is None:
            raise AwsCredentialsMissing("The AWS chain gives no credentials.", remedy=_REMEDY)
        # Asks once more for sets that end within a quarter of an hour: botocore's own margin.
        frozen = found.get_frozen_credentials()
    except ClientError as exc:
        code = exc.response.get("Error", {}).get("Code", "an error")
        if code in _DENIALS:
            raise AccessDenied(f"AWS gives no credentials: {exc}.") from None
        raise AwsCredentialsMissing(f"AWS answers {code} to the request for credentials.") from None
    except BotoCoreError as exc:
        raise AwsCredentialsMissing(f"The AWS chain fails: {exc}.", remedy=_REMEDY) from None
    except RecursionError:
        raise AwsCredentialsMissing(
            "A link of the AWS chain answers in an unexpected form.", remedy=_REMEDY
        ) from None
    except RuntimeError:  # botocore's answer to a set that is over even after its refresh
        raise AwsCredentialsMissing(
            "The AWS chain gives credentials that have already expired.",
            remedy="Sign in again, or set new ones; the clock of this machine may also be wrong.",
        ) from None
    except OSError as exc:
        raise AwsCredentialsMissing(f"The AWS chain fails: {exc}.", remedy=_REMEDY) from None
    except _SURPRISES:
        raise AwsCredentialsMissing(
            "A link of the AWS chain answers in an unexpected form.", remedy=_REMEDY
        ) from None
    if not frozen.access_key or not frozen.secret_key:
        raise AwsCredentialsMissing("The AWS chain gives incomplete credentials.", remedy=_REMEDY)
    ends = None
    if isinstance(found, RefreshableCredentials):
        # There is no public attribute; the AWS CLI reads this one as well. `vars` fails loudly
        # if it goes, where a default would make sessions endless.
        ends = vars(found)["_expiry_time"]
    try:
        return Credentials(
            access_key_id=frozen.access_key,
            secret_access_key=frozen.secret_key,
            session_token=frozen.token or None,
            expires_at_unix_s=None if ends is None else ends.timestamp(),
        ), found.method
    except (ValueError, TypeError, OverflowError):
        raise AwsCredentialsMissing(
            "The AWS chain gives credentials that are no words, or end at no time.", remedy=_REMEDY
        ) from None
