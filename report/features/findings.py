"""What a feature study shows, as arrays: nothing here draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmaml.learner.task import Task
from dmaml.report.features.gradients import Score, ascended, saliency
from dmaml.report.features.layers import Layers
from dmaml.report.features.neurons import extremes, most_selective, selectivity
from dmaml.report.features.projections import neighbours, principal
from dmaml.report.features.subject import Subject

FILTERS: Final = 64
NEURONS: Final = 5  # of a layer
EXTREMES: Final = 4  # pictures at either end
MOST_CLASSES: Final = 10
Pictures = NDArray[np.float32]


@dataclass(frozen=True)
class Pool:
    """Test pictures of many tasks, each once.

    Attributes:
        x: float32 `[N, channels, height, width]`.
        labels: a number for each class, int64 `[N]`.
    """

    x: Pictures
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Points:
    """The last layer's input on a task's queries, in the plane.

    Attributes:
        name: of the network; `is_adapted` says when.
        principal, neighbours: float64 `[N, 2]`, principal components and t-SNE.
        shares: of the variance, of the two components.
    """

    name: str
    is_adapted: bool
    principal: NDArray[np.float64]
    shares: tuple[float, float]
    neighbours: NDArray[np.float64]


@dataclass(frozen=True)
class Neuron:
    """What one neuron answers to.

    Attributes:
        share: of its variance between classes; see `selectivity`.
        made: the picture that maximises it, float32 `[channels, height, width]`.
        highest, lowest: pictures of the pool, the most extreme first.
    """

    number: int
    share: float
    made: Pictures
    highest: tuple[Pictures, ...]
    lowest: tuple[Pictures, ...]


@dataclass(frozen=True)
class Neurons:
    """Chosen neurons of a layer of one network, before adaptation.

    Attributes:
        name: of the network.
        mean_share: of the variance between classes, over all neurons of the layer.
    """

    name: str
    layer: str
    mean_share: float
    neurons: tuple[Neuron, ...]


@dataclass(frozen=True)
class Classes:
    """What the scores of a task's first classes look for.

    Attributes:
        name: of the network; `is_adapted` says when.
        made: pictures that maximise each score, float32 `[classes, channels, height, width]`.
        saliency: of the first query of each class, for its own score, float32
            `[classes, height, width]`.
        is_blind: the scores are the same for every picture: there is nothing to see.
    """

    name: str
    is_adapted: bool
    made: Pictures
    saliency: Pictures
    is_blind: bool


def pool(tasks: Sequence[Task]) -> Pool:
    """Return the queries of all tasks, each picture once, in the order in which it comes."""
    x = np.concatenate([task.query_x for task in tasks])
    names = [task.names[label] for task in tasks for label in task.query_y.tolist()]
    _, first = np.unique(x.reshape(len(x), -1), axis=0, return_index=True)
    kept = np.sort(first)
    _, labels = np.unique(names, return_inverse=True)
    return Pool(x[kept], labels[kept].astype(np.int64))


def first_filters(layers: Layers, shape: tuple[int, ...]) -> Pictures | None:
    """Return the first layer's filters as pictures, the strongest first, at most 64.

    Args:
        shape: of an example, `(channels, height, width)`.

    Returns:
        float32 `[filters, channels, height, width]`: the size of an example for a linear layer,
        of its window for a convolution; None where they are no pictures.
    """
    weight = layers.first_weight
    if weight.ndim == 2 and weight.shape[1] == np.prod(shape):
        weight = weight.view(-1, *shape)
    if weight.ndim != 4 or weight.shape[1] not in (1, 3):
        return None
    order = weight.flatten(1).norm(dim=1).argsort(descending=True, stable=True)
    return weight[order[:FILTERS]].numpy()


def points(subject: Subject, task: Task, seed: int) -> list[Points]:
    """Return the last layer's input on the queries before and after adaptation."""
    x = torch.from_numpy(task.query_x)
    found = []
    for is_adapted, state in enumerate(subject.states(task)):
        features = state.layers.features(x).numpy()
        plane, shares = principal(features)
        near = neighbours(features, seed)
        found.append(Points(subject.name, bool(is_adapted), plane, shares, near))
    return found


def neurons(subject: Subject, given: Pool) -> list[Neurons]:
    """Return the most selective neurons of the third and fourth batch norm."""
    x = torch.from_numpy(given.x)
    layers = subject.unadapted(x)
    return [_neurons(subject.name, layers, layer, x, given) for layer in layers.neuron_layers]


def _neurons(name: str, layers: Layers, layer: str, x: Tensor, given: Pool) -> Neurons:
    with torch.no_grad():
        activations = layers.neurons(x, layer)
    share = selectivity(activations.numpy(), given.labels)
    chosen = most_selective(share, activations.numpy(), given.labels, NEURONS)
    rows = torch.arange(len(chosen))
    scale = activations.std(0)[list(chosen)].clamp_min(1e-6)

    def score(pictures: Tensor) -> Tensor:
        return layers.neurons(pictures, layer)[rows, list(chosen)] / scale

    made = ascended(score, _mean(x, len(chosen)))
    found = []
    for number, own in zip(chosen, made.numpy(), strict=True):
        ends = extremes(activations[:, number].numpy(), EXTREMES)
        highest, lowest = (tuple(given.x[i] for i in one) for one in (ends.highest, ends.lowest))
        found.append(Neuron(number, float(share[number]), own, highest, lowest))
    return Neurons(name, layer, float(share.mean()), tuple(found))


def first_of_each(labels: NDArray[np.int64]) -> list[int]:
    """Return the place of the first example of each label, of at most 10 labels."""
    shown = range(min(int(labels.max()) + 1, MOST_CLASSES))
    return [int(np.flatnonzero(labels == label)[0]) for label in shown]


def classes(subject: Subject, task: Task) -> list[Classes]:
    """Return what each class's score looks for, before and after adaptation."""
    x = torch.from_numpy(task.query_x)
    own = x[first_of_each(task.query_y)]
    count = len(own)
    found = []
    for is_adapted, state in enumerate(subject.states(task)):
        with torch.no_grad():
            spread = state.layers.scores(x).std(0)[:count]
        score = _class_score(state.layers, spread)
        made = ascended(score, _mean(x, count)).numpy()
        is_blind = not bool((spread > 0).any())
        maps = saliency(score, own).numpy()
        found.append(Classes(subject.name, bool(is_adapted), made, maps, is_blind))
    return found


def _class_score(layers: Layers, spread: Tensor) -> Score:
    """Return what gives picture i the score of label i, in units of its spread."""
    scale = torch.where(spread > 0, spread, torch.ones_like(spread))
    rows = torch.arange(len(spread))

    def score(pictures: Tensor) -> Tensor:
        return layers.scores(pictures)[rows, rows] / scale

    return score


def _mean(x: Tensor, count: int) -> Tensor:
    """Return `count` copies of the mean picture, to start from."""
    return x.mean(0, keepdim=True).repeat(count, 1, 1, 1)
