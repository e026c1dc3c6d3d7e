"""A memory-augmented network: an LSTM that writes to and reads from an external memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from torch.nn import functional as F

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Stream
from dmaml.worker.algorithms.base import Problem
from dmaml.worker.algorithms.episodes import Stack
from dmaml.worker.algorithms.feedforward import FeedForward
from dmaml.worker.algorithms.options import count, number
from dmaml.worker.algorithms.sequences import Reader, lstm_bias, uniform
from dmaml.worker.models.base import Params

_EPS: Final = 1e-6  # beside the square of a norm: keeps the derivative at an empty slot finite


@dataclass(frozen=True)
class State:
    """What a network of B sequences carries from step to step.

    Attributes:
        h, c: of the controller, `[B, hidden]`.
        memory: M `[B, slots, width]`.
        read_weights: w^r `[B, heads, slots]`.
        usage: w^u `[B, slots]`.
        read: r, all heads side by side, `[B, heads * width]`.
    """

    h: Tensor
    c: Tensor
    memory: Tensor
    read_weights: Tensor
    usage: Tensor
    read: Tensor


@final
class Mann:
    """Read (f(x_1), 0), (f(x_2), y_1), .., (f(x_S), y_{S-1}), then (f(x), y_S) for each query.

    Labels come one step late, so that an example must be kept until its label is known. At each
    step the controller, an LSTM that sees [f(x_t), y_{t-1}, r_{t-1}], gives a key k and a gate σ
    for each head, and (leaving out the head)

        w^w_t = σ w^r_{t-1} + (1 - σ) w^lu_{t-1}     w^lu: 1 at the least used slot
        M_t(i) = M_{t-1}(i) + w^w_t(i) k_t           after M_{t-1} is zeroed where w^lu is 1
        w^r_t(i) = softmax_i(s cos(k_t, M_t(i)))     r_t = Σ_i w^r_t(i) M_t(i)
        w^u_t = γ w^u_{t-1} + w^r_t + w^w_t          summed over the heads
        output = W [h_t, r_t] + b

    Every query continues from the support set's end by itself. f is the run's model without its
    head (for the example itself: `model: {name: mlp, hidden: []}`). Head j's least used slot is
    the j-th of the paper's n = heads least used ones, ties go to the first.

    Parameters: those of the embedding with `embedding.` before them; controller.input
    `[4 hidden, in]`, controller.recurrent, controller.bias; key.weight `[hidden, heads * width]`,
    key.bias; gate.weight `[hidden, heads]`, gate.bias; head.weight, head.bias.

    Args:
        reader: makes sequences.
        hidden: units of the controller.
        slots: of the memory, at least as many as heads.
        width: of a slot.
        heads: reads (and writes) of a step.
        usage_decay: γ.
        strength: s > 0; 1 is the paper's.

    References:
        Santoro, Bartunov, Botvinick, Wierstra, Lillicrap, "One-shot learning with memory-augmented
        neural networks" (2016), section 3, equations 2 to 8 (least recently used access). We
        differ: only the queries' outputs are trained, there those of every step; each head writes
        to a slot of its own; `strength`; k = tanh(W h + b).
    """

    any_way = False

    def __init__(
        self,
        reader: Reader,
        hidden: int,
        slots: int,
        width: int,
        heads: int,
        usage_decay: float,
        strength: float,
    ) -> None:
        self._reader = reader
        self._hidden = count("hidden", hidden, least=1)
        self._heads = count("heads", heads, least=1)
        self._slots = count("slots", slots, least=heads)
        self._width = count("width", width, least=1)
        self._decay = number(
            "usage_decay", usage_decay, "from 0 to 1", lambda value: 0 <= value <= 1
        )
        self._strength = number("strength", strength, "> 0", lambda value: value > 0)
        self.chunk = reader.chunk

    @classmethod
    def configured(
        cls,
        config: RunConfig,
        problem: Problem,
        hidden: int = 200,
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        usage_decay: float = 0.99,
        strength: float = 1.0,
        features: str = "plain",
    ) -> FeedForward:
        """Return the algorithm that a configuration describes.

        Raises:
            ValueError: an unsuitable option.
        """
        reader = Reader(config, problem, features)
        predictor = cls(reader, hidden, slots, width, heads, usage_decay, strength)
        return FeedForward(config, problem.kind, predictor)

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters: uniform up to 1/√hidden, the forget gate open (bias 1)."""
        params = self._reader.init(stream)
        hidden, bound = self._hidden, 1 / math.sqrt(self._hidden)
        outputs, read = self._reader.num_outputs, self._heads * self._width
        seen = self._reader.num_features + outputs + read
        shapes = {"key": (hidden, read), "gate": (hidden, self._heads)}
        shapes["head"] = (hidden + read, outputs)
        params["controller.input"] = uniform(stream, 4 * hidden, seen, bound=bound)
        params["controller.recurrent"] = uniform(stream, 4 * hidden, hidden, bound=bound)
        params["controller.bias"] = lstm_bias(hidden)
        for name, shape in shapes.items():
            params[f"{name}.weight"] = uniform(stream, *shape, bound=bound)
            params[f"{name}.bias"] = torch.zeros(shape[1])
        return params

    def calibrated(self, params: Params, x: Tensor) -> Params:
        """Return the parameters with the statistics of these examples; see `Embedding`."""
        return self._reader.calibrated(params, x)

    def outputs(self, params: Params, stack: Stack, joint: bool) -> Tensor:
        """Return the queries' outputs `[T, Q, outputs]`; see `Predictor`."""
        sequence = self._reader.read(params, stack, joint)
        num_tasks, num_queries, _ = sequence.query.shape
        late = F.pad(sequence.labels, (0, 0, 1, 0))  # place i holds the label of i - 1
        state = self.start(num_tasks, sequence.support.dtype)
        for i in range(sequence.support.shape[1]):
            x = torch.cat([sequence.support[:, i], late[:, i]], dim=1)
            state = self.step(params, x, state)
        last = late[:, -1:].expand(-1, num_queries, -1)
        queries = torch.cat([sequence.query, last], dim=2).flatten(0, 1)
        state = self.step(params, queries, _repeated(state, num_queries))
        seen = torch.cat([state.h, state.read], dim=1)
        outputs = torch.addmm(params["head.bias"], seen, params["head.weight"])
        return outputs.view(num_tasks, num_queries, -1)

    def start(self, count: int, dtype: torch.dtype) -> State:
        """Return the state before the first step of `count` sequences: all zero."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(count, *shape, dtype=dtype)

        return State(
            h=zeros(self._hidden),
            c=zeros(self._hidden),
            memory=zeros(self._slots, self._width),
            read_weights=zeros(self._heads, self._slots),
            usage=zeros(self._slots),
            read=zeros(self._heads * self._width),
        )

    def step(self, params: Params, x: Tensor, state: State) -> State:
        """Return the state after one step.

        Args:
            params: the parameters.
            x: features and the label before, `[B, F + outputs]`.
            state: of B sequences.
        """
        bias = params["controller.bias"]
        h, c = torch.lstm_cell(
            torch.cat([x, state.read], dim=1),
            (state.h, state.c),
            params["controller.input"],
            params["controller.recurrent"],
            bias,
            torch.zeros_like(bias),
        )
        keys = torch.addmm(params["key.bias"], h, params["key.weight"]).tanh()
        keys = keys.view(len(x), self._heads, self._width)
        gates = torch.addmm(params["gate.bias"], h, params["gate.weight"]).sigmoid()[..., None]
        unused = self._least_used(state.usage)
        write_weights = gates * state.read_weights + (1 - gates) * unused
        kept = state.memory * (1 - unused.sum(1))[..., None]
        memory = torch.baddbmm(kept, write_weights.transpose(1, 2), keys)
        cosines = torch.bmm(_unit(keys), _unit(memory).transpose(1, 2))
        read_weights = (self._strength * cosines).softmax(2)
        read = torch.bmm(read_weights, memory).flatten(1)
        usage = self._decay * state.usage + read_weights.sum(1) + write_weights.sum(1)
        return State(h, c, memory, read_weights, usage, read)

    def _least_used(self, usage: Tensor) -> Tensor:
        """Return w^lu `[B, heads, slots]`: head j's is 1 at the j-th least used slot."""
        slots = usage.detach().argsort(dim=1, stable=True)[:, : self._heads]
        return F.one_hot(slots, self._slots).to(usage.dtype)


def _unit(rows: Tensor) -> Tensor:
    """Return the rows scaled to length 1, but for the shortest."""
    return rows * torch.rsqrt(rows.square().sum(2, keepdim=True) + _EPS)


def _repeated(state: State, times: int) -> State:
    """Return each sequence's state `times` times, one after another."""
    return State(
        *(
            getattr(state, name).repeat_interleave(times, dim=0)
            for name in ("h", "c", "memory", "read_weights", "usage", "read")
        )
    )
