"""The networks of a feature study, and what each makes of the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmaml.common.errors import ConfigError
from dmaml.learner import Learner, load
from dmaml.learner.task import Task
from dmaml.report.features.layers import Layers
from dmaml.report.features.projections import separation
from dmaml.report.features.similarity import centred_kernel, cka_matrix
from dmaml.report.names import names_of
from dmaml.report.section import is_picture

_NAMES: Final = {"maml": "MAML", "pretrain": "plain training", "reptile": "Reptile"}


@dataclass(frozen=True)
class State:
    """A network at one moment of a task.

    Attributes:
        layers: of the network, batch norm by the task's support set.
        accuracy: of the task's queries.
    """

    layers: Layers
    accuracy: float


@final
class Subject:
    """One run of the study.

    Args:
        learner: its meta-models.
        name: for people.
        steps: adaptation steps.
    """

    def __init__(self, learner: Learner, name: str, steps: int) -> None:
        self.name = name
        self.steps = steps
        self.learner = learner
        self.pipeline = min(learner.pipelines)

    def choose(self, task: Task) -> None:
        """Take the pipeline that fits a task's support set best for everything."""
        adapted = self.learner.adapt(task.support_x, task.support_y, self.steps)
        self.pipeline = adapted.pipeline

    def states(self, task: Task) -> tuple[State, State]:
        """Return the network before and after adaptation to a task."""
        before, after = (self._state(task, steps) for steps in (0, self.steps))
        return before, after

    def unadapted(self, pool: Tensor) -> Layers:
        """Return the network before adaptation, with a pool's statistics in its batch norms."""
        module = self.learner.module(self.pipeline, like=pool).eval()
        return Layers(module, pool[:1])

    def _state(self, task: Task, steps: int) -> State:
        adapted = self.learner.adapt(task.support_x, task.support_y, steps, self.pipeline)
        labels = np.array(adapted.predict(task.query_x).labels)
        example = torch.from_numpy(task.query_x[:1])
        return State(Layers(adapted.module(), example), float((labels == task.query_y).mean()))


@dataclass(frozen=True)
class Similarity:
    """CKA over tasks, of one run.

    Attributes:
        names: of the blocks.
        tables: float64 `[tasks, blocks before, blocks after]`.
        accuracies: float64 `[tasks, 2]`, before and after adaptation.
        separations: float64 `[tasks, 2]`, silhouettes of the last layer's input.
    """

    names: tuple[str, ...]
    tables: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    separations: NDArray[np.float64]


def similarity(subject: Subject, tasks: Sequence[Task]) -> Similarity:
    """Return CKA between the blocks before and after adaptation, of each task's queries."""
    tables, accuracies, separations = [], [], []
    names: tuple[str, ...] = ()
    for task in tasks:
        x = torch.from_numpy(task.query_x)
        states = subject.states(task)
        names = states[0].layers.names
        given = [one.layers.blocks(x) for one in states]
        kernels = [
            {name: centred_kernel(values.numpy()) for name, values in one.items()} for one in given
        ]
        tables.append(cka_matrix(*kernels))
        accuracies.append([one.accuracy for one in states])
        separations.append([separation(one[names[-2]].numpy(), task.query_y) for one in given])
    return Similarity(names, np.array(tables), np.array(accuracies), np.array(separations))


@dataclass(frozen=True)
class Chosen:
    """A run of a study, and how it adapts.

    Attributes:
        steps: adaptation steps; None: its `evaluation.steps`.
        inner_lr: their rate; None: its own.
    """

    folder: Path
    steps: int | None = None
    inner_lr: float | None = None


def subjects(chosen: Sequence[Chosen], data_dir: Path | None) -> list[Subject]:
    """Return the runs of a study, which must have the same network and pictures.

    Raises:
        RunDirectoryError: no run, or no checkpoint yet.
        ConfigError: the runs do not suit each other, or have no pictures.
    """
    if len({one.folder.resolve() for one in chosen}) < len(chosen):
        raise ConfigError(f"run directory {str(chosen[0].folder)!r} is given twice. Name two runs.")
    learners = [load(one.folder, data_dir=data_dir, inner_lr=one.inner_lr) for one in chosen]
    for learner, one in zip(learners, chosen, strict=True):
        _require_pictures(learner, one.folder)
        _require_same_network(learners[0], learner, one.folder)
    names = _names(learners, [one.folder for one in chosen])
    return [
        Subject(learner, name, learner.config.evaluation.steps if one.steps is None else one.steps)
        for learner, name, one in zip(learners, names, chosen, strict=True)
    ]


def _names(learners: Sequence[Learner], folders: Sequence[Path]) -> list[str]:
    methods = [learner.config.algorithm.name for learner in learners]
    if len(set(methods)) == len(methods):
        return [_NAMES.get(method, method) for method in methods]
    return names_of(folders)


def _require_pictures(learner: Learner, folder: Path) -> None:
    if learner.kind != "classification" or not is_picture(learner.input_shape):
        raise ConfigError(
            f"run {str(folder)!r} learns {learner.kind} from examples of shape "
            f"{learner.input_shape}: a feature study required pictures with classes. "
            "dmaml report shows what it learned."
        )


def _require_same_network(first: Learner, other: Learner, folder: Path) -> None:
    """Raise unless both have the same model section and pictures of the same shape."""
    for what, wanted, found in (
        ("model", first.config.model, other.config.model),
        ("task.source", first.config.task.source, other.config.task.source),
        ("pictures of shape", first.input_shape, other.input_shape),
    ):
        if wanted != found:
            raise ConfigError(
                f"run {str(folder)!r} has {what} {_words(found)}, and the first run has "
                f"{_words(wanted)}: a study compares the same network on the same pictures. "
                "Name another with --against."
            )


def _words(value: object) -> str:
    dump = getattr(value, "model_dump", None)
    return repr(value) if dump is None else repr(dump(mode="json"))
