"""Secrets are left out of whatever is shown: sentences, status, explanations, log lines. Pure.

Who makes or receives a secret registers it (`credentials.Credentials`, the Synapse token); besides,
what follows the name of a secret is one, and a signed token. Nothing is hidden for its looks alone:
the keys of objects may look like anything, and an error has to name them. Texts of servers are
redacted where they are read (`values.one_line`), sentences of errors whenever they are looked at
(`errors.StsfsError`), and log lines when they are formatted.
"""

import re
from base64 import urlsafe_b64decode
from urllib.parse import quote

SECRET_CHARS_MIN = 8
"""Shorter values are not registered: they would blank out ordinary words."""

REDACTED = "[redacted]"

_NAMED_SECRET = re.compile(
    r"""(?ix)
    ( \b (?: x-amz-security-token | x-amz-signature | signature
        | (?:aws_)? secret_?(?:access_?)?key | (?:aws_)? session_?token
        | auth_?token | access_?token | password )
      (?: \\? ["']? \s* [=:] \s* (?: b? \\? ["'] )? | ["'] \s* , \s* b? ["'] ) )
    [^\s"'&,;\\]+ """
)
_BEARER = re.compile(r"(?<= \b[Bb]earer\s ) [A-Za-z0-9._~+/=-]{8,}", re.VERBOSE)
_JSON_WEB_TOKEN = re.compile(r"(?<! [\w-] ) (eyJ [\w-]+) \. [\w-]+ (?: \. [\w-]* )?", re.VERBOSE)

_registered: dict[str, None] = {}
_longest_first: tuple[str, ...] = ()
"""The registered values, and as URLs write them: one may contain another."""

_REGISTERED_MAX = 256
"""Renewals over weeks bring new values; the oldest are over by then."""


def register_secret(value: str | None) -> None:
    """Never let this value be shown, in whatever context it appears."""
    global _longest_first
    if not value or len(value) < SECRET_CHARS_MIN:
        return
    known = value in _registered
    _registered.pop(value, None)
    _registered[value] = None
    while len(_registered) > _REGISTERED_MAX:
        del _registered[next(iter(_registered))]
    if not known:
        forms = {form for each in _registered for form in (each, quote(each, safe=""))}
        _longest_first = tuple(sorted(forms, key=len, reverse=True))


def redact(text: str) -> str:
    """Replace registered secrets, tokens, and what is named as a secret, in `text`."""
    for value in _longest_first:
        text = text.replace(value, REDACTED)
    text = _JSON_WEB_TOKEN.sub(_redacted_token, _BEARER.sub(REDACTED, text))
    return _NAMED_SECRET.sub(rf"\1{REDACTED}", text)


def _redacted_token(found: re.Match[str]) -> str:
    """Names of files may begin as tokens do; the head of a token names its algorithm."""
    head = found[1]
    try:
        told = urlsafe_b64decode(head + "=" * (-len(head) % 4))
    except ValueError:
        return found[0]
    is_head = b'"alg"' in told and told.endswith(b"}")
    return REDACTED if is_head else found[0]
