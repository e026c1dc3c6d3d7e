"""Clustering strategies that only tests use: they do what a real one might."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.gamma import Gamma
from dmaml.common.probes import Probe, ProbeKind
from dmaml.server.clustering import tree
from dmaml.server.clustering.base import Observations, State
from dmaml.server.core.progress import Progress

DUE = (0, 2, 3)  # TRAIN rounds before each probe


class Splitter:
    """Two roots, halved by number; then by losses; then pipeline 0 is split by gradients."""

    def __init__(self, config: RunConfig, tasks: int = 12) -> None:
        self._probes = (
            Probe(ProbeKind.UNITS),
            Probe(ProbeKind.LOSSES, tasks=tasks),
            Probe(ProbeKind.SKETCHES, pipeline=0, tasks=tasks, dims=8),
        )

    def initial(self) -> State:
        return State({"step": 0, "tree": tree.roots(2)})

    def plan(self, state: State, progress: Progress) -> Probe | None:
        step = state.values["step"]
        is_due = step < len(DUE) and progress.trained >= DUE[step]
        return self._probes[step] if is_due else None

    def observe(self, state: State, observations: Observations) -> State:
        step, nodes = state.values["step"], state.values["tree"]
        units, values = observations.units, observations.values
        sums = np.zeros((observations.num_units, max(values.shape[1], 1)))
        if step:
            np.add.at(sums, units, values)
        if step == 0:
            gamma = halves(np.arange(observations.num_units) % 2 == 0)
        elif step == 1:
            shift = 0.25 * np.tanh(sums[:, 1] - sums[:, 0])
            gamma = state.arrays["gamma"] + np.stack([shift, -shift], axis=1)
            gamma = np.clip(gamma, 0, 1)
            gamma = gamma / gamma.sum(axis=1, keepdims=True)
        else:
            before, is_left = state.arrays["gamma"], sums[:, 0] > 0
            nodes = tree.retired(tree.opened(nodes, 0, 2, observations.trained), [0])
            own = before[:, :1] * halves(is_left)
            gamma = np.concatenate([before[:, 1:], own], axis=1)
        return State({"step": step + 1, "tree": nodes}, {"gamma": gamma.astype(np.float32)})

    def route(self, state: State) -> Gamma:
        nodes = state.values["tree"]
        matrix = state.arrays.get("gamma", np.zeros((0, 2), dtype=np.float32))
        return Gamma(state.values["step"], tree.active(nodes), matrix, tree.pipelines_of(nodes))


class Lonely:
    """Pipeline 1 gets one training unit and pipeline 2 none; or all three get a third each."""

    def __init__(self, config: RunConfig, thirds: bool = False) -> None:
        self._thirds = thirds

    def initial(self) -> State:
        return State({"version": 0})

    def plan(self, state: State, progress: Progress) -> Probe | None:
        return Probe(ProbeKind.UNITS) if not state.values["version"] else None

    def observe(self, state: State, observations: Observations) -> State:
        gamma = np.zeros((observations.num_units, 3), dtype=np.float32)
        if self._thirds:
            gamma[np.arange(len(gamma)), np.arange(len(gamma)) % 3] = 1.0
        else:
            gamma[:, 0] = 1.0
            gamma[observations.units[0]] = [0.0, 1.0, 0.0]
        return State({"version": 1}, {"gamma": gamma})

    def route(self, state: State) -> Gamma:
        matrix: Any = state.arrays.get("gamma", np.zeros((0, 3), dtype=np.float32))
        return Gamma(state.values["version"], (0, 1, 2), matrix)


def halves(is_left: Any) -> Any:
    """Return two columns, .75 where it is so and .25 where it is not."""
    left = np.where(is_left, 0.75, 0.25)
    return np.stack([left, 1 - left], axis=1)
