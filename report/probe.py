"""What the trained meta-model does on single tasks: the examples, and its answers by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from dmaml.common import checkpoint as checkpoints
from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig, evaluation_shape
from dmaml.common.seeds import Kind
from dmaml.learner.router import Router
from dmaml.worker.answers import Answerer
from dmaml.worker.models.base import params_of
from dmaml.worker.tasks.base import SplitName, TaskBatch
from dmaml.worker.tasks.episodes import require_episode

SPLIT: SplitName = "test"
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Episode:
    """One test task and the model's answers to it.

    Attributes:
        number: of the task.
        names: of its classes, by label; empty in regression.
        support_x, query_x: float32 `[N, *input_shape]`.
        support_y, query_y: labels int64 `[N]`, or targets float32 `[N, outputs]`.
        answers: steps -> outputs for the queries, float32 `[N, outputs]`: probabilities, or values.
        pipeline: whose meta-model answered.
    """

    number: int
    names: tuple[str, ...]
    support_x: Float32
    support_y: NDArray[np.int64] | Float32
    query_x: Float32
    query_y: NDArray[np.int64] | Float32
    answers: dict[int, Float32]
    pipeline: int = 0

    @property
    def last(self) -> int:
        """The number of steps after which the answers count."""
        return max(self.answers)

    def accuracy(self, steps: int) -> float:
        """Return the share of queries whose most probable class is right."""
        return float((self.answers[steps].argmax(axis=1) == self.query_y).mean())

    def loss(self, steps: int) -> float:
        """Return the mean of −ln of the right class's probability."""
        right = self.answers[steps][np.arange(len(self.query_y)), self.query_y]
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    def error(self, steps: int) -> float:
        """Return the mean squared error of the values."""
        return float(np.square(self.answers[steps] - self.query_y).mean())


@final
class Trained:
    """A run's meta-models with their task source.

    Of several pipelines, the one that a task's support set is routed to answers it (`Router`).

    Args:
        checkpoint: whose parameters.

    Raises:
        BadInputError: no data, or a plug-in that is not there.
    """

    def __init__(self, config: RunConfig, checkpoint: Checkpoint, data_dir: Path | None) -> None:
        layout = checkpoints.layout_of(checkpoint)
        self.config = config
        self.version = int(checkpoint.meta["progress"]["version"])
        self._answerer = Answerer(config, data_dir)
        self.source = self._answerer.source
        self._router = Router(config, checkpoint, self.source)
        self._params = {
            pipeline: self._answerer.calibrated(params_of(layout, np.array(theta, dtype="<f4")))
            for pipeline, theta in sorted(checkpoints.thetas_of(checkpoint).items())
        }

    def episodes(
        self,
        tasks: int,
        steps: tuple[int, ...],
        k_query: int | None = None,
        is_late: Callable[[], bool] = lambda: False,
    ) -> list[Episode]:
        """Return the first test tasks with the answers after each number of steps.

        Inductive: batch norm takes the statistics of the support set, or of training tasks where
        the method is calibrated by them.

        Args:
            tasks: how many at most.
            k_query: query examples per class; None: `evaluation.k_query`.
            is_late: asked after each task; no more are done once it is.
        """
        torch.set_num_threads(self.config.run.threads)
        k = k_query or self.config.evaluation.k_query
        require_episode(self.source, SPLIT, *evaluation_shape(self.config), k)
        found: list[Episode] = []
        for number in range(tasks):
            found.append(self._episode(number, steps, k))
            if is_late():
                break
        return found

    def _episode(self, number: int, steps: tuple[int, ...], k_query: int) -> Episode:
        batch: TaskBatch = self._answerer.evaluation_tasks(
            Kind.TEST, SPLIT, range(number, number + 1), k_query
        )
        names = tuple(self.source.unit_name(int(unit)) for unit in batch.units[0])
        episode = Episode(
            number, names if self.source.kind == "classification" else (),
            batch.support_x[0], batch.support_y[0], batch.query_x[0], batch.query_y[0], {},
        )  # fmt: skip
        pipeline = self._choose(episode, max(steps))
        answers = {count: self._answer(pipeline, episode, count) for count in steps}
        return replace(episode, answers=answers, pipeline=pipeline)

    def _choose(self, episode: Episode, steps: int) -> int:
        """Return the pipeline that a task is routed to."""
        own = replace(episode, query_x=episode.support_x, query_y=episode.support_y)

        def losses() -> NDArray[np.float64]:
            made = [
                replace(own, answers={steps: self._answer(pipeline, own, steps)})
                for pipeline in self._params
            ]
            return np.array([[one.loss(steps) if one.names else one.error(steps) for one in made]])

        return self._router.route(own.support_x[None], own.support_y[None], losses).first()[0]

    def _answer(self, pipeline: int, episode: Episode, steps: int) -> Float32:
        support_x, support_y, query_x = (
            torch.from_numpy(np.ascontiguousarray(part))
            for part in (episode.support_x, episode.support_y, episode.query_x)
        )
        outputs = self._answerer.algorithm.predict(
            self._params[pipeline], support_x, support_y, query_x, steps
        ).detach()
        answer: Float32 = (outputs.softmax(1) if episode.names else outputs).numpy()
        return answer


def after_cpu_seconds(seconds: float) -> Callable[[], bool]:
    """Return what says whether this process has computed for so many seconds since now.

    Its own time and not the clock's: a machine that is busy elsewhere gives the same report.
    """
    end = time.process_time() + seconds
    return lambda: time.process_time() >= end
