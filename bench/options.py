"""Options and output that benchmarks share."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn, final

from rich.console import Console
from rich.table import Table

from dmaml.deploy.tables import show_table


@final
class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and ends with exit code 2.

    Args:
        name: the benchmark's.
        doc: its module's docstring; the first line is its help.
    """

    def __init__(self, name: str, doc: str | None) -> None:
        title, _, rest = (doc or "").partition("\n")
        super().__init__(
            f"dmaml bench {name}",
            description=title,
            epilog=rest.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--json", action="store_true", help="one JSON object on the last line of stdout"
        )

    def error(self, message: str) -> NoReturn:
        """Say it and end."""
        sys.stderr.write(f"error: {message.rstrip('.')}. See {self.prog} --help.\n")
        raise SystemExit(2)


def add_places(parser: Parser) -> None:
    """Add where runs are written and where data are."""
    parser.add_argument(
        "--folder", type=Path, metavar="DIR",
        help="where runs are written, and removed (default: the temporary folder); an fsync costs "
        "what it costs there",
    )  # fmt: skip
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data are looked for")


def whole(text: str) -> int:
    """Return a positive whole number; argparse's `type`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def wholes(text: str) -> tuple[int, ...]:
    """Return positive whole numbers separated by commas, each once, in rising order."""
    try:
        numbers = tuple(sorted({whole(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: required whole numbers separated by commas, such as 1,2,4"
        ) from None
    return numbers


def positive(text: str) -> float:
    """Return a positive number; argparse's `type`."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def say(text: str) -> None:
    """Tell how far a benchmark is."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def show(report: dict[str, Any], columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """Print a table of some columns (key -> heading), right-aligned."""
    table = Table(title=report["benchmark"])
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(str(row.get(key, "")) for key in columns))
    show_table(Console(), table)


def finish(
    report: dict[str, Any], columns: dict[str, str], rows: list[dict[str, Any]], as_json: bool
) -> None:
    """Print the report as JSON, or its table."""
    if as_json:
        print(json.dumps(report), flush=True)
    else:
        show(report, columns, rows)
