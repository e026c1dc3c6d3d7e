"""`dmaml report`: from run directories to one HTML file and its pictures."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from dmaml.common.errors import ConfigError

if TYPE_CHECKING:
    from dmaml.report.document import Document

COMPARISON: Final = Path("runs") / "comparison"
FEATURES: Final = Path("features")


@dataclass(frozen=True)
class Asked:
    """What is asked of a feature study beside its run.

    Attributes:
        against: the other run.
        steps, against_steps: adaptation steps of each; None: its `evaluation.steps`.
        against_lr: the other's rate of adaptation; None: its own.
    """

    against: Path | None = None
    steps: int | None = None
    against_steps: int | None = None
    against_lr: float | None = None


def write_report(
    runs: list[Path], out: Path | None, tasks: int | None, data_dir: Path | None, json_output: bool
) -> None:
    """Write the report of a run, or the comparison of several.

    Raises:
        BadInputError: no run, nothing in it yet, or a folder that cannot be written.
    """
    from dmaml.report.build import TASKS, compare, report
    from dmaml.report.document import require_folder, write

    began = time.monotonic()
    if len(runs) > 1 and tasks is not None:
        raise ConfigError("--tasks with several runs: a comparison tries no model. Leave it out.")
    folder = out or (runs[0] / "report" if len(runs) == 1 else COMPARISON)
    if out is not None or runs[0].is_dir():  # else there is no run, which is said then
        require_folder(folder)
    if len(runs) == 1:
        made = report(runs[0], data_dir, TASKS if tasks is None else tasks)
    else:
        made = compare(runs)
    _written(write(made, folder), made, began, json_output)


def write_study(
    runs: list[Path],
    asked: Asked,
    out: Path | None,
    tasks: int | None,
    data_dir: Path | None,
    json_output: bool,
) -> None:
    """Write the feature study of a run, beside another.

    Raises:
        BadInputError: no run, nothing in it yet, runs that do not suit each other, or a folder that
            cannot be written.
    """
    if len(runs) != 1:
        raise ConfigError(
            f"dmaml report features: required one RUN, found {len(runs)}. Name the other with "
            "--against. (A run directory called features: give its whole path.)"
        )
    if asked.against is None and (asked.against_steps is not None or asked.against_lr is not None):
        raise ConfigError("--against-steps and --against-lr: there is no --against. Add it.")
    from dmaml.report.document import require_folder, write
    from dmaml.report.features.study import TASKS, study
    from dmaml.report.features.subject import Chosen

    began = time.monotonic()
    folder = out or runs[0] / FEATURES
    if out is not None or runs[0].is_dir():  # else there is no run, which is said then
        require_folder(folder)
    chosen = [Chosen(runs[0], asked.steps)]
    if asked.against is not None:
        chosen.append(Chosen(asked.against, asked.against_steps, asked.against_lr))
    made = study(chosen, data_dir, TASKS if tasks is None else tasks)
    _written(write(made, folder), made, began, json_output)


def _written(page: Path, made: Document, began: float, json_output: bool) -> None:
    """Say what was written."""
    took_s = time.monotonic() - began
    size = page.stat().st_size
    if json_output:
        out_values = {
            "report": str(page),
            "bytes": size,
            "pictures": sorted(made.pictures),
            "wall_s": round(took_s, 2),
        }
        print(json.dumps(out_values))
        return
    words = f"{page}: {size / 1e6:.1f} MB, {len(made.pictures)} pictures beside it, {took_s:.0f} s"
    Console().print(words, highlight=False, soft_wrap=True)
