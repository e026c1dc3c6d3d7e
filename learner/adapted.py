"""A meta-model adapted to one task: predict, clone, save."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmaml.common.errors import ConfigError
from dmaml.learner import exports
from dmaml.learner.examples import Label
from dmaml.learner.inputs import Given, Support
from dmaml.worker.algorithms.adapted import AdaptedModel
from dmaml.worker.algorithms.base import Algorithm
from dmaml.worker.models.base import Params

CHUNK: Final = 256  # queries at once: bounds the memory


@dataclass(frozen=True)
class Prediction:
    """What an adapted model says about N queries.

    Attributes:
        labels: the likeliest class of each, as the support set named it; empty for regression.
        probabilities: float32 `[N, n_way]`, columns in the order of `classes`; `[N, 0]` for
            regression.
        classes: the support set's labels, in the order in which it showed them.
        values: the network's outputs, float32 `[N, outputs]`: of regression the prediction.
    """

    labels: list[Label]
    probabilities: NDArray[np.float32]
    classes: tuple[Label, ...]
    values: NDArray[np.float32]


@final
class Adapted:
    """A pipeline of a run, adapted to one support set. Predictions do not depend on each other.

    Attributes:
        classes: the labels, in the order in which the support set showed them; () for regression.
        pipeline: which meta-model it came from.
        steps: adaptation steps.
        posterior: P(pipeline | support set) of every pipeline of the run, by id; see `Router`.
        support_loss: mean cross-entropy or squared error on the support set after adaptation.
    """

    posterior: dict[int, float]

    def __init__(
        self,
        algorithm: Algorithm,
        params: Params,
        support: Support,
        steps: int,
        classes: tuple[Label, ...],
        pipeline: int,
        prepare: Callable[[Given], Tensor],
        facts: dict[str, Any],
    ) -> None:
        self.classes, self.pipeline, self.steps = classes, pipeline, steps
        self.posterior = {pipeline: 1.0}
        self._algorithm, self._params, self._support = algorithm, params, support
        self._prepare, self._facts = prepare, facts
        self._model = _adapted(algorithm, params, support, steps)
        self.support_loss = self._loss(self._outputs(support.x))

    def predict(self, query: Given) -> Prediction:
        """Return labels and probabilities (of regression, values) of queries.

        Args:
            query: what `Learner.adapt` takes as support_x: examples `[N, *input_shape]`, or a
                picture, or a folder of pictures (in the order of `find_pictures`).

        Raises:
            DataError: examples that do not suit.
        """
        outputs = self._outputs(self._prepare(query))
        values = outputs.numpy()
        if not self.classes:
            return Prediction([], np.empty((len(values), 0), dtype=np.float32), (), values)
        labels = [self.classes[number] for number in outputs.argmax(1).tolist()]
        return Prediction(labels, outputs.softmax(1).numpy(), self.classes, values)

    def clone(self) -> Adapted:
        """Return an independent copy: nothing that is done to one changes the other."""
        twin = copy.copy(self)
        twin._params = {name: value.clone() for name, value in self._params.items()}
        twin.posterior = dict(self.posterior)
        twin._support = Support(self._support.x.clone(), self._support.y.clone())
        twin._model = _adapted(self._algorithm, twin._params, twin._support, self.steps)
        return twin

    def module(self) -> nn.Sequential:
        """Return it as a plain torch module in evaluation mode, which knows nothing of dmaml.

        Examples `[N, *input_shape]` to probabilities `[N, n_way]`, or values of regression. Batch
        norm has the statistics of predictions for running ones.

        Raises:
            ConfigError: the algorithm or the model has no such form (lstm, mann).
        """
        if self._model is None:
            raise ConfigError(
                f"algorithm {self._facts['algorithm']!r} reads the support set anew for each "
                "query, so what it learned is no plain module. Keep the run and use "
                "dmaml.learner, or train one with maml, reptile, protonet or matching."
            )
        module: nn.Sequential = self._model.module(bool(self.classes)).eval()
        return module

    def save(self, file: str | Path) -> Path:
        """Write `module()` as a state_dict (`.safetensors`) or as a graph (`.onnx`), and return it.

        What was written is read back and must give the same predictions for the support set, to
        1e-5 (see `exports.save`); a file appears whole or not at all.

        Raises:
            ConfigError: another ending, no plain form, or it cannot be written.
            HostError: `.onnx` without the packages that it needs.
            RunTimeError: the copy predicts otherwise.
        """
        path = exports.checked_path(file)
        expected = self.predict(self._support.x)
        wanted = expected.probabilities if self.classes else expected.values
        facts = self._facts | {
            "gives": "probabilities" if self.classes else "values",
            "classes": list(self.classes),
            "pipeline": self.pipeline,
            "steps": self.steps,
        }
        largest = float(np.abs(expected.values).max())
        exports.save(self.module(), facts, self._support.x, torch.from_numpy(wanted), path, largest)
        return path

    @torch.no_grad()
    def _outputs(self, x: Tensor) -> Tensor:
        parts = [self._part(chunk) for chunk in torch.split(x, CHUNK)]
        return torch.cat(parts).detach()

    def _part(self, x: Tensor) -> Tensor:
        if self._model is not None:
            return self._model.outputs(x)
        with torch.enable_grad():
            return self._algorithm.predict(
                self._params, self._support.x, self._support.y, x, self.steps
            ).detach()

    def _loss(self, outputs: Tensor) -> float:
        if self.classes:
            return float(nn.functional.cross_entropy(outputs, self._support.y))
        return float(nn.functional.mse_loss(outputs, self._support.y))


def _adapted(
    algorithm: Algorithm, params: Params, support: Support, steps: int
) -> AdaptedModel | None:
    """Return the adapted model, or None where the algorithm has no such form."""
    adapt = getattr(algorithm, "adapt", None)
    if adapt is None:
        return None
    with torch.enable_grad():
        model: AdaptedModel | None = adapt(params, support.x, support.y, steps)
    return model
