"""A black-box learner: an LSTM reads the support set and answers the queries."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Stream
from dmaml.worker.algorithms.base import Problem
from dmaml.worker.algorithms.episodes import Stack
from dmaml.worker.algorithms.feedforward import FeedForward
from dmaml.worker.algorithms.options import count
from dmaml.worker.algorithms.sequences import Reader, lstm_bias, uniform
from dmaml.worker.models.base import Params


@final
class Lstm:
    """Read (f(x_1), y_1), .., (f(x_S), y_S), then (f(x), 0) for each query, and give its output.

        s_0 = 0,  s_i = LSTM(s_{i-1}, [f(x_i), y_i]),  output(x) = W h(LSTM(s_S, [f(x), 0])) + b

    f is the run's model without its head (for the example itself: `model: {name: mlp, hidden:
    []}`), y one-hot or the target. Every query continues from s_S by itself, so that no query sees
    another. The order of the support set is random, a function of its examples.

    Parameters: those of the embedding with `embedding.` before them; for layer l lstm{l}.input
    `[4 hidden, in]`, lstm{l}.recurrent `[4 hidden, hidden]`, lstm{l}.bias `[4 hidden]`;
    head.weight `[hidden, outputs]`, head.bias.

    Args:
        reader: makes sequences.
        hidden: units of each layer.
        layers: LSTMs on top of each other.

    References:
        Hochreiter, Younger, Conwell, "Learning to learn using gradient descent" (2001): a
        recurrent network as learner, there with each label given one step later (for that, see
        `mann`). Santoro et al. (2016), section 4: LSTM as a baseline.
    """

    any_way = False

    def __init__(self, reader: Reader, hidden: int, layers: int) -> None:
        self._reader = reader
        self._hidden = count("hidden", hidden, least=1)
        self._layers = count("layers", layers, least=1)
        self.chunk = reader.chunk

    @classmethod
    def configured(
        cls,
        config: RunConfig,
        problem: Problem,
        hidden: int = 128,
        layers: int = 1,
        features: str = "plain",
    ) -> FeedForward:
        """Return the algorithm that a configuration describes.

        Raises:
            ValueError: an unsuitable option.
        """
        reader = Reader(config, problem, features)
        return FeedForward(config, problem.kind, cls(reader, hidden, layers))

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters: uniform up to 1/√hidden, forget gates open (bias 1)."""
        params = self._reader.init(stream)
        hidden, bound = self._hidden, 1 / math.sqrt(self._hidden)
        width = self._reader.num_features + self._reader.num_outputs
        for layer in range(self._layers):
            params[f"lstm{layer}.input"] = uniform(stream, 4 * hidden, width, bound=bound)
            params[f"lstm{layer}.recurrent"] = uniform(stream, 4 * hidden, hidden, bound=bound)
            params[f"lstm{layer}.bias"] = lstm_bias(hidden)
            width = hidden
        outputs = self._reader.num_outputs
        params["head.weight"] = uniform(stream, hidden, outputs, bound=bound)
        params["head.bias"] = torch.zeros(outputs)
        return params

    def calibrated(self, params: Params, x: Tensor) -> Params:
        """Return the parameters with the statistics of these examples; see `Embedding`."""
        return self._reader.calibrated(params, x)

    def outputs(self, params: Params, stack: Stack, joint: bool) -> Tensor:
        """Return the queries' outputs `[T, Q, outputs]`; see `Predictor`."""
        sequence = self._reader.read(params, stack, joint)
        num_tasks, num_queries, _ = sequence.query.shape
        start = sequence.support.new_zeros(self._layers, num_tasks, self._hidden)
        examples = torch.cat([sequence.support, sequence.labels], dim=2)
        _, state = self._run(params, examples, (start, start))
        unlabelled = sequence.query.new_zeros(num_tasks, num_queries, self._reader.num_outputs)
        queries = torch.cat([sequence.query, unlabelled], dim=2).flatten(0, 1)[:, None]
        h, c = (part.repeat_interleave(num_queries, dim=1) for part in state)
        last, _ = self._run(params, queries, (h, c))
        outputs = torch.addmm(params["head.bias"], last[:, 0], params["head.weight"])
        return outputs.view(num_tasks, num_queries, -1)

    def _run(
        self, params: Params, x: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the top layer's h at each place `[B, L, hidden]`, and h and c at the end."""
        weights: list[Tensor] = []
        for layer in range(self._layers):
            bias = params[f"lstm{layer}.bias"]
            weights += [params[f"lstm{layer}.input"], params[f"lstm{layer}.recurrent"]]
            weights += [bias, torch.zeros_like(bias)]  # torch has two, whose sum alone matters
        every, h, c = torch.lstm(
            x, state, weights, True, self._layers, 0.0, True, False, True
        )  # biases, layers, dropout, training, bidirectional, batch first
        return every, (h, c)
