"""The staler, the less weight: around any other generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.sections import WeightsSection
from dmaml.server import options, weights
from dmaml.server.weights.base import Float64, normalised

MEAN: Final[Mapping[str, Any]] = {"name": "mean"}


@final
class StalenessDiscount:
    """wᵢ ∝ vᵢ / (1 + τᵢ)^a: the inner generator's weights v, discounted by staleness τ.

    τᵢ counts the TRAIN commits since the parameters that contribution i was computed from.

    Renormalised, so that only *differences* of staleness count: if all are equally stale, and so
    for one contribution alone (`sync.async_batch: 1`), the inner weights stay what they are.

    Args:
        inner: `{name, options}` of the generator whose weights are discounted.
        exponent: a; 0 leaves the weights alone, 1 halves them at τ = 1.

    Raises:
        ValueError: inner not as required, exponent not finite and >= 0.
        ConfigError: the inner generator cannot be made.

    References:
        Xie, Koyejo, Gupta 2019, "Asynchronous Federated Optimization" (arXiv 1903.03934): the
        polynomial s_a(τ) = (1 + τ)^−a. There it scales the mixing rate of one update; here it
        divides one update's weight among the contributions.
    """

    def __init__(self, inner: Mapping[str, Any] = MEAN, exponent: float = 0.5) -> None:
        self._inner = weights.build(WeightsSection(**options.inner(inner)))
        self._exponent = options.number("exponent", exponent, ">= 0", lambda v: v >= 0)

    def weights(
        self, losses: Float64, slots: NDArray[np.int64], staleness: NDArray[np.int64]
    ) -> Float64:
        """Return the inner weights, discounted, float64 `[n]`."""
        plain = self._inner.weights(losses, slots, staleness)
        # Relative to the freshest one that counts: it keeps its weight, so the sum is never 0.
        freshest = staleness[plain > 0].min()
        ages = (1.0 + np.maximum(staleness, freshest)) / (1.0 + freshest)
        with np.errstate(over="ignore", under="ignore"):
            return normalised(plain * ages**-self._exponent)

    def state(self) -> dict[str, Any]:
        """Return the inner generator's state."""
        return {"inner": self._inner.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take the inner generator's state back."""
        self._inner.load(state.get("inner", {}))
