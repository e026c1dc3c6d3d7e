"""Meta-learning algorithms. One per file; `base.py` is the contract."""

from __future__ import annotations

from typing import Final

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.plugins import find
from dmaml.worker import models
from dmaml.worker.algorithms.base import Algorithm
from dmaml.worker.algorithms.episodes import Kind
from dmaml.worker.algorithms.local_steps import LocalSteps

GROUP: Final = "dmaml.algorithms"
ALGORITHMS: Final = {
    "maml": "dmaml.worker.algorithms.maml:Maml",
}


def build(
    config: RunConfig, source_kind: Kind, input_shape: tuple[int, ...], num_outputs: int
) -> Algorithm:
    """Return the run's algorithm around the run's model.

    The algorithm is called as `Thing(config, model, kind, **algorithm.options)`; with
    `local_steps` > 1 it is wrapped in `LocalSteps`.

    Args:
        config: the resolved configuration.
        source_kind: what the labels are.
        input_shape: shape of one example.
        num_outputs: width of the model's last layer.

    Raises:
        UnknownNameError: no such algorithm or model.
        ConfigError: one cannot be imported or made, or does not suit.
    """
    section = config.algorithm
    thing = find("algorithm", GROUP, ALGORITHMS, section.name)
    if section.name in ALGORITHMS and section.options:
        raise ConfigError(
            f"algorithm.options {section.options!r} with algorithm.name {section.name!r}: options "
            "are for an algorithm of your own. Remove them."
        )
    model = models.build(config, input_shape, num_outputs)
    try:
        algorithm: Algorithm = thing(config, model, source_kind, **section.options)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        raise ConfigError(
            f"algorithm {section.name!r} cannot be made: {error}. It is called as "
            f"Thing(config, model, {source_kind!r}, **{section.options})."
        ) from error
    if section.local_steps == 1:
        return algorithm
    local_lr = config.outer.lr if section.local_lr is None else section.local_lr
    return LocalSteps(algorithm, section.local_steps, local_lr)
