"""Orders of a task's examples: random, yet a function of the task alone."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from dmaml.common.seeds import Kind, Stream, stream


def own_streams(x: Tensor, y: Tensor) -> list[Stream]:
    """Return a stream for each task, keyed by its examples.

    An item's stream would not do: which tasks share an item depends on the number of slots, and a
    task must be worked on in the same way whoever has it, in training and in prediction.

    Args:
        x: `[T, N, *input_shape]`.
        y: labels or targets, `[T, N, ...]`.
    """
    return [
        stream(_digest(examples, labels), Kind.CONTEXT)
        for examples, labels in zip(x, y, strict=True)
    ]


def permutations(streams: list[Stream], count: int) -> Tensor:
    """Return a random order of 0 .. count - 1 from each stream, int64 `[T, count]`."""
    return torch.stack([torch.from_numpy(one.permutation(count)) for one in streams])


def ordered(values: Tensor, order: Tensor) -> Tensor:
    """Return each task's rows in its order.

    Args:
        values: `[T, N, ...]`.
        order: int64 `[T, M]`, numbers of rows.

    Returns:
        `[T, M, ...]`.
    """
    tasks = torch.arange(len(values))[:, None]
    return values[tasks, order]


def _digest(x: Tensor, y: Tensor) -> int:
    total = hashlib.blake2b(digest_size=8)
    for values in (x, y):
        total.update(values.detach().contiguous().numpy().data)
    return int.from_bytes(total.digest(), "little")
