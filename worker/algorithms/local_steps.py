"""Several meta-steps on the actor before anything is pushed."""

from __future__ import annotations

from typing import final

import numpy as np
from torch import Tensor

from dmaml.common.seeds import Stream
from dmaml.worker.algorithms.adapted import AdaptedModel
from dmaml.worker.algorithms.base import Algorithm, Context, Contribution, Draw, Evaluation
from dmaml.worker.algorithms.predictions import predictions
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch


@final
class LocalSteps:
    """Wrap an algorithm so that a contribution is E meta-steps of plain SGD on fresh tasks.

        θ_{e+1} = θ_e - lr g_e,  contribution (θ_0 - θ_E) / lr = Σ_e g_e

    with E = `steps` and g_e the wrapped algorithm's contribution at θ_e. The right-hand side is
    what is computed: it has no cancellation, and for E = 1 it is g_0, bit for bit. Loss and
    metrics are means over the E steps, weighted by their tasks.
    """

    def __init__(self, inner: Algorithm, steps: int, lr: float) -> None:
        self._inner = inner
        self._steps = steps
        self._lr = lr
        self.any_way: bool = getattr(inner, "any_way", False)

    def init(self, stream: Stream) -> Params:
        """Return the wrapped algorithm's parameters."""
        return self._inner.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return the pseudo-gradient of E local meta-steps."""
        parts = [self._inner.contribution(params, draw, context)]
        total = parts[0].gradient
        for _ in range(1, self._steps):
            gradient = parts[-1].gradient
            params = {name: value - self._lr * gradient[name] for name, value in params.items()}
            parts.append(self._inner.contribution(params, draw, context))
            total = {name: value + parts[-1].gradient[name] for name, value in total.items()}
        return Contribution(
            gradient=total,
            loss=_mean(parts, [part.loss for part in parts]),
            metrics={
                name: _mean(parts, [part.metrics[name] for part in parts])
                for name in parts[0].metrics
            },
            num_tasks=sum(part.num_tasks for part in parts),
        )

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return the wrapped algorithm's figures."""
        return self._inner.evaluate(params, batch, steps)

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return the wrapped algorithm's outputs."""
        return self._inner.predict(params, support_x, support_y, query_x, steps)

    def predict_all(self, params: Params, batch: TaskBatch, steps: int) -> Tensor:
        """Return the wrapped algorithm's outputs for every task."""
        return predictions(self._inner, params, batch, steps)

    def adapt(
        self, params: Params, support_x: Tensor, support_y: Tensor, steps: int
    ) -> AdaptedModel | None:
        """Return the wrapped algorithm's adapted model, or None where it gives none."""
        own = getattr(self._inner, "adapt", None)
        return None if own is None else own(params, support_x, support_y, steps)


def _mean(parts: list[Contribution], values: list[float]) -> float:
    return float(np.average(values, weights=[part.num_tasks for part in parts]))
