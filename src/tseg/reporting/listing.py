"""Long lists on the terminal: the first lines, and how many more there are."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

NUM_NAMED = 20
"""Most lines or names of a list that are shown; the others are counted."""


def print_lines(console: Console, lines: Sequence[str], kind: str = "") -> None:
    """Print the first `NUM_NAMED` lines, indented, and the number of the others, of this `kind`."""
    for line in lines[:NUM_NAMED]:
        console.print(f"  {escape(line)}")
    if len(lines) > NUM_NAMED:
        console.print(f"  and {len(lines) - NUM_NAMED} more {kind}".rstrip())
