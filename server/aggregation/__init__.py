"""Aggregation rules, by name."""

from __future__ import annotations

from typing import Final

from dmaml.common.config import AggregationSection
from dmaml.common.plugins import find
from dmaml.server.aggregation.base import AggregationRule

RULES: Final[dict[str, str]] = {"mean": "dmaml.server.aggregation.mean:Mean"}


def build(config: AggregationSection) -> AggregationRule:
    """Return the aggregation rule; raises UnknownNameError."""
    thing = find("aggregation rule", "dmaml.aggregation_rules", RULES, config.name)
    rule: AggregationRule = thing(**config.options)
    return rule
