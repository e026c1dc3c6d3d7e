"""The scoreboard: what was published and what was measured, as a page. Pure but for reading."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dmaml.common.errors import ConfigError
from dmaml.deploy.repro.experiment import UNMEASURED

Report = Mapping[str, Any]
HEAD: Final = """\
# Results

Written by `dmaml repro --page docs/results.md` from the experiments that were run. Each row is one
of them: `dmaml repro NAME`, or `dmaml repro NAME --quick`. Intervals are 95 %: over the test tasks
(1.96 σ/√n) where there is one seed, else by Student's t over the seeds. The verdict compares with
the published figure: *reached*, *within the interval*, or how far it is. Date and commit are those
of the report; a training that was gone on with may be older. What `dmaml repro` lists and is not
here was not run through it; longer runs of control by `dmaml train` are in
[reinforcement.md](reinforcement.md).
"""
COLUMNS: Final = (
    "experiment", "form", "what", "published", "measured", "verdict", "source", "tasks seen",
    "training, s", "date", "commit",
)  # fmt: skip


def read_reports(folder: Path) -> list[Report]:
    """Return the reports in the folders of a folder, by name: those with a published figure.

    Raises:
        ConfigError: there is none.
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/*.json")]
    reports = [one for one in found if _is_measured(one)]
    if not reports:
        raise ConfigError(
            f"{str(folder)!r} holds no finished experiment with a published figure. Run one first "
            "(`dmaml repro` lists them), or name their folder by --out."
        )
    return sorted(reports, key=lambda one: (one["experiment"], one["form"]))


def _is_measured(report: Report) -> bool:
    """Whether it has a published figure and one of ours: an interrupted experiment has none."""
    rows = report.get("published") or []
    return bool(report.get("provenance")) and any(row["measured"] != UNMEASURED for row in rows)


def page(reports: Sequence[Report]) -> str:
    """Return the page, Markdown."""
    lines = [HEAD, _row(COLUMNS), _row(["---"] * len(COLUMNS))]
    for one in reports:
        facts, origin = one["facts"], one["provenance"]
        seen = ", ".join(f"{n:,}" for n in facts.get("tasks_seen", []))
        seconds = ", ".join(f"{n:,.0f}" for n in facts.get("train_s", []))
        for line in one["published"]:
            row = (
                f"`{one['experiment']}`", one["form"], line["what"], line["published"],
                line["measured"], line["verdict"], line["source"], seen, seconds, origin["date"],
                origin["commit"],
            )  # fmt: skip
            lines.append(_row(row))
    machines = sorted({f"{one['provenance']['machine']}, torch {one['provenance']['torch']}"
                       for one in reports})  # fmt: skip
    lines += ["", "Machines: " + "; ".join(machines) + ".", ""]
    notes = [f"- `{one['experiment']}` ({one['form']}): {one['about']}" for one in reports]
    return "\n".join([*lines, *notes]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
