"""`~/.synapseConfig`, as the Synapse clients read it."""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from stsfs.errors import BadArgument

Sections = Mapping[str, Mapping[str, str]]


def default_path() -> Path:
    """Return where the Synapse clients look for their configuration."""
    return Path(os.path.expanduser("~/.synapseConfig"))


def read_sections(path: Path) -> Sections | None:
    """Return section → key → value, keys in lower case; None where there is no file.

    Raises BadArgument for a file that cannot be read or parsed. The parser's own message is
    withheld: it quotes the line, and the line may be the token.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise unreadable(path, exc) from None
    try:
        parser.read_string(text)
    except configparser.Error:
        raise BadArgument(
            f"{path} is not a configuration file.",
            remedy="It consists of [sections] with lines of the form key = value.",
        ) from None
    return {name: dict(parser[name]) for name in parser.sections()}


def unreadable(path: Path, exc: OSError | UnicodeDecodeError) -> BadArgument:
    """The error for a file that is there and cannot be read; it quotes nothing of the file."""
    reason = (exc.strerror or str(exc)) if isinstance(exc, OSError) else "it is not UTF-8 text"
    return BadArgument(f"{path} cannot be read: {reason}.")
