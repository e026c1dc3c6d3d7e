"""Options of algorithms: the shared checks, whose sentences name their page."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from dmaml.common import options
from dmaml.common.adaptation import AdaptationSection
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.options import choice
from dmaml.worker.algorithms.base import Problem

__all__ = [
    "INNER_LOOP", "PAGE", "choice", "count", "inner_lr", "number", "require_kind",
    "require_unset", "size",
]  # fmt: skip

PAGE: Final = "docs/algorithms/learners.md"

# keys of `algorithm` about an inner loop that is differentiated through
INNER_LOOP: Final = (
    "order", "first_order_rounds", "multi_step_rounds", "adapt", "per_step", "per", "initial_lr",
    "inner_reduction", "inner_clip",
)  # fmt: skip

number = partial(options.number, page=PAGE)
count = partial(options.count, page=PAGE)


def require_kind(config: RunConfig, problem: Problem, kind: str) -> None:
    """Raise unless the source's labels are of this kind.

    Raises:
        ConfigError: with the algorithm, the source and both kinds.
    """
    if problem.kind != kind:
        raise ConfigError(
            f"algorithm {config.algorithm.name!r} is for {kind}, and task.source "
            f"{config.task.source!r} gives {problem.kind}. Take another algorithm or source."
        )


def require_unset(config: RunConfig, keys: Iterable[str]) -> None:
    """Raise for keys of `algorithm` that were set and would have no effect.

    Raises:
        ConfigError: with the key, its value and the algorithm.
    """
    for key in keys:
        value, name = getattr(config.algorithm, key), config.algorithm.name
        if value != AdaptationSection.model_fields[key].default:
            raise ConfigError(f"algorithm.{key} {value!r}: {name} does not read it. Leave it out.")


def inner_lr(config: RunConfig) -> float:
    """Return `algorithm.inner_lr`; raises ValueError where it is not a number > 0."""
    return number("algorithm.inner_lr", config.algorithm.inner_lr, "> 0", lambda value: value > 0)


def size(name: str, value: object) -> int | None:
    """Return a whole number >= 1, or None; raises ValueError."""
    return None if value is None else count(name, value, least=1)
