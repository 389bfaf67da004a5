"""Error answers of Synapse, read into the errors that a user can act on. Pure.

The texts matched here are the server's own (`ErrorResponse.reason`); Synapse gives almost no
error codes, so the wording is all there is to tell one refusal from another.
"""

import re
from collections.abc import Callable, Mapping

from stsfs import errors
from stsfs.rules.asking import ask
from stsfs.rules.question import Place, Question, Spot
from stsfs.values import one_line

WEB_URL = "https://www.synapse.org"

_ALL_SCOPES = "view, modify and download"
_NEW_TOKEN = (
    f"Make a personal access token with the scopes {_ALL_SCOPES} at "
    f"{WEB_URL}/PersonalAccessTokens:0 and put it where the old one was; no remount is needed. "
    "On a Service Catalog notebook, open the notebook again: that renews its token."
)

_Build = Callable[[str, str], errors.StsfsError]


def error_from(
    status: int, headers: Mapping[str, str], body: object, *, entity_id: str = ""
) -> errors.StsfsError:
    """Return the error that an answer with this status (not 2xx) stands for; never raises.

    `body` is the decoded JSON, the text where it was not JSON, or None. `entity_id` is what the
    request was about, or empty. SynapseUnavailable is the only class worth a retry.
    """
    reason = reason_of(body)
    about = entity_id or "the request"
    if status == 401:
        return _token_rejected(body, reason)
    if status == 429 or status >= 500:
        return _unavailable(status, reason)
    if 300 <= status < 400:
        return errors.SynapseRefusal(
            f"Synapse redirects {about} to {reason_of(headers.get('location', 'nowhere'))!r}.",
            remedy="Give the address that it names as --synapse-endpoint.",
        )
    for known_status, pattern, build in _KNOWN:
        match = re.search(pattern, reason) if known_status == status else None
        if match:
            return build(about, (match.groups() or (reason,))[0])
    if status == 403:
        return errors.PermissionMissing(
            f"Synapse forbids access to {about}: {reason}", remedy=_ask_owner(about)
        )
    if status == 404:
        return errors.EntityNotFound(
            f"Synapse does not know {about}: {reason}", remedy=_check_id(about)
        )
    return errors.SynapseRefusal(f"Synapse refuses {about} (status {status}): {reason}")


def reason_of(body: object) -> str:
    """Return why Synapse said no, on one line and of bounded length; never empty."""
    text = body.get("reason") if isinstance(body, Mapping) else body
    return (one_line(text) if isinstance(text, str) else "") or "no reason given."


def unreachable(cause: str) -> errors.SynapseUnavailable:
    """Return the error for a request that got no answer at all."""
    return errors.SynapseUnavailable(
        f"Synapse cannot be reached: {cause}.",
        remedy="Check the network, the proxy settings and --synapse-endpoint.",
    )


def not_understood(what: str) -> errors.AnswerNotUnderstood:
    """Return the error for a success whose body is not what Synapse sends."""
    return errors.AnswerNotUnderstood(
        f"The answer to {what} does not come from Synapse, or has changed its form.",
        remedy="Check --synapse-endpoint, and whether a proxy answers in Synapse's place.",
    )


def _token_rejected(body: object, reason: str) -> errors.TokenRejected:
    code = body.get("error") if isinstance(body, Mapping) else None
    if code == "invalid_token" and "expired" in reason:
        sentence = "The Synapse access token has expired."
    elif code == "invalid_token" and "revoked" in reason:
        sentence = "The Synapse access token has been revoked."
    else:
        sentence = f"Synapse rejects the token: it is invalid, revoked or expired ({reason})."
    return errors.TokenRejected(sentence, remedy=_NEW_TOKEN)


def _unavailable(status: int, reason: str) -> errors.SynapseUnavailable:
    if status == 429:
        return errors.SynapseUnavailable(
            f"Synapse throttles this user: {reason}",
            remedy="Other programs with the same user's token count too; wait a minute.",
        )
    if status == 502:
        return errors.SynapseUnavailable(
            f"Synapse did not get an answer from AWS: {reason}",
            remedy="If it lasts, the role or bucket behind the storage location may be gone.",
        )
    if status == 503:
        return errors.SynapseUnavailable(
            f"Synapse is unavailable: {reason}",
            remedy=f"It may be down for maintenance; {WEB_URL} says more. It will be tried again.",
        )
    return errors.SynapseUnavailable(
        f"Synapse failed (status {status}): {reason}", remedy="It will be tried again."
    )


def _page(entity_id: str) -> str:
    return f"{WEB_URL}/Synapse:{entity_id}"


def _check_id(entity_id: str) -> str:
    return f"Check the id at {_page(entity_id)}; you may also be signed in as another user."


def _ask_owner(entity_id: str) -> str:
    return (
        f"Ask an administrator of the project (named under Sharing Settings at {_page(entity_id)})."
    )


def _not_found(entity_id: str, _: str) -> errors.StsfsError:
    return errors.EntityNotFound(
        f"There is no Synapse entity {entity_id}.", remedy=_check_id(entity_id)
    )


def _in_trash(entity_id: str, _: str) -> errors.StsfsError:
    return errors.EntityInTrash(
        f"{entity_id} is in Synapse's trash can.",
        remedy=f"Whoever deleted it can restore it at {WEB_URL}/Trash:0, within 30 days.",
    )


def _no_such_call(entity_id: str, request: str) -> errors.StsfsError:
    return errors.SynapseRefusal(
        f"The server does not know the call {request} for {entity_id}.",
        remedy="Check --synapse-endpoint: it is not a Synapse server, or one of another version.",
    )


def _not_sts(entity_id: str, _: str) -> errors.StsfsError:
    return errors.NotStsLocation(
        f"{entity_id} has no STS-enabled storage location, and no folder above it has.",
        remedy=(
            "Name a folder that has one. STS can be enabled only on an empty folder, for example "
            "with synapseclient: create_s3_storage_location(parent=..., folder_name=..., "
            "sts_enabled=True)."
        ),
    )


def _managed_read_only(entity_id: str, _: str) -> errors.StsfsError:
    refused = ask(
        Question(operation="mount_rw", at=Spot(Place(label=entity_id, storage="managed")))
    )
    assert refused is not None
    return refused


def _unmet_requirements(entity_id: str, _: str) -> errors.StsfsError:
    return errors.AccessRequirementUnmet(
        f"Conditions for the use of {entity_id} have not been accepted or approved for you.",
        remedy=f"See them, and request access, at {_page(entity_id)}.",
    )


def _two_factor(entity_id: str, _: str) -> errors.StsfsError:
    return errors.TwoFactorRequired(
        f"The data of {entity_id} demand two-factor authentication, which your account lacks.",
        remedy=f"Enable it in your account settings at {WEB_URL}/Profile:v/settings.",
    )


def _lacks(entity_id: str, permission: str) -> errors.StsfsError:
    return errors.PermissionMissing(
        f"You lack the {permission} permission on {entity_id}.", remedy=_ask_owner(entity_id)
    )


def _anonymous(entity_id: str, _: str) -> errors.StsfsError:
    return errors.AnonymousRefused(
        f"Anonymous users cannot get the data of {entity_id}: the request carried no token.",
        remedy=f"Give a personal access token with the scopes {_ALL_SCOPES}.",
    )


def _not_certified(entity_id: str, _: str) -> errors.StsfsError:
    return errors.CertificationRequired(
        f"Only certified Synapse users may change {entity_id}.",
        remedy=f"Pass the quiz at {WEB_URL}/Quiz:Certification, or mount without --rw.",
    )


def _terms_unsigned(entity_id: str, _: str) -> errors.StsfsError:
    return errors.TermsOfUseUnsigned(
        f"You have not accepted Synapse's terms of use, so {entity_id} stays closed.",
        remedy=f"Sign in at {WEB_URL} and accept them.",
    )


def _scopes_missing(entity_id: str, scopes: str) -> errors.StsfsError:
    return errors.ScopeMissing(
        f"The token lacks the scope(s) {scopes} that {entity_id} needs.",
        remedy=f"STS needs all of {_ALL_SCOPES}, even for reading. {_NEW_TOKEN}",
    )


_KNOWN: tuple[tuple[int, str, _Build], ...] = (
    (400, r"must have an STS-enabled storage location", _not_sts),
    (400, r"STS write access is not allowed in Synapse storage", _managed_read_only),
    (403, r"insufficient_scope.*?: ([a-z_, ]+)", _scopes_missing),
    (403, r"Terms of use have not been signed", _terms_unsigned),
    (403, r"unmet access requirements", _unmet_requirements),
    (403, r"two factor authentication", _two_factor),
    (403, r"You lack (\w+) access", _lacks),
    (403, r"Lack of (\w+) permission", _lacks),
    (403, r"Anonymous", _anonymous),
    (403, r"Only certified users", _not_certified),
    (404, r"is in trash can", _in_trash),
    (404, r"^([A-Z]+) was not found. Please reference API", _no_such_call),
    (404, r"does not exist", _not_found),
)
"""Status, what the reason contains, and who makes the error of it; the first match counts."""
