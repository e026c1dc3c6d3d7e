"""Clustering strategies, by name."""

from __future__ import annotations

from functools import partial
from typing import Final

from dmaml.common.config import RunConfig
from dmaml.common.options import make
from dmaml.common.plugins import find
from dmaml.server.clustering.base import Clustering
from dmaml.server.core.progress import Progress

PAGE: Final = "docs/clustering.md"
STRATEGIES: Final[dict[str, str]] = {
    "none": "dmaml.server.clustering.none:NoClustering",
    "kmeans": "dmaml.server.clustering.kmeans:KMeans",
    "gamma": "dmaml.server.clustering.gamma:GammaSteps",
    "mixture": "dmaml.server.clustering.mixture:Mixture",
    "gradient_tree": "dmaml.server.clustering.gradient_tree:GradientTree",
}


def build(config: RunConfig) -> Clustering:
    """Return the run's clustering strategy.

    Raises:
        UnknownNameError: no such strategy.
        ConfigError: it cannot be imported, or its options do not suit.
    """
    section = config.clustering
    thing = find("clustering", "dmaml.clusterings", STRATEGIES, section.name)
    strategy: Clustering = make(
        "clustering", section.name, partial(thing, config), section.options,
        "initial", "plan", "observe", "route", page=PAGE,
    )  # fmt: skip
    return strategy


def never_asked(config: RunConfig) -> str:
    """Return a sentence if the run ends before its strategy asks for anything, else nothing.

    Such a run trains one pipeline on everything; it may still be made longer.
    """
    name, rounds = config.clustering.name, config.run.rounds
    if name == "none" or not rounds:
        return ""
    strategy = build(config)
    last = Progress(trained=rounds - 1, version=rounds - 1)
    if strategy.plan(strategy.initial(), last) is not None:
        return ""
    return (
        f"clustering {name!r} asks for nothing before run.rounds {rounds} are over: everything is "
        f"learned as at the start. Raise run.rounds, or lower its options ({PAGE})."
    )
