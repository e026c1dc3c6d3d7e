"""The contract of task sources, and the batch they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Stream

Units = NDArray[np.int64]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskBatch:
    """`T` episodes, stacked.

    Attributes:
        support_x: float32 `[T, n_way * k_shot, *input_shape]`.
        support_y: int64 labels 0 .. n_way - 1 `[T, n_way * k_shot]`, or float32
            `[T, k_shot, outputs]` for regression.
            Control: x are the observations that k_shot trajectories begin with, float32
            `[T, k_shot, *input_shape]`, and y the seeds of all that is random in them, int64
            `[T, k_shot]`, >= 0.
        query_x, query_y: the same with k_query in place of k_shot.
        units: int64 `[T, n_way]`, the unit of each label (column = label).
        parameters: float32 `[T, P]`, the numbers that describe each task, where the source has
            such (`num_parameters`); the baseline `oracle` is told them, and those of control tasks
            say which environment it is. No other algorithm reads them.
    """

    support_x: NDArray[np.float32]
    support_y: NDArray[Any]
    query_x: NDArray[np.float32]
    query_y: NDArray[Any]
    units: Units
    parameters: NDArray[np.float32] | None = None

    @property
    def num_tasks(self) -> int:
        """Number of episodes T."""
        return int(self.support_x.shape[0])

    def select(self, tasks: NDArray[np.int64]) -> TaskBatch:
        """Return the episodes with these numbers, int64 `[n]`, in this order."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(
            self, **{name: value[tasks] for name, value in values.items() if value is not None}
        )


class TaskSource(Protocol):
    """Where tasks come from. Pure: the same stream gives the same episode, anywhere.

    Attributes:
        kind: what the labels are.
        input_shape: shape of one example, `(channels, height, width)` or `(features,)`.
        num_units: how many units there are; unit ids are 0 .. num_units - 1, shuffled by the seed.
        digest: SHA-256 in hexadecimal of everything that the episodes are drawn from.
        origin: int64 `[num_units]`, the true cluster of each unit where one is known; it is used
            to score clusterings and never to train.

    A source whose tasks are described by P numbers says so by `num_parameters`, and puts them into
    `TaskBatch.parameters`. One of control tasks has the attribute `environments`, a
    `dmaml.worker.control.base.Family`.
    """

    kind: Literal["classification", "regression", "control"]
    input_shape: tuple[int, ...]
    num_units: int
    digest: str
    origin: Units | None

    def num_outputs(self, n_way: int) -> int:
        """Return the width of the model's last layer."""
        ...

    def split(self, name: SplitName) -> Units:
        """Return the ids of the units of a split, int64, sorted."""
        ...

    def unit_name(self, unit: int) -> str:
        """Return a name for people."""
        ...

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return one episode per stream, drawn from `units` alone, whatever their order.

        An episode is a function of its own stream and the set of units: neither the other
        streams of the call nor earlier calls change it.

        Raises:
            TooFewUnitsError: the units have too few classes; a pipeline that is routed no more
                sits out.
            DataError: a class has too few examples.
        """
        ...
