"""The answer to a work item: a pure function of the configuration, the parameters and the item."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig, evaluation_shape
from dmaml.common.errors import ConfigError, ProtocolError, TooFewUnitsError
from dmaml.common.gamma import Gamma, single
from dmaml.common.items import ItemKind, WorkItem, evaluate_tasks, train_tasks
from dmaml.common.layout import Flat, Layout
from dmaml.common.probes import Observation, Probe
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms, probes, routing, tasks
from dmaml.worker.algorithms.base import Algorithm, Context
from dmaml.worker.discriminant import Discriminant, discriminant_of
from dmaml.worker.faults import has_fault, scaled, with_shuffled_labels
from dmaml.worker.models.base import Params, params_of
from dmaml.worker.tasks.base import SplitName, TaskBatch, TaskSource, Units
from dmaml.worker.tasks.episodes import require_episode


@dataclass(frozen=True)
class Answer:
    """What is pushed.

    Attributes:
        flat: gradient (TRAIN) or parameters (INIT), float32 `[d]`; the values of an observation
            (PROBE); empty for EVALUATE, and where γ leaves a pipeline too few units.
        layout: of INIT.
        tables: of EVALUATE, float64 `[tasks, steps + 1]` by metric.
        observation: of PROBE.
    """

    flat: Flat
    loss: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    num_tasks: int = 0
    layout: Layout | None = None
    tables: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    observation: Observation | None = None


CALIBRATION: Final = 1000  # examples of training tasks, at least

_EMPTY: Flat = np.empty(0, dtype="<f4")
NOTHING: Final[Mapping[int, Flat]] = MappingProxyType({})


@final
class Answerer:
    """A task source and an algorithm, ready to answer any item of one run."""

    def __init__(self, config: RunConfig, data_dir: Path | None = None) -> None:
        self._config = config
        self.source: TaskSource = tasks.build(config, data_dir)
        require_tasks(config, self.source)
        require_no_control(config, self.source)
        num_outputs = self.source.num_outputs(config.task.n_way)
        self.algorithm: Algorithm = algorithms.build(
            config,
            self.source.kind,
            self.source.input_shape,
            num_outputs,
            self.source.num_units,
            getattr(self.source, "num_parameters", 0),
            getattr(self.source, "environments", None),
        )

    def draw(self, item: WorkItem, gamma: Gamma | None = None) -> list[TaskBatch]:
        """Return the item's batches: one per local step of TRAIN, one of EVALUATE, no others.

        TRAIN draws from the units that γ routes to its pipeline (None: all); where these are too
        few for a task there are no batches.
        """
        config = self._config
        if item.kind is ItemKind.TRAIN:
            steps = config.algorithm.local_steps
            numbers = train_tasks(config, item)
            units = self.source.split("train")
            if gamma is None or not len(gamma.matrix):
                return [
                    self._train(item, item.index * steps + e, numbers, units) for e in range(steps)
                ]
            own = gamma.route(units, item.pipeline)
            try:
                return [
                    self._train(item, item.index * steps + e, numbers, own) for e in range(steps)
                ]
            except TooFewUnitsError:  # of all the units a task can be drawn: these are too few
                return []
        if item.kind is ItemKind.EVALUATE:
            split = config.evaluation.split
            return [self.evaluation_tasks(Kind.EVALUATE, split, evaluate_tasks(config, item))]
        return []

    def answer(
        self,
        item: WorkItem,
        theta: Flat,
        layout: Layout | None,
        batches: list[TaskBatch],
        others: Mapping[int, Flat] = NOTHING,
        probe: Probe | None = None,
        gamma: Gamma | None = None,
    ) -> Answer:
        """Return the answer.

        Args:
            theta: the parameters of the item's base version, float32 `[d]` (not of INIT).
            layout: their layout.
            batches: what `draw` gave.
            others: those of the other pipelines, by id (PROBE and EVALUATE only).
            probe: what a PROBE item asks for.
            gamma: the item's γ; None: there is one pipeline, or it is not known.
        """
        if item.kind is ItemKind.INIT:
            return self._init(item)
        if layout is None:
            raise ProtocolError(f"{item} needs parameters.")
        params = params_of(layout, theta)
        if item.kind is ItemKind.TRAIN:
            return self._contribute(item, params, layout, batches)
        thetas = {item.pipeline: params} | {p: params_of(layout, t) for p, t in others.items()}
        if item.kind is ItemKind.EVALUATE:
            steps = self._config.evaluation.steps
            every = [self.calibrated(thetas[pipeline]) for pipeline in sorted(thetas)]
            discriminant = self._discriminant(layout, {item.pipeline: theta} | dict(others), gamma)
            found = routing.evaluate(self.algorithm, every, batches[0], steps, discriminant).metrics
            return Answer(_EMPTY, num_tasks=batches[0].num_tasks, tables=found)
        if probe is None:
            raise ProtocolError(f"{item} came without what it asks for.")
        observation = probes.observe(
            self._config, self.source, self.algorithm, item, probe, gamma or single(), thetas
        )
        flat = observation.values.ravel()
        return Answer(flat, num_tasks=len(observation.units), observation=observation)

    def evaluation_tasks(
        self,
        kind: Kind,
        split: SplitName,
        numbers: range,
        k_query: int | None = None,
        pipeline: int = 0,
    ) -> TaskBatch:
        """Return the fixed evaluation tasks of these numbers."""
        config = self._config
        streams = [stream(config.run.seed, kind, 0, pipeline, j) for j in numbers]
        units = self.source.split(split)
        k = config.evaluation.k_query if k_query is None else k_query
        return self.source.sample(streams, units, *evaluation_shape(config), k)

    def calibrated(self, params: Params) -> Params:
        """Return what the algorithm evaluates and predicts with: see `Algorithm`."""
        calibrate = getattr(self.algorithm, "calibrated", None)
        if calibrate is None:
            return params
        task = self._config.task
        shape = (task.n_way, task.k_shot, task.k_query)
        count = math.ceil(CALIBRATION / (task.n_way * (task.k_shot + task.k_query)))
        streams = [stream(self._config.run.seed, Kind.CALIBRATE, 0, 0, j) for j in range(count)]
        batch = self.source.sample(streams, self.source.split("train"), *shape)
        calibrated: Params = calibrate(params, batch)
        return calibrated

    def _train(self, item: WorkItem, index: int, numbers: range, units: Units) -> TaskBatch:
        config = self._config
        seed, pipeline = config.run.seed, item.pipeline
        streams = [stream(seed, Kind.TRAIN, index, pipeline, j) for j in numbers]
        task = config.task
        batch = self.source.sample(streams, units, task.n_way, task.k_shot, task.k_query)
        if has_fault(config.faults, item, "shuffled_labels"):
            own = [stream(seed, Kind.FAULT, index, pipeline, j) for j in numbers]
            batch = with_shuffled_labels(batch, own)
        return batch

    def _contribute(
        self, item: WorkItem, params: Params, layout: Layout, batches: list[TaskBatch]
    ) -> Answer:
        if not batches:
            return Answer(_EMPTY)
        config = self._config
        place = item.slot * config.topology.parts + item.part
        own = stream(config.run.seed, Kind.CONTEXT, item.index, item.pipeline, place)
        context = Context(item.index, config.run.rounds, own)
        given = iter(batches)
        found = self.algorithm.contribution(params, lambda: next(given), context)
        gradient = layout.flatten({n: t.detach().numpy() for n, t in found.gradient.items()})
        if has_fault(config.faults, item, "scaled_gradient"):
            gradient = scaled(gradient, config.faults.scale)
        return Answer(gradient, found.loss, found.metrics, found.num_tasks)

    def _discriminant(
        self, layout: Layout, thetas: Mapping[int, Flat], gamma: Gamma | None
    ) -> Discriminant | None:
        if len(thetas) == 1 or gamma is None:
            return None
        every = [thetas[pipeline] for pipeline in gamma.pipelines]
        return discriminant_of(self._config, self.source, gamma.matrix, layout, every)

    def _init(self, item: WorkItem) -> Answer:
        own = stream(self._config.run.seed, Kind.INIT, 0, item.pipeline)
        params = self.algorithm.init(own)
        arrays = {name: tensor.detach().numpy() for name, tensor in params.items()}
        layout = Layout.of(arrays)
        return Answer(layout.flatten(arrays), layout=layout)


def require_tasks(config: RunConfig, source: TaskSource) -> None:
    """Raise unless the source can give the run's training and validation tasks.

    Raises:
        DataError: too few classes in a split, or too few examples in a class.
    """
    task, evaluation = config.task, config.evaluation
    require_episode(source, "train", task.n_way, task.k_shot, task.k_query)
    shape = evaluation_shape(config)
    if evaluation.every:
        require_episode(source, evaluation.split, *shape, evaluation.k_query)
    if evaluation.test_tasks:
        require_episode(source, "test", *shape, evaluation.k_query)


def require_no_control(config: RunConfig, source: TaskSource) -> None:
    """Raise where control tasks are to be clustered.

    Raises:
        ConfigError: they are.
    """
    if source.kind == "control" and config.clustering.name != "none":
        raise ConfigError(
            f"clustering.name {config.clustering.name!r} with task.source {config.task.source!r}: "
            "control tasks cannot be probed. Set clustering.name to none."
        )
