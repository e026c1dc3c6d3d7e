"""`dmaml data list|path|fetch|convert`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from dmaml.deploy.tables import show_table
from dmaml.worker.tasks import locate, originals


def show_list(data_dir: Path | None, json_output: bool) -> None:
    """Print every known source: what `task.source` takes, where it is, its licence and digest."""
    rows = locate.catalogue(data_dir)
    places = [str(place) for place in locate.places(data_dir)]
    if json_output:
        out = {"places": places, "sources": [asdict(row) for row in rows]}
        sys.stdout.write(json.dumps(out) + "\n")
        return
    names = (Column(heading, no_wrap=True) for heading in ("name", "task.source"))
    table = Table(*names, "found", "licence", "sha256")
    for row in rows:
        found = "embedded" if row.file is None else row.path or "no"
        table.add_row(row.name, row.source, found, row.licence, (row.sha256 or "")[:12])
    console = Console()
    show_table(console, table)
    console.print(f"looked in: {', '.join(places)}", highlight=False, soft_wrap=True)
    console.print(
        "also: npz:PATH (docs/data.md) and folder:PATH (one folder of pictures per class)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def show_path(name: str, data_dir: Path | None) -> None:
    """Print the path of a source's data file; raises DataError where it is missing."""
    sys.stdout.write(f"{locate.path_of(name, data_dir)}\n")


def fetch(name: str, to: Path | None) -> None:
    """Download a source and print the path of its data file."""
    sys.stdout.write(f"{locate.fetch(name, to)}\n")


def convert(name: str, original: Path, to: Path | None) -> None:
    """Write a published set in the exchange format and print the path of the file."""
    sys.stdout.write(f"{originals.convert(name, original, to)}\n")
