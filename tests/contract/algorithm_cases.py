"""Every registered algorithm on a toy source, and the settings with which it learns there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.seeds import Stream
from dmaml.worker import algorithms
from dmaml.worker.tasks.base import SplitName, TaskBatch, Units
from dmaml.worker.tasks.sinusoid import Sinusoid

FEATURES = 4
HERE = "tests.contract.algorithm_cases"


class Points:
    """Classes are points, seen with a little noise; with `shuffled`, query labels say nothing."""

    kind: Literal["classification", "regression"] = "classification"
    input_shape: tuple[int, ...] = (FEATURES,)
    digest = "points 1"
    origin: Units | None = None

    def __init__(self, config: RunConfig, classes: int = 200, shuffled: bool = False) -> None:
        self.num_units = 3 * classes
        self._classes = classes
        self._shuffled = shuffled
        rng = np.random.default_rng(7)
        self._centres = rng.normal(scale=2.0, size=(self.num_units, FEATURES))

    def num_outputs(self, n_way: int) -> int:
        return n_way

    def split(self, name: SplitName) -> Units:
        first = ("train", "validation", "test").index(name) * self._classes
        return np.arange(first, first + self._classes)

    def unit_name(self, unit: int) -> str:
        return f"point {unit}"

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        chosen = np.stack([units[one.permutation(len(units))[:n_way]] for one in streams])
        noise = np.stack([one.normal(n_way, k_shot + k_query, FEATURES) for one in streams])
        x = (self._centres[chosen][:, :, None] + 0.3 * noise).astype(np.float32)
        support_x, query_x = (
            part.reshape(len(streams), -1, FEATURES)
            for part in (x[:, :, :k_shot], x[:, :, k_shot:])
        )
        support_y, query_y = (
            np.tile(np.repeat(np.arange(n_way), k), (len(streams), 1)) for k in (k_shot, k_query)
        )
        batch = TaskBatch(support_x, support_y, query_x, query_y, chosen)
        return without_sense(batch, streams) if self._shuffled else batch


class Waves:
    """The sine waves of `sinusoid`; with `shuffled`, query targets say nothing."""

    kind: Literal["classification", "regression"] = "regression"
    digest = "waves 1"
    origin: Units | None = None

    def __init__(self, config: RunConfig, shuffled: bool = False) -> None:
        self._waves = Sinusoid(config)
        self._shuffled = shuffled
        self.input_shape = self._waves.input_shape
        self.num_units = self._waves.num_units
        self.num_parameters = getattr(self._waves, "num_parameters", 0)

    def num_outputs(self, n_way: int) -> int:
        return self._waves.num_outputs(n_way)

    def split(self, name: SplitName) -> Units:
        return self._waves.split(name)

    def unit_name(self, unit: int) -> str:
        return self._waves.unit_name(unit)

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        batch = self._waves.sample(streams, units, n_way, k_shot, k_query)
        return without_sense(batch, streams) if self._shuffled else batch


def without_sense(batch: TaskBatch, streams: Sequence[Stream]) -> TaskBatch:
    """Return the batch with each task's query labels in another order."""
    rows = zip(batch.query_y, streams, strict=True)
    return replace(batch, query_y=np.stack([y[one.permutation(len(y))] for y, one in rows]))


@dataclass(frozen=True)
class Case:
    """An algorithm with settings.

    Attributes:
        algorithm: the section; `inner_lr` 0.5 unless told.
        regression: on sine waves instead of points.
        classes: of points in each split.
        n_way: of tasks with points.
        tasks: in a contribution.
        rounds, lr: in which it learns, by Adam at this rate.
        learns: to adapt; the pooled problem of all training tasks; or nothing.
        predicts: from examples alone.
    """

    algorithm: dict[str, Any]
    regression: bool = False
    classes: int = 200
    n_way: int = 3
    tasks: int = 8
    rounds: int = 100
    lr: float = 0.01
    learns: Literal["to adapt", "the pooled problem", "nothing"] = "to adapt"
    predicts: bool = True
    model: dict[str, Any] = field(default_factory=dict)

    def config(self, shuffled: bool = False, **sections: dict[str, Any]) -> RunConfig:
        """Return the run's configuration."""
        options = {"shuffled": shuffled} | ({} if self.regression else {"classes": self.classes})
        source = f"{HERE}:{'Waves' if self.regression else 'Points'}"
        n_way, k = (1, 10) if self.regression else (self.n_way, 2)
        values: dict[str, dict[str, Any]] = {
            "task": {
                "source": source, "n_way": n_way, "k_shot": k, "k_query": k, "options": options,
            },
            "model": {"name": "mlp", "hidden": [16], "batch_norm": not self.regression}
            | self.model,
            "algorithm": {"inner_lr": 0.5, "tasks": self.tasks} | self.algorithm,
            "outer": {"name": "adam", "lr": 0.01},
            "evaluation": {"every": 0, "steps": 2, "k_query": 4, "test_tasks": 0},
        }  # fmt: skip
        for name, keys in sections.items():
            values[name] = values.get(name, {}) | keys
        return resolve(from_mapping(values))


SETTINGS: dict[str, dict[str, Any]] = {
    "reptile": {
        "algorithm": {"inner_lr": 0.02, "inner_steps": 5, "options": {"batch_size": 6}},
    },
    "matching": {"algorithm": {"options": {"scale": 10.0}}},
    "lstm": {"algorithm": {"options": {"hidden": 32}}, "tasks": 32, "rounds": 150},
    "mann": {
        "algorithm": {"options": {"hidden": 32, "slots": 8, "width": 8, "heads": 2}},
        "model": {"hidden": []}, "n_way": 2, "tasks": 32, "rounds": 150, "lr": 0.02,
    },
    "scratch": {"learns": "nothing"},
    "pretrain": {"learns": "the pooled problem", "classes": 8},
    "oracle": {"regression": True, "model": {"hidden": [40, 40]}, "predicts": False},
}  # fmt: skip
_LEARNED = {"inner_lr": "learned", "initial_lr": 0.5}
OF_MAML: dict[str, dict[str, Any]] = {
    "first order": {"order": "first"},
    "finite differences": {"order": "finite_difference", "inner_steps": 2},
    "forward over reverse": {"order": "forward_over_reverse", "inner_steps": 2},
    "a rate": _LEARNED | {"per": "scalar"},
    "rates by layer": _LEARNED | {"per": "layer", "inner_steps": 2},
    "rates by layer and step": _LEARNED | {"per": "layer_step", "inner_steps": 2},
    "Meta-SGD": _LEARNED | {"per": "parameter"},
    "MAML++": _LEARNED
    | {
        "per": "layer_step", "inner_steps": 3, "multi_step_rounds": 50, "per_step": "norm*",
        "first_order_rounds": 20,
    },
    "ANIL": {"adapt": "head", "inner_steps": 2},
    "local steps": {"local_steps": 2, "local_lr": 0.1},
}  # fmt: skip


def case(name: str, algorithm: dict[str, Any] | None = None) -> Case:
    """Return a registered algorithm's case, with further keys of its section."""
    settings = SETTINGS.get(name, {})
    section = {"name": name} | settings.get("algorithm", {}) | (algorithm or {})
    return Case(**(settings | {"algorithm": section}))


OF_CONTROL = ("maml_rl",)  # see test_control_algorithms.py
CASES = {name: case(name) for name in algorithms.ALGORITHMS if name not in OF_CONTROL} | {
    f"maml, {name}": case("maml", section) for name, section in OF_MAML.items()
}
