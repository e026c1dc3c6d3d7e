"""Answers to PROBE items: what a clustering strategy asked of units, under θ. Pure functions.

No function here reads `origin`, the true cluster of a unit.
"""

from __future__ import annotations

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.gamma import Gamma
from dmaml.common.items import WorkItem, probe_share
from dmaml.common.probes import FEATURES, Observation, Probe, ProbeKind
from dmaml.worker.algorithms.base import Algorithm
from dmaml.worker.models.base import Params
from dmaml.worker.probes.features import features
from dmaml.worker.probes.losses import query_losses
from dmaml.worker.probes.sketches import sketches
from dmaml.worker.tasks.base import TaskSource


def observe(
    config: RunConfig,
    source: TaskSource,
    algorithm: Algorithm,
    item: WorkItem,
    probe: Probe,
    gamma: Gamma,
    thetas: dict[int, Params],
) -> Observation:
    """Return an item's share of what a PROBE round asks for.

    Features and units are shared out by unit, losses and sketches by task; each unit or task has
    a stream of its own, so that the shares together do not depend on their number.

    Args:
        item: of kind PROBE.
        gamma: in force.
        thetas: parameters of every active pipeline.
    """
    trained = source.split("train")
    if probe.kind in FEATURES or probe.kind is ProbeKind.UNITS:
        share = probe_share(config, item, len(trained))
        units = trained[share.start : share.stop]
        values = np.empty((0, 0), dtype=np.float32)
        if probe.kind in FEATURES:
            values = features(config, source, probe, item.index, units, thetas)
        return Observation(source.num_units, units, values)
    numbers = probe_share(config, item, probe.tasks)
    if probe.kind is ProbeKind.LOSSES:
        units, values = query_losses(config, source, algorithm, thetas, item.index, numbers)
    else:
        own = gamma.route(trained, probe.pipeline)
        units, values = sketches(config, source, probe, thetas, item.index, own, numbers)
    return Observation(source.num_units, units, values)
