"""What single neurons answer to: their highest and lowest pictures, and the classes they tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Extremes:
    """The pictures that a neuron answers to most and least.

    Attributes:
        highest, lowest: their places in the pool, the most extreme first.
    """

    highest: tuple[int, ...]
    lowest: tuple[int, ...]


def extremes(activations: NDArray[np.floating], count: int) -> Extremes:
    """Return the `count` pictures with the largest and the smallest activation.

    Of equal ones the first in the pool. Where there are fewer than 2 `count` pictures, each is
    in one list at most.

    Args:
        activations: of one neuron, `[pictures]`.
    """
    few = min(count, len(activations) // 2)
    order = np.argsort(-np.asarray(activations, dtype=np.float64), kind="stable").tolist()
    return Extremes(tuple(order[:few]), tuple(order[::-1][:few]))


def selectivity(activations: NDArray[np.floating], labels: NDArray[np.int64]) -> Float64:
    """Return the share of each neuron's variance that lies between classes (η²).

        η² = Σ_c n_c (ā_c − ā)² / Σ_i (a_i − ā)²

    1: the class decides the activation; 0: it says nothing, which a neuron that never changes
    gets as well.

    Args:
        activations: `[pictures, neurons]`.
        labels: the class of each picture, `[pictures]`.

    Returns:
        float64 `[neurons]`, 0 to 1.
    """
    values = np.asarray(activations, dtype=np.float64)
    centred = values - values.mean(axis=0)
    total = np.square(centred).sum(axis=0)
    between = np.zeros(values.shape[1])
    for label in np.unique(labels):
        own = centred[labels == label]
        between += len(own) * np.square(own.mean(axis=0))
    share: Float64 = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    return share


def most_selective(
    share: Float64, activations: NDArray[np.floating], labels: NDArray[np.int64], count: int
) -> tuple[int, ...]:
    """Return the neurons with the largest share, each the best of those that prefer its class.

    A neuron prefers the class with the largest mean activation. Where fewer than `count` classes
    are preferred, the best of the others follow. Of equal ones the first.

    Args:
        share: what `selectivity` gave, `[neurons]`.
        activations: `[pictures, neurons]`.
        labels: the class of each picture, `[pictures]`.
    """
    means = np.stack([activations[labels == label].mean(axis=0) for label in np.unique(labels)])
    preferred = means.argmax(axis=0)
    order = np.argsort(-share, kind="stable").tolist()
    firsts: dict[int, int] = {}
    for neuron in order:
        firsts.setdefault(int(preferred[neuron]), neuron)
    others = [neuron for neuron in order if neuron not in firsts.values()]
    return tuple([*firsts.values(), *others][:count])
