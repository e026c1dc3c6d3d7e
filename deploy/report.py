"""`dmaml report`: from run directories to one HTML file and its pictures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from dmaml.common.errors import ConfigError

COMPARISON: Final = Path("runs") / "comparison"


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
    page = write(made, folder)
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
