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
        raise BadArgument(f"{path} cannot be read: {type(exc).__name__}.") from None
    try:
        parser.read_string(text)
    except configparser.Error as exc:
        raise BadArgument(
            f"{path} is not a configuration file: {type(exc).__name__}.",
            remedy="It consists of [sections] with lines of the form key = value.",
        ) from None
    return {name: dict(parser[name]) for name in parser.sections()}
