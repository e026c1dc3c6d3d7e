"""`control` and `navigation`: tasks that are environments, told apart by a few numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final, Literal, final

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Int64, Kind, Stream, stream
from dmaml.worker import control
from dmaml.worker.control.rollout import action_bounds, begin, observation_size
from dmaml.worker.tasks.base import SPLITS, SplitName, TaskBatch, Units
from dmaml.worker.tasks.single import draw_units

SEED_BITS: Final = np.uint64(1)  # taken off 64, so that a seed is an int64 >= 0


@final
class Control:
    """Tasks of one family of environments (a `TaskSource` of the kind `control`).

    An episode is the task's parameters and a seed for each of its k_shot + k_query trajectories,
    all drawn from its stream; the algorithm steps the environments. What happens in a trajectory
    is then a function of the policy, the parameters and its seed.

    As there is no pool of tasks, a unit is a split: three units, whose tasks differ by their
    streams alone.

    Args:
        config: the run's.
        environment: a name of `dmaml.worker.control.FAMILIES`, or `package.module:Thing`.
        options: of the family.

    Raises:
        UnknownNameError: no such family.
        ConfigError: it cannot be made, n_way other than 1, or a key of pictures that is not at its
            default.
    """

    kind: Literal["classification", "regression", "control"] = "control"
    num_units = len(SPLITS)
    origin: Units | None = None

    def __init__(self, config: RunConfig, environment: str, **options: Any) -> None:
        self._name = config.task.source
        _check(config)
        self.environments = control.build(environment, options)
        one = self.environments.make(1)
        self.input_shape: tuple[int, ...] = (observation_size(one),)
        self._num_actions = action_bounds(one)[0].size
        self.num_parameters = self.environments.num_parameters
        described = json.dumps(
            ["control 1", environment, options, self.num_parameters, self.environments.horizon],
            sort_keys=True,
        )
        self.digest = hashlib.sha256(described.encode()).hexdigest()
        self._unit_of = stream(config.run.seed, Kind.UNITS).permutation(len(SPLITS))

    def num_outputs(self, n_way: int) -> int:
        """Return the number of actions."""
        return self._num_actions

    def split(self, name: SplitName) -> Units:
        """Return the only unit of a split, int64 `[1]`."""
        number = SPLITS.index(name)
        return self._unit_of[number : number + 1]

    def unit_name(self, unit: int) -> str:
        """Return a name for people."""
        return f"{self._name} ({SPLITS[self._unit_of.tolist().index(unit)]})"

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return one task per stream: where its trajectories begin, and their seeds.

        Raises:
            DataError: no units, or n_way other than 1.
        """
        chosen = draw_units(self._name, streams, units, n_way)
        parameters = np.array([self.environments.draw(one) for one in streams], dtype=np.float32)
        k = k_shot + k_query
        seeds = np.array([one.raw(k) >> SEED_BITS for one in streams]).astype(np.int64)
        x = self._beginnings(parameters, seeds.reshape(len(streams), k))
        return TaskBatch(
            x[:, :k_shot],
            seeds[:, :k_shot],
            x[:, k_shot:],
            seeds[:, k_shot:],
            chosen,
            parameters,
        )

    def _beginnings(self, parameters: Any, seeds: Int64) -> Any:
        """Return the first observation of each trajectory, float32 `[T, k, observation size]`."""
        if not seeds.size:
            return np.zeros((*seeds.shape, *self.input_shape), dtype=np.float32)
        environments = self.environments.make(seeds.size)
        seen = begin(environments, seeds, parameters)
        environments.close()
        return np.asarray(seen, dtype=np.float32).reshape(*seeds.shape, -1)


def navigation(config: RunConfig, preset: str = "paper", horizon: int = 100) -> Control:
    """Return the point that must go to a goal; see `dmaml.worker.control.navigation`.

    Args:
        config: the run's.
        preset: paper, code or promp.
        horizon: time steps of a trajectory.
    """
    return Control(config, "navigation", preset=preset, horizon=horizon)


def _check(config: RunConfig) -> None:
    task = config.task
    if task.n_way != 1:
        raise ConfigError(
            f"task.n_way {task.n_way} with task.source {task.source!r}: control has no classes. "
            "Set task.n_way to 1."
        )
    defaults: dict[str, object] = {"splits": "default", "unit": "class", "rotations": False}
    for key, default in defaults.items():
        if (value := getattr(task, key)) != default:
            raise ConfigError(
                f"task.{key} {value!r} with task.source {task.source!r}: it is about pictures. "
                f"Set it to {default!r}."
            )
