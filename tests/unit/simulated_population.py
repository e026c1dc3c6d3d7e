"""Units of known origins, and pipelines that get better at what they are trained on: numbers only.

What a clustering strategy sees of a run, without models and tasks: it is asked by `plan`, answered
by `World.answer`, and trains by `World.train`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig
from dmaml.common.gamma import ROOT, Gamma, columns_of
from dmaml.common.probes import FEATURES, Probe, ProbeKind, rows_of
from dmaml.report import scores
from dmaml.server.clustering.base import Observations
from dmaml.server.clustering.clusterer import Clusterer
from dmaml.server.core.progress import Progress


@dataclass
class World:
    """A source of units and the pipelines that train on them.

    A pipeline's skill in an origin moves towards the share of its tasks that are of it. A sample's
    loss is (hardness of its task) + effect (1 - skill) (its unit's own factor) + what is wrong
    with the pipeline as a whole + noise; a feature is its origin's centre + noise.

    Attributes:
        sizes: units of each origin.
        effect: mean difference of a sample's loss between a pipeline that is good at its origin
            and one that knows nothing of it.
        noise: standard deviation of a sample's loss under one pipeline; of its variance .25 is the
            task's, .06 the task's with the pipeline, .36 the sample's, the rest its own.
        apart: distance of the origins' centres, in deviations of a unit's features.
        by_source: every origin with units enough is as likely to give the next task, as in the
            source `mixed`; else by the number of units.
        unrest: standard deviation, in effects, of how much better a pipeline is at everything in
            one PROBE round.
        first_look: what the first features are of instead, a group of each unit.
        named: what the origins are called, which nothing but `recovery` reads.
    """

    sizes: tuple[int, ...]
    seed: int
    n_way: int = 5
    k_query: int = 3
    effect: float = 1.0
    noise: float = 1.0
    apart: float = 3.0
    by_source: bool = True
    dims: int = 24
    unrest: float = 0.5
    first_look: Callable[[Any], Any] | None = None
    named: tuple[int, ...] | None = None
    skills: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        number = sum(self.sizes)
        self.num_units = number + 20  # those of validation and test
        order = self.random.permutation(self.num_units)
        self.trained = np.sort(order[:number])
        self.origin = np.full(self.num_units, -1)
        self.origin[order[:number]] = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self.names = np.array(self.named or range(len(self.sizes)))[self.origin]
        self.factor = self.random.uniform(0.6, 1.4, self.num_units)
        direction = np.linalg.qr(self.random.normal(size=(self.dims, self.dims)))[0]
        self.centres = direction[: len(self.sizes)] * self.apart / np.sqrt(2)
        self.features = self.centres[self.origin] + self.random.normal(
            size=(self.num_units, self.dims)
        )

    def train(self, gamma: Gamma, rounds: int) -> None:
        """Train every pipeline on the units that are routed to it."""
        for node in gamma.nodes:
            if node.number not in self.skills:
                start = np.zeros(len(self.sizes))
                self.skills[node.number] = (
                    start if node.parent == ROOT else self.skills[node.parent]
                )
        for pipeline in gamma.pipelines:
            own = gamma.route(self.trained, pipeline)
            counts = np.bincount(self.origin[own], minlength=len(self.sizes)).astype(float)
            tasks = np.where(counts >= self.n_way, counts, 0.0)
            if not tasks.any():
                continue
            share = (tasks > 0) if self.by_source else tasks
            goal = share / share.sum() * counts / (counts + 5)  # few units are learned by heart
            before = self.skills[pipeline]
            self.skills[pipeline] = goal + (before - goal) * 0.75 ** (rounds / 50)

    def answer(self, probe: Probe, gamma: Gamma, trained: int) -> Observations:
        """Return what the actors would."""
        self.train(gamma, 0)
        units, values = self._rows(probe, gamma)
        values = values.astype(np.float32)
        return Observations(probe, trained, gamma.pipelines, self.num_units, units, values)

    def _rows(self, probe: Probe, gamma: Gamma) -> tuple[Any, Any]:
        if probe.kind is ProbeKind.UNITS:
            return self.trained, np.empty((0, 0))
        if probe.kind in FEATURES:
            units = np.repeat(self.trained, probe.samples)
            features, look = self.features[units], self.first_look
            if look is not None:
                features = 3 * np.eye(self.dims)[look(self.origin)[units]]
                self.first_look = None
            return units, features + self.random.normal(size=(len(units), self.dims))
        from_all = probe.kind is ProbeKind.LOSSES
        own = self.trained if from_all else gamma.route(self.trained, probe.pipeline)
        groups = self._tasks(own, probe.tasks)
        if not from_all:
            noise = 2.0 * self.random.normal(size=(groups.size, self.dims))
            return groups.ravel(), self.features[groups.ravel()] + noise
        return rows_of(groups.ravel(), groups.size * self.k_query), self._losses(groups, gamma)

    def _tasks(self, own: Any, count: int) -> Any:
        origins = [o for o in range(len(self.sizes)) if (self.origin[own] == o).sum() >= self.n_way]
        pools = [own[self.origin[own] == o] for o in origins]
        chosen = self.random.integers(len(pools), size=count)
        groups = np.empty((count, self.n_way), dtype=np.int64)
        for number, pool in enumerate(pools):
            tasks = np.flatnonzero(chosen == number)
            keys = self.random.random((len(tasks), len(pool)))
            groups[tasks] = pool[keys.argsort(axis=1)[:, : self.n_way]]
        return groups

    def _losses(self, groups: Any, gamma: Gamma) -> Any:
        count, shape = len(gamma.pipelines), (*groups.shape, self.k_query)
        skill = np.stack([self.skills[p] for p in gamma.pipelines])
        origin = self.origin[groups]
        lack = (1 - skill[:, origin]) * self.factor[groups] * self.effect  # [P, tasks, n_way]
        overall = self.random.normal(size=(count, 1, 1)) * self.unrest * self.effect
        task = self.random.normal(size=(1, len(groups), 1))
        paired = self.random.normal(size=(count, len(groups), 1))
        sample, own = self.random.normal(size=(1, *shape)), self.random.normal(size=(count, *shape))
        of_task = lack + overall + self.noise * (0.5 * task + 0.25 * paired)
        losses = of_task[..., None] + self.noise * (0.6 * sample + 0.57 * own)
        return losses.reshape(count, -1).T


@dataclass
class Story:
    """What became of a strategy in a world.

    Attributes:
        recoveries: after every PROBE round with more than one pipeline.
        probes: the kinds that were asked for.
    """

    clusterer: Clusterer
    recoveries: list[list[float]]
    probes: list[ProbeKind]


def live(config: RunConfig, world: World, rounds: int, is_stored: bool = False) -> Story:
    """Let a strategy and its world go on for so many TRAIN rounds, under the contract's checks.

    Args:
        is_stored: at every step the state goes through JSON and copies of its arrays.
    """
    clusterer, progress = Clusterer(config), Progress()
    story = Story(clusterer, [], [])
    while progress.trained < rounds:
        if is_stored:
            values = json.loads(json.dumps(clusterer.values()))
            arrays = {name: array.copy() for name, array in clusterer.tensors().items()}
            clusterer = Clusterer(config, Checkpoint(1, arrays, {"clustering": values}))
        probe = clusterer.plan(progress)
        if probe is None:
            world.train(clusterer.gamma, 10)
            progress = progress._replace(trained=progress.trained + 10)
            continue
        clusterer.observe(world.answer(probe, clusterer.gamma, progress.trained))
        gamma = clusterer.adopt()
        story.probes.append(probe.kind)
        if len(gamma.pipelines) > 1:
            story.recoveries.append(recovery(gamma, world))
    story.clusterer = clusterer
    return story


def recovery(gamma: Gamma, world: World) -> list[float]:
    """Return the share of each origin that is where it belongs."""
    columns = columns_of(gamma.matrix[world.trained])
    return scores.recovery(columns, world.names[world.trained], len(gamma.pipelines))
