"""`dmaml repro`: run a published experiment and show it."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, RunFailedError
from dmaml.common.intervals import main_metric
from dmaml.deploy.interrupts import interrupt_on_sigterm
from dmaml.deploy.repro import EXPERIMENTS, find
from dmaml.deploy.repro.experiment import Experiment, Form, Outcome, Results, Table
from dmaml.deploy.repro.page import page, read_reports
from dmaml.deploy.repro.provenance import provenance
from dmaml.deploy.sweep import Cell, Progress, measured, read_finished, require_writable, sweep
from dmaml.deploy.tables import show_table
from dmaml.report.charts import draw

RUNS: Final = Path("runs") / "repro"


def show_list(json_output: bool) -> None:
    """Print the experiments."""
    if json_output:
        rows = [{"name": e.name, "title": e.title, "shows": e.shows} for e in EXPERIMENTS.values()]
        print(json.dumps({"experiments": rows}))
        return
    table = RichTable(Column("name", no_wrap=True), "what", "shows")
    for one in EXPERIMENTS.values():
        table.add_row(one.name, one.title, one.shows)
    show_table(Console(), table)


def write_page(page_file: Path, folder: Path | None) -> None:
    """Write the scoreboard of what was run.

    Raises:
        BadInputError: nothing was, or the page cannot be written.
    """
    reports = read_reports(folder or RUNS)
    try:
        page_file.write_text(page(reports), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--page {str(page_file)!r} cannot be written ({error.strerror}). Name another file."
        ) from None
    Console(stderr=True).print(
        f"{page_file}: {len(reports)} experiments", highlight=False, soft_wrap=True
    )


def reproduce(
    name: str,
    quick: bool,
    out: Path | None,
    seeds: int | None,
    lanes: int | None,
    smooth: bool,
    data_dir: Path | None,
    json_output: bool,
) -> None:
    """Run what is not finished of an experiment; print and draw what it came to.

    Raises:
        BadInputError: an unknown name, no data, a directory that cannot be written.
        RunFailedError: some of its runs failed; what the others came to was shown.
    """
    experiment = find(name)
    form = Form(
        quick, seeds or (experiment.quick_seeds if quick else experiment.full_seeds), smooth
    )
    folder = out or RUNS / (f"{name}-quick" if quick else name)
    cells = experiment.cells(form)
    check_cells(cells, data_dir)
    require_writable(folder)
    console = Console(stderr=True)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    interrupt_on_sigterm()
    began = time.monotonic()
    with redirect_stdout(sys.stderr):  # Ray prints its warnings; standard output is the report
        failures = _sweep(experiment, cells, folder, lanes, data_dir, console)
    results = Results(measured(cells, folder))
    outcome = experiment.outcome(form, results)
    pictures = [str(path) for one in outcome.pictures for path in draw(one, folder)]
    report = {
        "experiment": name,
        "form": "quick" if quick else "full",
        "seeds": form.seeds,
        "intervals": "95 %, Student's t over seeds; published, of one seed: over its tasks",
        "about": experiment.about,
        "wall_s": round(time.monotonic() - began, 1),
        "failed": failures,
        "tables": [asdict(table) for table in outcome.tables],
        "published": [asdict(one) for one in outcome.published],
        **outcome.headline,
        "facts": outcome.facts,
        "notes": list(outcome.notes),
        "provenance": provenance(),
        "pictures": pictures,
    }
    text = json.dumps(_plain(report), allow_nan=False, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    if json_output:
        sys.stdout.write(text + "\n")
    else:
        _show(Console(), experiment, outcome, pictures)
    if failures:
        first, sentence = next(iter(failures.items()))
        raise RunFailedError(
            f"{len(failures)} of {len(cells)} runs failed, the first of them {first!r}: "
            f"{sentence.rstrip('.')}. The same command does only these again."
        )


def check_cells(cells: tuple[Cell, ...], data_dir: Path | None) -> None:
    """Raise what would end a run before its first round, once for each kind of work.

    Raises:
        BadInputError: no data, a plug-in that is not there, a model that does not suit.
    """
    from dmaml.deploy.train import check_work  # imports torch

    seen: dict[str, RunConfig] = {}
    for cell in cells:
        config = cell.config
        seen.setdefault(f"{config.task} {config.model} {config.algorithm.name}", config)
    for config in seen.values():
        check_work(config, data_dir)


def num_lanes(experiment: Experiment, cells: tuple[Cell, ...], lanes: int | None) -> int:
    """Return how many cells at a time: one where time is measured, else one per core and actor."""
    if experiment.is_timed:
        return 1
    return lanes or max(1, len(os.sched_getaffinity(0)) // max(cell.actors for cell in cells))


def _sweep(
    experiment: Experiment,
    cells: tuple[Cell, ...],
    folder: Path,
    lanes: int | None,
    data_dir: Path | None,
    console: Console,
) -> dict[str, str]:
    number = num_lanes(experiment, cells, lanes)
    num_open = sum(read_finished(cell, folder) is None for cell in cells)
    began = time.monotonic()
    console.print(
        f"{experiment.name} in {folder}: {num_open} of {len(cells)} runs to do, {number} at a time",
        highlight=False, soft_wrap=True,
    )  # fmt: skip

    def notify(progress: Progress) -> None:
        per_run_s = (time.monotonic() - began) / progress.done
        left = f"{(progress.total - progress.done) * per_run_s / 60:.0f} min left"
        words = progress.failure or _words(progress)
        console.print(
            f"{progress.done}/{progress.total}  {progress.cell.name}: {words}  ({left})",
            highlight=False, soft_wrap=True, style="red" if progress.failure else None,
        )  # fmt: skip

    try:
        return sweep(cells, folder, number, data_dir, notify)
    except KeyboardInterrupt:
        console.print(
            "interrupted: finished runs stay, the others go on from their last checkpoint with "
            "the same command.",
            style="yellow", soft_wrap=True,
        )  # fmt: skip
        raise


def _words(progress: Progress) -> str:
    finished = progress.finished
    assert finished is not None
    words = f"{progress.wall_s:.0f} s"
    if finished.test is not None:
        metric = main_metric(finished.test)
        words = f"{metric} {finished.test[metric][-1]:.3f} in {words}"
    return words + (f", stopped: {finished.stopped}" if finished.stopped else "")


def _show(console: Console, experiment: Experiment, outcome: Outcome, pictures: list[str]) -> None:
    console.print(f"[bold]{experiment.title}[/] ({experiment.shows})", highlight=False)
    for table in outcome.tables:
        show_table(console, _rich(table))
    if outcome.published:
        rows = tuple(
            (o.what, o.published, o.measured, o.verdict, o.source) for o in outcome.published
        )
        columns = ("", "published", "measured here", "verdict", "source")
        show_table(console, _rich(Table("published and measured", columns, rows)))
    for line in (*outcome.notes, experiment.about):
        console.print(line, highlight=False, soft_wrap=True)
    for picture in pictures:
        console.print(picture, highlight=False, soft_wrap=True)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title)
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if number == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _plain(value: Any) -> Any:
    """Return JSON values: NaN and infinities become null."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
