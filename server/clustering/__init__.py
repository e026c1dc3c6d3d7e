"""Clustering strategies, by name."""

from __future__ import annotations

from typing import Final

from dmaml.common.config import ClusteringSection
from dmaml.common.plugins import find
from dmaml.server.clustering.base import Clustering

STRATEGIES: Final[dict[str, str]] = {"none": "dmaml.server.clustering.none:NoClustering"}


def build(config: ClusteringSection) -> Clustering:
    """Return the clustering strategy; raises UnknownNameError."""
    thing = find("clustering", "dmaml.clusterings", STRATEGIES, config.name)
    strategy: Clustering = thing(config, **config.options)
    return strategy
