"""`~/.synapseConfig`, as the Synapse clients read it."""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from stsfs.errors import BadArgument

FILE_BYTES_MAX = 1 << 20
"""Of a configuration file, or a file with a token."""

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
    text = read_text(path)
    if text is None:
        return None
    try:
        parser.read_string(text)
    except configparser.Error:
        raise BadArgument(
            f"{path} is not a configuration file.",
            remedy="It consists of [sections] with lines of the form key = value.",
        ) from None
    return {name: dict(parser[name]) for name in parser.sections()}


def read_text(path: Path) -> str | None:
    """Return what a file holds; None where there is none.

    Raises BadArgument for a file that cannot be read, is not UTF-8, or is over FILE_BYTES_MAX.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) <= FILE_BYTES_MAX:
            return data.decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise unreadable(path, exc) from None
    raise BadArgument(f"{path} cannot be read: it has more than {FILE_BYTES_MAX} bytes.")


def unreadable(path: Path, exc: OSError | UnicodeDecodeError) -> BadArgument:
    """The error for a file that is there and cannot be read; it quotes nothing of the file."""
    reason = (exc.strerror or str(exc)) if isinstance(exc, OSError) else "it is not UTF-8 text"
    return BadArgument(f"{path} cannot be read: {reason}.")
