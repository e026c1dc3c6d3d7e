"""Clustering strategies, by name."""

from __future__ import annotations

from functools import partial
from typing import Final

from dmaml.common.config import RunConfig
from dmaml.common.options import make
from dmaml.common.plugins import find
from dmaml.server.clustering.base import Clustering

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
