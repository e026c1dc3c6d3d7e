"""A run's configuration with what a caller of `load` wants otherwise; None leaves it as it is."""

from __future__ import annotations

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError


def reshaped(config: RunConfig, n_way: int | None, k_shot: int | None) -> RunConfig:
    """Return the configuration with evaluation tasks of another shape.

    Raises:
        ConfigError: a number below 1.
    """
    given = {"n_way": n_way, "k_shot": k_shot}
    update = {name: value for name, value in given.items() if value is not None}
    for name, value in update.items():
        if value < 1:
            raise ConfigError(f"{name} {value}: required at least 1.")
    evaluation = config.evaluation.model_copy(update=update)
    return config.model_copy(update={"evaluation": evaluation})


def paced(config: RunConfig, inner_lr: float | None) -> RunConfig:
    """Return the configuration with another rate of adaptation.

    Raises:
        ConfigError: a rate that is not > 0, or for a run that learned its rates.
    """
    if inner_lr is None:
        return config
    if not 0 < inner_lr < float("inf"):
        raise ConfigError(f"inner_lr {inner_lr}: required a number > 0.")
    if not isinstance(config.algorithm.inner_lr, float):
        raise ConfigError(
            f"inner_lr {inner_lr}: algorithm.inner_lr of this run is "
            f"{config.algorithm.inner_lr!r}, its rates are among what it learned. Leave it out."
        )
    algorithm = config.algorithm.model_copy(update={"inner_lr": inner_lr})
    return config.model_copy(update={"algorithm": algorithm})
