"""A feature study: what meta-learning did to a network, beside the same network trained plainly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dmaml.common.errors import ConfigError, DataError
from dmaml.learner.task import Task
from dmaml.report.curves import learning_curves
from dmaml.report.document import Document, document
from dmaml.report.features.alignment import alignment
from dmaml.report.features.answers import class_sheet, neuron_sheets, saliency_sheet
from dmaml.report.features.filters import filters
from dmaml.report.features.findings import (
    classes,
    first_filters,
    first_of_each,
    neurons,
    points,
    pool,
)
from dmaml.report.features.scatter import scatter
from dmaml.report.features.similarity import LEAST
from dmaml.report.features.subject import Chosen, Subject, similarity, subjects
from dmaml.report.features.words import Marks, marks
from dmaml.report.names import names_of
from dmaml.report.provenance import provenance
from dmaml.report.record import RunRecord, read_record
from dmaml.report.section import Section, quiet

TASKS: Final = 20
MOST_QUERIES: Final = 30  # of a class and task


def study(chosen: Sequence[Chosen], data_dir: Path | None, tasks: int = TASKS) -> Document:
    """Return the feature study of a run, or of two side by side.

    The tasks are test tasks of the first run. In the one that is pictured, labels go by the names
    of the classes: a network that was trained to name them finds its own labels there.

    Args:
        chosen: one or two runs.
        data_dir: where data files are looked for first.
        tasks: how many the figures are means of, >= 1.

    Raises:
        RunDirectoryError: no run, no round, no evaluation or no checkpoint yet.
        ConfigError: runs that do not suit each other, tasks that are no pictures with classes, a
            number out of range.
        DataError: no data, or too few pictures of a class.
    """
    if tasks < 1:
        raise ConfigError(f"tasks {tasks}: required at least 1.")
    records = [read_record(one.folder) for one in chosen]
    studied = subjects(chosen, data_dir)
    first = studied[0].learner
    torch.set_num_threads(first.config.run.threads)
    drawn = [first.task(number, MOST_QUERIES) for number in range(tasks)]
    _require_queries(drawn[0], chosen[0].folder)
    for subject in studied:
        subject.choose(drawn[0])
    with quiet():
        sections = [*_curves(records, studied), *_sections(studied, drawn)]
        folders = names_of([record.folder for record in records])
        for record, folder in zip(records, folders, strict=True):
            own = provenance(record)
            sections.append(Section(f"Run {folder}", (), (), own.tables))
        names = " and ".join(subject.name for subject in studied)
        lead = (
            f"{first.config.model.name} on {first.config.task.source}: what the network looks for, "
            "and what adaptation changes."
        )
        return document(f"Features: {names}", lead, sections, _notes(records))


def _require_queries(task: Task, folder: Path) -> None:
    """Raise unless a task has enough pictures for CKA and silhouettes."""
    count = len(task.query_y) // len(task.names)
    if count < 2 or len(task.query_y) < LEAST:
        raise DataError(
            f"run {str(folder)!r}: a test task has {count} queries of each of {len(task.names)} "
            f"classes; a feature study required 2, and {LEAST} in all. Take data with more "
            "pictures of a class."
        )


def _curves(records: Sequence[RunRecord], studied: Sequence[Subject]) -> list[Section]:
    found = []
    for number, (record, subject) in enumerate(zip(records, studied, strict=True)):
        made = learning_curves(record)
        figures = tuple(replace(shown, name=f"curves_{number}") for shown in made.figures)
        found.append(replace(made, title=f"Training: {subject.name}", figures=figures))
    return found


def _sections(studied: Sequence[Subject], drawn: Sequence[Task]) -> list[Section]:
    task, seed = drawn[0].by_name(), studied[0].learner.config.run.seed
    called = marks(task.names)
    found = [(subject, similarity(subject, drawn)) for subject in studied]
    return [
        *_filters(studied, task),
        scatter([p for s in studied for p in points(s, task, seed)], task.query_y, called),
        _neurons(studied, drawn),
        _classes(studied, task, called),
        alignment(found),
    ]


def _filters(studied: Sequence[Subject], task: Task) -> list[Section]:
    found: dict[str, NDArray[np.float32]] = {}
    for subject in studied:
        before, _ = subject.states(task)
        own = first_filters(before.layers, subject.learner.input_shape)
        if own is not None:
            found[subject.name] = own
    return [filters(found)] if found else []


def _neurons(studied: Sequence[Subject], drawn: Sequence[Task]) -> Section:
    together = pool(drawn)
    by_network = [neurons(subject, together) for subject in studied]
    shown = tuple(neuron_sheets(layer) for layer in zip(*by_network, strict=True))
    words = (
        f"Over {len(together.x)} different test pictures of {together.labels.max() + 1} classes."
    )
    return Section("Neurons", (words,), shown)


def _classes(studied: Sequence[Subject], task: Task, called: Marks) -> Section:
    found = [one for subject in studied for one in classes(subject, task)]
    support = task.support_x[first_of_each(task.support_y)]
    queries = task.query_x[first_of_each(task.query_y)]
    letters = called.letters[: len(queries)]
    return Section(
        "Classes", (),
        (class_sheet(found, support, letters), saliency_sheet(found, queries, letters)),
    )  # fmt: skip


def _notes(records: Sequence[RunRecord]) -> list[str]:
    names = names_of([record.folder for record in records])
    return [
        f"{name} is not finished: {record.clock} {record.rounds[-1]['version']} of "
        f"{record.config.run.rounds}."
        for record, name in zip(records, names, strict=True)
        if not record.is_over
    ]
