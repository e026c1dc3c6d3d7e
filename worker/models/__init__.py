"""Models: pure functions of named parameters. One per file; `base.py` is the contract."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.plugins import find
from dmaml.common.seeds import Kind, stream
from dmaml.worker.models.base import Model
from dmaml.worker.models.module import ModuleModel

GROUP: Final = "dmaml.models"
MODELS: Final = {
    "conv4": "dmaml.worker.models.conv4:Conv4",
    "conv4_pool": "dmaml.worker.models.conv4_pool:Conv4Pool",
    "conv2": "dmaml.worker.models.conv2:Conv2",
    "mlp": "dmaml.worker.models.mlp:Mlp",
}


def build(config: RunConfig, input_shape: tuple[int, ...], num_outputs: int) -> Model:
    """Return the run's model.

    A name of `MODELS` is made from the keys of `model`. The user's own, `package.module:Thing`, is
    called as `Thing(input_shape, num_outputs, **model.options)` and returns a `torch.nn.Module`
    or something with the methods of `Model`. With `num_outputs` 0 it is an embedding; see
    `build_embedding`.

    Raises:
        UnknownNameError: no such model.
        ConfigError: it cannot be imported or made, or does not suit.
    """
    section = config.model
    thing = find("model", GROUP, MODELS, section.name)
    if section.name in MODELS:
        if section.options:
            raise ConfigError(
                f"model.options {section.options!r} with model.name {section.name!r}: options are "
                "for a model of your own. Remove them."
            )
        model: Model = thing.configured(section, input_shape, num_outputs)
        return model

    def make() -> Any:
        try:
            return thing(input_shape, num_outputs, **section.options)
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
            raise ConfigError(
                f"model {section.name!r} cannot be made: {error}. It is called as "
                f"Thing({input_shape}, {num_outputs}, **{section.options})."
            ) from error

    made = make()
    if isinstance(made, nn.Module):
        return ModuleModel(make)
    if callable(getattr(made, "init", None)) and callable(getattr(made, "forward", None)):
        own: Model = made
        return own
    raise ConfigError(
        f"model {section.name!r} made a {type(made).__name__}; required a torch.nn.Module, or "
        "something with the methods init and forward (docs/extending.md)."
    )


def build_embedding(config: RunConfig, input_shape: tuple[int, ...]) -> tuple[Model, int]:
    """Return the run's model without a head, and the number of features that it gives.

    Raises:
        UnknownNameError: no such model.
        ConfigError: it cannot be made, or does not give features `[N, features]`.
    """
    model = build(config, input_shape, 0)
    params = model.init(stream(0, Kind.INIT))
    with torch.no_grad():
        features, _ = model.forward(params, torch.zeros(2, *input_shape))
    if features.ndim != 2 or features.shape[1] == 0:
        raise ConfigError(
            f"model {config.model.name!r} gave {tuple(features.shape)} for two examples where an "
            "embedding (num_outputs 0) was required: features of shape (2, F), F > 0. Leave its "
            "last layer out where num_outputs is 0, and flatten."
        )
    return model, features.shape[1]
