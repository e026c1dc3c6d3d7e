"""Aggregation rules, by name."""

from __future__ import annotations

from typing import Final

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.plugins import find
from dmaml.common.sections import AggregationSection
from dmaml.server.aggregation.base import AggregationRule
from dmaml.server.options import make

RULES: Final[dict[str, str]] = {
    "mean": "dmaml.server.aggregation.mean:Mean",
    "sum": "dmaml.server.aggregation.sum:Sum",
    "median": "dmaml.server.aggregation.median:Median",
    "trimmed_mean": "dmaml.server.aggregation.trimmed_mean:TrimmedMean",
    "krum": "dmaml.server.aggregation.krum:Krum",
    "multi_krum": "dmaml.server.aggregation.multi_krum:MultiKrum",
    "clip": "dmaml.server.aggregation.clip:Clip",
}


def build(config: AggregationSection, num_slots: int | None = None) -> AggregationRule:
    """Return the aggregation rule.

    Args:
        num_slots: contributions of a round, if it is to be checked that they are enough.

    Raises:
        UnknownNameError: no such rule.
        ConfigError: it cannot be imported, its options do not suit, or it needs more slots.
    """
    thing = find("aggregation rule", "dmaml.aggregation_rules", RULES, config.name)
    rule: AggregationRule = make("aggregation rule", config.name, thing, config.options, "combine")
    required = num_required(rule)
    if num_slots is not None and num_slots < required:
        raise ConfigError(
            f"aggregation rule {config.name!r} with options {config.options} needs {required} "
            f"contributions, a commit may have only {num_slots}. Raise topology.slots (and "
            f"sync.quorum in mode quorum) to {required}, or take mode sync instead of async, "
            "or lower aggregation.options.num_byzantine."
        )
    return rule


def check(config: RunConfig) -> None:
    """Raise unless the run's rule can be made, has enough contributions, and does something.

    A rule that leaves out some of them may have a method `idle(n)` that says why it leaves out
    none of n, or "": then it would be another rule in silence.

    Raises:
        UnknownNameError: no such rule.
        ConfigError: as `build`; or with as many contributions as a commit has it is idle.
    """
    rule = build(config.aggregation, configuration.num_contributions(config))
    idle = getattr(rule, "idle", None)
    reason = idle(configuration.usual_contributions(config)) if idle else ""
    if reason:
        raise ConfigError(f"aggregation rule {config.aggregation.name!r}: {reason}")


def after_voids(rule: AggregationRule, num_voids: int) -> AggregationRule:
    """Return the rule for a commit in which so many contributions are void and left out already.

    A rule that bounds how many are byzantine has a method `without`: a void one is one of these
    that is known. Other rules stay as they are.
    """
    without = getattr(rule, "without", None)
    found: AggregationRule = without(num_voids) if without and num_voids else rule
    return found


def num_required(rule: AggregationRule) -> int:
    """Return the contributions below which the rule gives up; 1 for most."""
    return int(getattr(rule, "num_required", 1))
