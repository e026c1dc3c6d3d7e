"""The commands `dmaml data ...`: options in, one call, words out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmaml.deploy.cli_options import DataDir, Json

data_app = typer.Typer(help="Task sources and their data files.", no_args_is_help=True)


@data_app.command("list")
def data_list(data_dir: DataDir = None, json_output: Json = False) -> None:
    """List the task sources: where they are, their licences and digests."""
    from dmaml.deploy.data import show_list

    show_list(data_dir, json_output)


@data_app.command("path")
def data_path(
    name: Annotated[str, typer.Argument(help="Name of a source.")], data_dir: DataDir = None
) -> None:
    """Print where a source's data file is."""
    from dmaml.deploy.data import show_path

    show_path(name, data_dir)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="Name of a source.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder; default the cache.")] = None,
) -> None:
    """Download a source's data; digests are pinned."""
    from dmaml.deploy.data import fetch

    fetch(name, to)


@data_app.command("convert")
def data_convert(
    name: Annotated[str, typer.Argument(help="cifar100, cifar10 or mnist.")],
    original: Annotated[Path, typer.Argument(help="What its authors publish: archive or folder.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder; default the cache.")] = None,
) -> None:
    """Write a set that you have downloaded in the project's format (docs/tasks.md)."""
    from dmaml.deploy.data import convert

    convert(name, original, to)
