"""Text from outside, as a terminal or a log can show it. Pure.

Names, keys, reasons and messages may hold anything: escape sequences and control characters that a
terminal obeys, characters that turn the direction of writing, line feeds that begin a line in the
name of somebody else.
"""

INDENT = "    "
"""Before what continues a record: no record begins with a blank."""


def shown(text: str) -> str:
    r"""The text in one line, with all that is not printable written as `\x1b`, `\n`, `\u202e`.

    Printable is what Unicode calls so: no control or format characters (C0, C1, directions, zero
    widths), no separators but the blank, no surrogates (bytes of a name that are no UTF-8).
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def shown_below(text: str) -> str:
    """Several lines, such as a traceback, each indented, so that none looks like a record."""
    return "\n".join(f"{INDENT}{shown(line)}" for line in text.rstrip("\n").split("\n"))
