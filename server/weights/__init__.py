"""Weight generators, by name."""

from __future__ import annotations

from typing import Final

from dmaml.common.plugins import find
from dmaml.common.sections import WeightsSection
from dmaml.server.options import make
from dmaml.server.weights.base import WeightGenerator

GENERATORS: Final[dict[str, str]] = {
    "mean": "dmaml.server.weights.mean:Mean",
    "loss_weighted": "dmaml.server.weights.loss_weighted:LossWeighted",
    "loss_median": "dmaml.server.weights.loss_median:LossMedian",
    "loss_moving_average": "dmaml.server.weights.loss_moving_average:LossMovingAverage",
    "staleness_discount": "dmaml.server.weights.staleness_discount:StalenessDiscount",
}


def build(config: WeightsSection) -> WeightGenerator:
    """Return a fresh weight generator.

    Raises:
        UnknownNameError: no such generator.
        ConfigError: it cannot be imported, or its options do not suit.
    """
    thing = find("weight generator", "dmaml.weight_generators", GENERATORS, config.name)
    generator: WeightGenerator = make(
        "weight generator", config.name, thing, config.options, "weights", "state", "load"
    )
    return generator
