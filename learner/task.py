"""One of a run's own test tasks, as arrays for `Learner.adapt` and `Adapted.predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig, evaluation_shape
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.seeds import Kind
from dmaml.worker.answers import Answerer
from dmaml.worker.tasks.base import SplitName, TaskSource
from dmaml.worker.tasks.episodes import require_episode

_SPLIT: Final[SplitName] = "test"


@dataclass(frozen=True)
class Task:
    """Pictures of some classes. Rows go by label, then example.

    Attributes:
        names: of the classes, by label, which the source gives; their own numbers where it has no
            different ones.
        support_x, query_x: float32 `[N, channels, height, width]`.
        support_y, query_y: labels int64 `[N]`.
    """

    names: tuple[str, ...]
    support_x: NDArray[np.float32]
    support_y: NDArray[np.int64]
    query_x: NDArray[np.float32]
    query_y: NDArray[np.int64]

    def by_name(self) -> Task:
        """Return the same task with labels in the order of the classes' names."""
        order = sorted(range(len(self.names)), key=lambda label: self.names[label])
        place = np.argsort(order)
        support = np.argsort(place[self.support_y], kind="stable")
        query = np.argsort(place[self.query_y], kind="stable")
        return Task(
            tuple(self.names[label] for label in order),
            self.support_x[support],
            place[self.support_y[support]],
            self.query_x[query],
            place[self.query_y[query]],
        )


def drawn_task(answerer: Answerer, config: RunConfig, number: int, most: int | None) -> Task:
    """Return a test task; see `Learner.task`."""
    source = answerer.source
    shape = tuple(source.input_shape)
    if source.kind != "classification" or len(shape) != 3:
        raise ConfigError(
            f"task.source {config.task.source!r} gives examples of shape {shape} for "
            f"{source.kind}: required pictures with classes."
        )
    if number < 0:
        raise ConfigError(f"task {number}: required a number >= 0.")
    k_query = config.evaluation.k_query if most is None else most_queries(source, config, most)
    require_episode(source, _SPLIT, *evaluation_shape(config), k_query)
    numbers = range(number, number + 1)
    batch = answerer.evaluation_tasks(Kind.TEST, _SPLIT, numbers, k_query)
    names = tuple(source.unit_name(int(unit)) for unit in batch.units[0])
    if len(set(names)) < len(names):
        names = tuple(str(label) for label in range(len(names)))
    return Task(names, batch.support_x[0], batch.support_y[0], batch.query_x[0], batch.query_y[0])


def most_queries(source: TaskSource, config: RunConfig, most: int) -> int:
    """Return the largest k_query, at most `most`, for which test tasks can be drawn.

    Raises:
        DataError: not even 1.
    """
    least, beyond = 1, most + 1
    require_episode(source, _SPLIT, *evaluation_shape(config), least)
    while beyond - least > 1:
        middle = (least + beyond) // 2
        try:
            require_episode(source, _SPLIT, *evaluation_shape(config), middle)
            least = middle
        except DataError:
            beyond = middle
    return least
