"""Weight generators, by name."""

from __future__ import annotations

from typing import Final

from dmaml.common.config import WeightsSection
from dmaml.common.plugins import find
from dmaml.server.weights.base import WeightGenerator

GENERATORS: Final[dict[str, str]] = {"mean": "dmaml.server.weights.mean:Mean"}


def build(config: WeightsSection) -> WeightGenerator:
    """Return a fresh weight generator; raises UnknownNameError."""
    thing = find("weight generator", "dmaml.weight_generators", GENERATORS, config.name)
    generator: WeightGenerator = thing(**config.options)
    return generator
