"""Tables of names and figures on a terminal, in a pipe, in a file: nothing in them is cut."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table

UNBOUNDED: Final = 10_000  # columns of a pipe


def show_table(console: Console, table: Table) -> None:
    """Print a table: on a terminal as wide as that, elsewhere as wide as it is.

    A cell that is too long goes on in the next line; those of a column with `no_wrap` never do.
    """
    for column in table.columns:
        column.overflow = "fold"
    if not console.is_terminal:
        options = console.options.update(max_width=UNBOUNDED)
        width = max(console.width, console.measure(table, options=options).maximum)
        console = Console(file=console.file, width=width)
    console.print(table)
