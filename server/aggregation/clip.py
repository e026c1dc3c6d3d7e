"""Clipping by norm: before any other rule."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat, norm_of
from dmaml.common.sections import AggregationSection
from dmaml.server import aggregation, options

MEAN: Final[Mapping[str, Any]] = {"name": "mean"}


@final
class Clip:
    """The inner rule of gᵢ · min(1, c / ‖gᵢ‖): none is longer than c, none changes direction.

    Weights go to the inner rule. One contribution is returned clipped. A clipped contribution is
    a copy: at most n more gradients in memory. `aggregation.max_norm` voids a contribution instead.

    Args:
        norm: c, the Euclidean norm (float64) above which a contribution is shortened.
        inner: `{name, options}` of the rule that combines them.

    Raises:
        ValueError: norm not finite and > 0, inner not as required.
        ConfigError: the inner rule cannot be made.
    """

    def __init__(self, norm: float, inner: Mapping[str, Any] = MEAN) -> None:
        self._norm = options.number("norm", norm, "> 0", lambda v: v > 0)
        self._inner = aggregation.build(AggregationSection(**options.inner(inner)))
        self.num_required: int = aggregation.num_required(self._inner)

    def without(self, num_voids: int) -> Clip:
        """Return the rule with the inner rule for what is left beside v void contributions."""
        found = copy.copy(self)
        found._inner = aggregation.after_voids(self._inner, num_voids)
        found.num_required = aggregation.num_required(found._inner)
        return found

    def idle(self, num_contributions: int) -> str:
        """Say what the inner rule says; see `aggregation.check`."""
        idle = getattr(self._inner, "idle", None)
        return str(idle(num_contributions)) if idle else ""

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return the inner rule's result, float32 `[d]`."""
        return self._inner.combine([clipped(g, self._norm) for g in gradients], weights)


def clipped(gradient: Flat, limit: float) -> Flat:
    """Return the gradient itself if its norm is at most `limit`, else a shortened copy."""
    norm = norm_of(gradient)
    return gradient if norm <= limit else gradient * np.float32(limit / norm)
