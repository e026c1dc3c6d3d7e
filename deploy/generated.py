"""What the pages that are made from the code share: the row of a table, and write or check."""

from __future__ import annotations

import sys
from pathlib import Path


def row(*cells: str) -> str:
    """Return one row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_or_check(page: str, arguments: list[str]) -> int:
    """Write the page to the path in `arguments`, or with `--check` tell whether it is current."""
    path = Path(next(a for a in arguments if not a.startswith("--")))
    if "--check" not in arguments:
        path.write_text(page, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == page:
        return 0
    sys.stderr.write(f"error: {path} is not what the code says. Run `make docs`.\n")
    return 1
