"""Credentials in the words of the programs that take them. Pure; every text holds secrets."""

import json
import shlex
from collections.abc import Callable
from datetime import UTC, datetime

from stsfs.credentials.credentials import Credentials
from stsfs.location.location import Location


def expiration(credentials: Credentials) -> str | None:
    """The end of the session as `2026-01-31T23:59:59Z`, never later than it is; None for none."""
    if credentials.expires_at_unix_s is None:
        return None
    return f"{datetime.fromtimestamp(int(credentials.expires_at_unix_s), UTC):%Y-%m-%dT%H:%M:%SZ}"


def as_json(location: Location, credentials: Credentials, section: str) -> str:
    """All there is to know; null for what is not known or does not apply."""
    values = {
        "location": location.label,
        "bucket": location.bucket,
        "prefix": location.prefix,
        "region": location.region,
        "endpoint_url": location.endpoint_url,
        "access_key_id": credentials.access_key_id,
        "secret_access_key": credentials.secret_access_key,
        "session_token": credentials.session_token,
        "expiration": expiration(credentials),
    }
    return json.dumps(values, indent=2)


def as_env(location: Location, credentials: Credentials, section: str) -> str:
    """Lines for `eval` in a POSIX shell; what does not apply is unset, be it left from before."""
    values = {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
        "AWS_CREDENTIAL_EXPIRATION": expiration(credentials),
    }
    if location.region:
        values |= {"AWS_REGION": location.region, "AWS_DEFAULT_REGION": location.region}
    if location.endpoint_url:
        values["AWS_ENDPOINT_URL_S3"] = location.endpoint_url
    return "\n".join(
        f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"
        for name, value in values.items()
    )


def as_ini(location: Location, credentials: Credentials, section: str) -> str:
    """A section of an AWS credentials file.

    `expiry_time` is for htslib, which reads the file again a minute before
    (https://www.htslib.org/doc/htslib-s3-plugin.html); the AWS tools pass over it.
    """
    values = {
        "aws_access_key_id": credentials.access_key_id,
        "aws_secret_access_key": credentials.secret_access_key,
        "aws_session_token": credentials.session_token,
        "expiry_time": expiration(credentials),
        "region": location.region,
    }
    lines = [f"{name} = {value}" for name, value in values.items() if value]
    return "\n".join([f"[{section}]", *lines])


def as_boto(location: Location, credentials: Credentials, section: str) -> str:
    """Arguments for `boto3.client("s3", **arguments)`: JSON, and as well a literal of Python.

    The names of the Synapse client's format of that name, and region and endpoint where known.
    """
    values = {
        "aws_access_key_id": credentials.access_key_id,
        "aws_secret_access_key": credentials.secret_access_key,
        "aws_session_token": credentials.session_token,
        "region_name": location.region,
        "endpoint_url": location.endpoint_url,
    }
    return json.dumps({name: value for name, value in values.items() if value}, indent=2)


def as_process(location: Location, credentials: Credentials, section: str) -> str:
    """The answer of a `credential_process`.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
    """
    values = {
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "SessionToken": credentials.session_token,
        "Expiration": expiration(credentials),
    }
    return json.dumps({"Version": 1} | {name: value for name, value in values.items() if value})


FORMATS: dict[str, Callable[[Location, Credentials, str], str]] = {
    "json": as_json,
    "env": as_env,
    "ini": as_ini,
    "boto": as_boto,
    "process": as_process,
}
