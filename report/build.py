"""From run directories to a report: which sections there are, and what is missing and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dmaml.common.errors import ConfigError, DmamlError
from dmaml.report.classes import per_class
from dmaml.report.comparison import comparison
from dmaml.report.contributions import contribution_weights
from dmaml.report.curves import learning_curves
from dmaml.report.document import Document, document
from dmaml.report.gamma import clusters
from dmaml.report.names import names_of
from dmaml.report.probe import Trained, after_cpu_seconds
from dmaml.report.provenance import provenance, summary
from dmaml.report.record import RunRecord, read_record
from dmaml.report.regression import COLUMNS, QUERIES, STEPS, fitted_curves
from dmaml.report.section import Section, quiet
from dmaml.report.speed import speed
from dmaml.report.steps import by_step
from dmaml.report.tasks import examples, hardest

TASKS: Final = 200  # test tasks that the model is tried on
PATIENCE_S: Final = 20.0  # of computing, or as many as are done by then
PATHS: Final = 4  # tasks of control


def report(folder: Path, data_dir: Path | None, tasks: int = TASKS) -> Document:
    """Return the report of one run, also of one that is still training.

    Args:
        data_dir: where data files are looked for first.
        tasks: test tasks for classes, hardest tasks and examples; fewer where they take long.

    Raises:
        RunDirectoryError: no run, no round or no evaluation yet.
    """
    record = read_record(folder)
    notes: list[str] = []
    if not record.is_over:
        at = f"{record.rounds[-1]['version']} of {record.config.run.rounds}"
        notes.append(f"This run is not finished: {record.clock} {at}. This is what is there.")
    with quiet():
        trained, words = _trained_sections(record, data_dir, tasks)
        sections: list[Section | None] = [
            summary(record),
            learning_curves(record),
            by_step(record),
            *trained,
            clusters(record),
            contribution_weights(record),
            speed(record),
            provenance(record),
        ]
        return document(
            record.config.run.name,
            f"{record.config.algorithm.name} on {record.config.task.source}, seed "
            f"{record.config.run.seed}: what it learned, and how it got there.",
            [section for section in sections if section is not None],
            notes + words,
        )


def compare(folders: Sequence[Path]) -> Document:
    """Return the report of several runs: one comparison, and where each comes from.

    Raises:
        RunDirectoryError: one of them is no run, or has no round or evaluation yet.
        ConfigError: they are judged by different figures, or one is given twice.
    """
    places = [folder.resolve() for folder in folders]
    twice = [str(one) for one, at in zip(folders, places, strict=True) if places.count(at) > 1]
    if twice:
        raise ConfigError(f"run directory {min(twice)!r} is given twice. Name each once.")
    records = [read_record(folder) for folder in folders]
    names = names_of(folders)
    notes = [
        f"{name} is not finished: {record.clock} {record.rounds[-1]['version']} of "
        f"{record.config.run.rounds}."
        for record, name in zip(records, names, strict=True)
        if not record.is_over
    ]
    with quiet():
        sections = [comparison(records)]
        for record, name in zip(records, names, strict=True):
            own = provenance(record)
            sections.append(Section(f"Run {name}", (), (), own.tables))
        title = f"Comparison of {len(records)} runs"
        return document(title, ", ".join(names), sections, notes)


def _trained_sections(
    record: RunRecord, data_dir: Path | None, tasks: int
) -> tuple[list[Section | None], list[str]]:
    """Return what the trained model shows, and a note for what it cannot."""
    if record.checkpoint is None:
        return [], ["There is no checkpoint yet, so nothing here shows what the model does."]
    try:
        if record.metric == "return":
            return [_trajectories(record, data_dir)], []
        trained = Trained(record.config, record.checkpoint, data_dir)
        if trained.source.kind == "regression":
            episodes = trained.episodes(2 * COLUMNS, STEPS, QUERIES, after_cpu_seconds(PATIENCE_S))
            return [fitted_curves(episodes)], []
        steps = record.num_steps
        episodes = trained.episodes(
            tasks, (0, steps) if steps else (0,), None, after_cpu_seconds(PATIENCE_S)
        )
        return [per_class(episodes), hardest(episodes), examples(episodes)], []
    except DmamlError as error:
        return [], [f"Nothing here shows what the model does: {error}"]


def _trajectories(record: RunRecord, data_dir: Path | None) -> Section | None:
    from dmaml.learner import load
    from dmaml.report.trajectories import trajectories

    return trajectories(load(record.folder, data_dir=data_dir).trajectories(PATHS, 3, k_query=3))
