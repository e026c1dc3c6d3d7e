"""Options of algorithms: the shared checks, whose sentences name their page."""

from __future__ import annotations

from functools import partial
from typing import Final

from dmaml.common import options
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.options import choice
from dmaml.worker.algorithms.base import Problem

__all__ = ["PAGE", "choice", "count", "inner_lr", "number", "require_kind", "size"]

PAGE: Final = "docs/algorithms/learners.md"

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


def inner_lr(config: RunConfig) -> float:
    """Return `algorithm.inner_lr`; raises ValueError where it is not a number > 0."""
    return number("algorithm.inner_lr", config.algorithm.inner_lr, "> 0", lambda value: value > 0)


def size(name: str, value: object) -> int | None:
    """Return a whole number >= 1, or None; raises ValueError."""
    return None if value is None else count(name, value, least=1)
