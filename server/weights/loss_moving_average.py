"""The lower the mean of a slot's last losses, the larger its weight."""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dmaml.server.options import count
from dmaml.server.weights.base import Float64
from dmaml.server.weights.loss_weighted import LossWeighted


@final
class LossMovingAverage:
    """`LossWeighted` of ℓ̄ᵢ, the mean of the slot's last `window` losses, this one included.

    (DMAML thesis, Soulier 2020: the mean over the last 5 losses.) One lucky or unlucky batch of
    tasks moves a weight less. A slot with a shorter history is judged by what it has; a round in
    which a slot is void adds nothing to its history. Of a slot that is there with several rounds
    each is judged by the losses up to its own. At most slots × window numbers are kept.

    Args:
        window: losses of a slot that count.
        form, temperature, eps: as in `LossWeighted`.

    Raises:
        ValueError: window not a whole number >= 1, or as `LossWeighted`.
    """

    def __init__(
        self,
        window: int = 5,
        form: str = "softmax",
        temperature: float = 1.0,
        eps: float = 1e-8,
    ) -> None:
        self._window = count("window", window, least=1)
        self._by_loss = LossWeighted(form, temperature, eps)
        self._history: dict[int, list[float]] = {}

    def weights(
        self, losses: Float64, slots: NDArray[np.int64], staleness: NDArray[np.int64]
    ) -> Float64:
        """Add the losses to the history and return weights by its means, float64 `[n]`."""
        pairs = zip(slots.tolist(), losses.tolist(), strict=True)
        means = np.array([self._mean_with(slot, loss) for slot, loss in pairs])
        return self._by_loss.weights(means, slots, staleness)

    def state(self) -> dict[str, Any]:
        """Return the history: slot -> its last losses, the oldest first."""
        return {"history": {str(slot): list(past) for slot, past in self._history.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Take the history back."""
        self._history = {
            int(slot): [float(loss) for loss in past][-self._window :]
            for slot, past in state.get("history", {}).items()
        }

    def _mean_with(self, slot: int, loss: float) -> float:
        """Add a loss to a slot's history and return the mean of it."""
        past = self._history[slot] = [*self._history.get(slot, []), loss][-self._window :]
        return _mean(past)


def _mean(past: list[float]) -> float:
    # divided first: the largest finite losses stay finite
    return math.fsum(loss / len(past) for loss in past)
