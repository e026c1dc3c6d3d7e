"""Meta-learning algorithms. One per file; `base.py` is the contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.options import make
from dmaml.common.plugins import find
from dmaml.common.sections import AlgorithmSection
from dmaml.worker import models
from dmaml.worker.algorithms.base import Algorithm, Problem
from dmaml.worker.algorithms.episodes import Kind
from dmaml.worker.algorithms.local_steps import LocalSteps
from dmaml.worker.algorithms.options import INNER_LOOP, PAGE, require_unset
from dmaml.worker.control.base import Family

GROUP: Final = "dmaml.algorithms"
ALGORITHMS: Final = {
    "maml": "dmaml.worker.algorithms.maml:Maml",
    "maml_rl": "dmaml.worker.algorithms.maml_rl:MamlRl",
    "reptile": "dmaml.worker.algorithms.reptile:Reptile",
    "protonet": "dmaml.worker.algorithms.protonet:Protonet",
    "matching": "dmaml.worker.algorithms.matching:Matching",
    "lstm": "dmaml.worker.algorithms.lstm:Lstm",
    "mann": "dmaml.worker.algorithms.mann:Mann",
    "scratch": "dmaml.worker.algorithms.scratch:Scratch",
    "pretrain": "dmaml.worker.algorithms.pretrain:Pretrain",
    "oracle": "dmaml.worker.algorithms.oracle:Oracle",
}
# no gradient goes through their steps, if they take any: keys about that have no effect
_WITHOUT_INNER_LOOP: Final = frozenset(ALGORITHMS) - {"maml", "maml_rl"}
_METHODS: Final = ("init", "contribution", "evaluate", "predict")


def build(
    config: RunConfig,
    source_kind: Kind,
    input_shape: tuple[int, ...],
    num_outputs: int,
    num_units: int = 0,
    num_parameters: int = 0,
    environments: Family | None = None,
) -> Algorithm:
    """Return the run's algorithm around the run's model.

    A class with `configured` is made by `Thing.configured(config, problem, **algorithm.options)`,
    any other by `Thing(config, model, kind, **algorithm.options)`; with `local_steps` > 1 it is
    wrapped in `LocalSteps`.

    Args:
        config: the resolved configuration.
        source_kind: what the labels are.
        input_shape: shape of one example.
        num_outputs: width of the model's last layer.
        num_units: units of the source.
        num_parameters: numbers by which the source describes a task; 0: none.
        environments: of control tasks, where they come from.

    Raises:
        UnknownNameError: no such algorithm or model.
        ConfigError: one cannot be imported or made, or does not suit.
    """
    section = config.algorithm
    thing = find("algorithm", GROUP, ALGORITHMS, section.name)
    _require_control(config, source_kind, getattr(thing, "for_control", False))
    if section.name in _WITHOUT_INNER_LOOP:
        require_unset(config, INNER_LOOP)
    if hasattr(thing, "configured"):
        problem = Problem(
            source_kind, input_shape, num_outputs, num_units, num_parameters, environments
        )
        algorithm = _made(section, partial(thing.configured, config, problem))
    else:
        algorithm = _around_a_model(thing, config, source_kind, input_shape, num_outputs)
    _require_n_way(config, algorithm)
    if section.local_steps == 1:
        return algorithm
    local_lr = config.outer.lr if section.local_lr is None else section.local_lr
    return LocalSteps(algorithm, section.local_steps, local_lr)


def _made(section: AlgorithmSection, thing: Callable[..., Any]) -> Algorithm:
    algorithm: Algorithm = make(
        "algorithm", section.name, thing, section.options, *_METHODS, page=PAGE
    )
    return algorithm


def _around_a_model(
    thing: Any,
    config: RunConfig,
    source_kind: Kind,
    input_shape: tuple[int, ...],
    num_outputs: int,
) -> Algorithm:
    section = config.algorithm
    model = models.build(config, input_shape, num_outputs)
    if section.name in ALGORITHMS:
        return _made(section, partial(thing, config, model, source_kind))
    try:
        algorithm: Algorithm = thing(config, model, source_kind, **section.options)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        raise ConfigError(
            f"algorithm {section.name!r} cannot be made: {error}. It is called as "
            f"Thing(config, model, {source_kind!r}, **{section.options})."
        ) from error
    return algorithm


def _require_control(config: RunConfig, source_kind: Kind, is_for_control: bool) -> None:
    if (source_kind == "control") != is_for_control:
        remedy = (
            "Take maml_rl, or an algorithm of your own with the attribute for_control"
            if source_kind == "control"
            else "Take another algorithm, or a source of control tasks such as navigation"
        )
        verb = "only" if is_for_control else "not"
        raise ConfigError(
            f"algorithm {config.algorithm.name!r} is {verb} for control, and "
            f"task.source {config.task.source!r} gives {source_kind}. {remedy}."
        )


def _require_n_way(config: RunConfig, algorithm: Algorithm) -> None:
    n_way = config.evaluation.n_way
    if n_way not in (None, config.task.n_way) and not getattr(algorithm, "any_way", False):
        raise ConfigError(
            f"evaluation.n_way {n_way} with task.n_way {config.task.n_way}: algorithm "
            f"{config.algorithm.name!r} has an output for each class of a training task. Leave "
            "evaluation.n_way (or --n-way) out, or take protonet, matching or pretrain."
        )
