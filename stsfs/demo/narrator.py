"""How the demonstration looks: steps with a command, its output, and a line about what it shows."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from stsfs.cli.tables import console
from stsfs.shown import shown

OUTPUT_LINES_MAX = 30
_INDENT = 3


class Narrator:
    """Prints to a terminal or a pipe; colours only where there is a terminal."""

    def __init__(self) -> None:
        self._console = console()
        self._steps = 0

    def say(self, text: str) -> None:
        """A paragraph at the margin."""
        self._console.print(Text(text))

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._steps += 1
        self._console.print()
        self._console.print(Text(f"{self._steps:>2} {title}", style="bold"))

    def command(self, command: str) -> None:
        """What a person would type."""
        for number, line in enumerate(command.splitlines()):
            self._indented(Text.assemble(("  " if number else "$ ", "dim"), (line, "cyan")))

    def output(self, output: str) -> None:
        """What a command printed; the end of a long text is left out."""
        lines = [shown(line.rstrip()) for line in output.rstrip().splitlines()]
        left_out = len(lines) - OUTPUT_LINES_MAX
        if left_out > 0:
            lines[OUTPUT_LINES_MAX:] = [f"... {left_out} lines more"]
        for line in lines:
            if line:
                self._indented(Text(line))
            else:
                self._console.print()

    def shows(self, remark: str) -> None:
        """What the step has shown, now that it was verified."""
        self._indented(Text.assemble(("ok ", "bold green"), (remark, "green")))

    def note(self, text: str) -> None:
        """A remark that is not the result of a check."""
        self._indented(Text(text, style="dim"))

    def example(self, command: str) -> None:
        """A command to try."""
        self._indented(Text(command, style="cyan"))

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[str], None]]:
        """Say what is waited for: a moving line on a terminal, nothing in a pipe.

        Gives a function that changes the text.
        """
        with self._console.status(Text(what, style="dim"), spinner="line") as status:
            yield lambda text: status.update(Text(text, style="dim"))

    def _indented(self, content: RenderableType) -> None:
        self._console.print(Padding(content, (0, 0, 0, _INDENT), expand=False))
