"""Where the Synapse token is, in the order in which the Synapse clients look.

Argument file, configuration file, environment, SSM parameter; then the systemd credential, which
the other clients do not know. Unlike them, nothing is kept: the place is read again each time, so
that a rotated token needs no remount.
"""

import logging
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from stsfs.errors import BadArgument, NoSynapseToken, SynapseUnavailable
from stsfs.redaction import register_secret
from stsfs.synapse import config_file

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "SYNAPSE_AUTH_TOKEN"  # noqa: S105 - a variable's name
PROFILE_VARIABLE = "SYNAPSE_PROFILE"
SSM_VARIABLE = "SYNAPSE_TOKEN_AWS_SSM_PARAMETER_NAME"
SYSTEMD_CREDENTIAL = "synapse-token"

_REMEDY = (
    "Make a personal access token with the scopes view, modify and download at "
    "https://www.synapse.org/PersonalAccessTokens:0 and put it in one of these places: a file "
    "named by --token-file; ~/.synapseConfig, as authtoken in [default] or [profile NAME]; the "
    f"variable {TOKEN_VARIABLE}; the SSM parameter named by {SSM_VARIABLE}; the systemd "
    f"credential {SYSTEMD_CREDENTIAL}."
)


@dataclass(frozen=True, slots=True)
class _Place:
    """One place of the chain; `read` gives what is there now, or None where it is not in use."""

    description: str
    read: Callable[[], str | None]


def ssm_parameter(name: str) -> str:
    """Return the decrypted SSM parameter; blocks.

    Raises NoSynapseToken where AWS refuses or no region or credentials are configured, and
    SynapseUnavailable where SSM cannot be reached, which may pass.
    """
    import boto3  # slow to import, and few need it
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,  # noqa: A004 - botocore's own
        HTTPClientError,
    )

    try:
        answer = boto3.client("ssm").get_parameter(Name=name, WithDecryption=True)
    except ClientError as exc:
        code = exc.response.get("Error", {}).get("Code", "an error")
        raise NoSynapseToken(
            f"AWS answers {code} for the SSM parameter {name}, which {SSM_VARIABLE} names.",
            remedy="On a Service Catalog notebook, open the notebook again: that renews its token.",
        ) from None
    except (ConnectionError, HTTPClientError) as exc:
        raise SynapseUnavailable(
            f"The SSM parameter {name} that holds the Synapse token cannot be fetched: {exc}"
        ) from None
    except BotoCoreError as exc:
        raise NoSynapseToken(
            f"The SSM parameter {name} cannot be read: {exc}",
            remedy="It needs AWS_DEFAULT_REGION, and AWS credentials such as an instance role.",
        ) from None
    return str(answer["Parameter"].get("Value", ""))


class TokenChain:
    """Finds the Synapse token, and finds it again in the same place ever after.

    The first place that has a token is kept for the life of the chain: falling through to
    another one while the first is being rewritten would go on as another user.
    """

    def __init__(
        self,
        *,
        token_file: Path | None = None,
        profile: str | None = None,
        config_path: Path | None = None,
        environ: Mapping[str, str] | None = None,
        ssm_parameter: Callable[[str], str] = ssm_parameter,
    ) -> None:
        """Take the arguments of the command line; None means that it was not given.

        `ssm_parameter` blocks and runs in a worker thread.
        """
        self._environ = os.environ if environ is None else environ
        self._token_file = token_file
        self._profile = profile or self._environ.get(PROFILE_VARIABLE) or None
        self._config_path = config_path or config_file.default_path()
        self._ssm_parameter = ssm_parameter
        self._found: _Place | None = None
        self._warned: set[Path] = set()

    @property
    def place(self) -> str:
        """Where the token came from, for `stsfs status`; never the token."""
        return self._found.description if self._found else "not found yet"

    async def token(self) -> str:
        """Return the token as it is in its place now.

        Raises NoSynapseToken (no place has one, or the place lost it), BadArgument (a profile
        that does not exist, an unreadable file) or SynapseUnavailable (SSM cannot be reached).
        """
        value, found = await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
        self._found = found
        return value

    def _look(self) -> tuple[str, _Place]:
        if self._found is not None:
            value = self._found.read()
            if not value:
                raise NoSynapseToken(
                    f"The Synapse token is gone from {self._found.description}.",
                    remedy="Put it back there; no remount is needed.",
                )
            return _plausible(value, self._found), self._found
        for place in self._places():
            value = place.read()
            if value:
                return _plausible(value, place), place
        raise NoSynapseToken("There is no Synapse token.", remedy=_REMEDY)

    def _places(self) -> tuple[_Place, ...]:
        token_file, profile = self._token_file, self._profile
        if token_file is not None:
            return (_Place(f"file {token_file}", lambda: self._read_named_file(token_file)),)
        if profile is not None:
            place = f"profile {profile} of {self._config_path}"
            return (_Place(place, lambda: self._read_profile(profile)),)
        parameter = self._environ.get(SSM_VARIABLE, "")
        directory = self._environ.get("CREDENTIALS_DIRECTORY", "")
        credential = Path(directory) / SYSTEMD_CREDENTIAL
        return (
            _Place(str(self._config_path), self._read_config),
            _Place(f"variable {TOKEN_VARIABLE}", lambda: self._environ.get(TOKEN_VARIABLE, "")),
            _Place(
                f"SSM parameter {parameter}",
                lambda: self._ssm_parameter(parameter).strip() if parameter else None,
            ),
            _Place(
                f"systemd credential {SYSTEMD_CREDENTIAL}",
                lambda: self._read_file(credential) if directory else None,
            ),
        )

    def _read_named_file(self, path: Path) -> str:
        value = self._read_file(path)
        if not value:
            state = "does not exist" if value is None else "is empty"
            raise NoSynapseToken(f"The token file {path} {state}.", remedy=_REMEDY)
        return value

    def _read_file(self, path: Path) -> str | None:
        try:
            self._warn_if_shared(path)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise config_file.unreadable(path, exc) from None
        found = config_file.read_text(path)
        return None if found is None else found.strip()

    def _read_config(self) -> str | None:
        sections = config_file.read_sections(self._config_path)
        if sections is None:
            return None
        for name in ("default", "authentication"):
            value = sections.get(name, {}).get("authtoken", "").strip()
            if value:
                self._warn_if_shared(self._config_path)
                return value
        return None

    def _read_profile(self, profile: str) -> str:
        sections = config_file.read_sections(self._config_path) or {}
        name = profile if profile == "default" else f"profile {profile}"
        if name not in sections:
            raise BadArgument(
                f"{self._config_path} has no section [{name}].",
                remedy=f"Name one that exists with --synapse-profile or {PROFILE_VARIABLE}.",
            )
        value = sections[name].get("authtoken", "").strip()
        if not value:
            raise NoSynapseToken(
                f"The section [{name}] of {self._config_path} has no authtoken.", remedy=_REMEDY
            )
        self._warn_if_shared(self._config_path)
        return value

    def _warn_if_shared(self, path: Path) -> None:
        mode = path.stat().st_mode
        if mode & (stat.S_IRGRP | stat.S_IROTH) and path not in self._warned:
            self._warned.add(path)
            log.warning("other users of this machine can read %s; chmod 600 it", path)


def _plausible(value: str, place: _Place) -> str:
    """Refuse what cannot be a token, such as the text that SSM holds before the first login."""
    value = value.strip()
    register_secret(value)
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise NoSynapseToken(
            f"What is in {place.description} is not a Synapse token.",
            remedy="A token is one word; on a Service Catalog notebook, open the notebook first.",
        )
    return value
