"""The numbers of a commit: answers in, parameters and a record out. One thread, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig
from dmaml.common.errors import DivergedError, RunFailedError
from dmaml.common.intervals import interval
from dmaml.common.items import WorkItem
from dmaml.common.layout import Flat, norm_of
from dmaml.server.aggregation import after_voids
from dmaml.server.aggregation.base import AggregationRule, weighted_sum
from dmaml.server.core.actions import Head
from dmaml.server.weights.base import WeightGenerator

Tables = Mapping[str, NDArray[np.float64]]
Contribution = tuple[int, int, int]
SUM_TOLERANCE: Final = 1e-6  # of weights, which may have been float32


@dataclass(frozen=True)
class Combined:
    """One pipeline's combined gradient and how it came about.

    Attributes:
        gradient: float32 `[d]`.
        losses: query loss by slot, of its last round that is there; None where the slot is void or
            not there.
        weights: weight by slot, 0 where the slot is void or not there.
        norm: Euclidean norm of the gradient, float64.
        weight_entropy: see `entropy_ratio`.
    """

    gradient: Flat
    losses: list[float | None]
    weights: list[float]
    norm: float
    weight_entropy: float


@dataclass(frozen=True)
class Figures:
    """What a TRAIN round came to for one pipeline.

    Attributes:
        num_tasks: tasks that it was trained on, local steps included.
        norm, weight_entropy: see `Combined`.
    """

    num_tasks: int
    norm: float
    weight_entropy: float


@dataclass(frozen=True)
class Computed:
    """What a commit came to.

    Attributes:
        row: for the run's record; None for INIT, and where every answer is void.
        figures: by pipeline; of TRAIN only.
        learning_rate: of the outer step; of TRAIN only.
        sat_out: pipelines that did not train, for γ leaves them too few units; of TRAIN only.
    """

    row: dict[str, Any] | None = None
    figures: dict[int, Figures] = field(default_factory=dict)
    learning_rate: float | None = None
    sat_out: frozenset[int] = frozenset()

    @property
    def num_tasks(self) -> int:
        """Tasks that were trained on, local steps included."""
        return sum(figures.num_tasks for figures in self.figures.values())


def combine(
    config: RunConfig,
    heads: list[Head],
    voids: frozenset[WorkItem],
    staleness: Mapping[WorkItem, int],
    gradients: Mapping[WorkItem, Flat],
    generator: WeightGenerator,
    rule: AggregationRule,
) -> Combined:
    """Combine one pipeline's answers in a TRAIN commit.

    Parts become the slot's gradient in part order, slots become the round's in slot order. A slot
    with a void part is void. Rounds are kept apart: a slot may be there once for each.

    Args:
        heads: the pipeline's answers in slot, round, part order; not all void.
        staleness: TRAIN commits since the parameters of each answer.
        gradients: the payloads, float32 `[d]` each.

    Raises:
        RunFailedError: the generator failed, or gave no weights; see `weights_by`.
        DivergedError: the combined gradient is not finite.
    """
    alive: dict[Contribution, list[Head]] = {}
    for head in counted(heads, voids):
        alive.setdefault(contribution_of(head.item), []).append(head)
    slots = [slot for _, _, slot in alive]
    losses = np.array([_slot_loss(parts) for parts in alive.values()])
    slot_gradients = [
        _slot_gradient(parts, gradients, config.algorithm.task_reduction)
        for parts in alive.values()
    ]
    ages = np.array([staleness[parts[0].item] for parts in alive.values()], dtype=np.int64)
    weights = weights_by(
        config.weights.name, generator, losses, np.array(slots, dtype=np.int64), ages
    )
    pipeline = heads[0].item.pipeline
    num_voids = len({contribution_of(item) for item in voids if item.pipeline == pipeline})
    with np.errstate(over="ignore", invalid="ignore"):  # it is looked at below
        gradient = after_voids(rule, num_voids).combine(slot_gradients, weights)
    norm = norm_of(gradient)
    if not math.isfinite(norm):
        raise DivergedError(
            f"the combined gradient of pipeline {pipeline} holds NaN or infinity, though no "
            f"contribution does (largest norm {max(head.norm for head in heads):g}): "
            f"aggregation.name {config.aggregation.name!r} left the range of float32. Lower "
            "algorithm.inner_lr or outer.lr, or set aggregation.max_norm, and start a new run."
        )
    slot_losses: list[float | None] = [None] * config.topology.slots
    slot_weights = [0.0] * config.topology.slots
    for slot, loss, weight in zip(slots, losses.tolist(), weights.tolist(), strict=True):
        slot_losses[slot] = loss
        slot_weights[slot] += weight
    return Combined(
        gradient,
        slot_losses,
        slot_weights,
        norm,
        entropy_ratio(weights.tolist()),
    )


def weights_by(
    name: str,
    generator: WeightGenerator,
    losses: NDArray[np.float64],
    slots: NDArray[np.int64],
    staleness: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return a generator's weights, which may be the user's own code, if they keep its contract.

    Args:
        name: what the configuration calls it.

    Raises:
        RunFailedError: it failed, or its weights are not `[n]`, finite, non-negative, of sum 1.
    """
    try:
        weights = np.asarray(generator.weights(losses, slots, staleness), dtype=np.float64)
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise RunFailedError(f"weight generator {name!r} failed: {reason}. Mend it.") from error
    if weights.shape == losses.shape and np.isfinite(weights).all() and (weights >= 0).all():
        total = math.fsum(weights)
        if abs(total - 1) <= SUM_TOLERANCE:
            return weights
        found = f"their sum is {total:g}"
    elif weights.shape != losses.shape:
        found = f"they have shape {list(weights.shape)}"
    else:
        wrong = [w for w in weights.tolist() if not (math.isfinite(w) and w >= 0)]
        found = f"one of them is {wrong[0]:g}"
    raise RunFailedError(
        f"weight generator {name!r} must give {losses.size} finite weights >= 0 of sum 1: {found}, "
        f"for losses {losses.tolist()}. Mend it (docs/weights.md); nothing was committed."
    )


def entropy_ratio(weights: Sequence[float]) -> float:
    """Return how evenly weights are spread: −Σ wᵢ ln wᵢ / ln n, from 0 (one counts) to 1 (equal).

    Args:
        weights: non-negative, sum to 1, `[n]`, n >= 1; one alone is spread evenly: 1.
    """
    if len(weights) == 1:
        return 1.0
    entropy = -sum(weight * math.log(weight) for weight in weights if weight > 0)
    return entropy / math.log(len(weights))


def contribution_of(item: WorkItem) -> Contribution:
    """Return (round, pipeline, slot): the parts of a slot are one contribution."""
    return item.round, item.pipeline, item.slot


def counted(heads: Sequence[Head], voids: frozenset[WorkItem]) -> list[Head]:
    """Return the answers whose slot counts: it has no void part."""
    void = {contribution_of(item) for item in voids}
    return [head for head in heads if contribution_of(head.item) not in void]


def train_metrics(heads: tuple[Head, ...], voids: frozenset[WorkItem]) -> dict[str, float]:
    """Return the round's means over tasks: `loss`, and what the algorithm gave."""
    alive = counted(heads, voids)
    count = sum(head.num_tasks for head in alive)
    total: dict[str, float] = {}
    for head in alive:
        for name, value in {**head.metrics, "loss": head.loss}.items():
            total[name] = total.get(name, 0.0) + value * head.num_tasks
    return {name: value / count for name, value in total.items()} if count else {}


def evaluation_metrics(tables: list[Tables]) -> dict[str, dict[str, list[float]]]:
    """Return mean and 95 % half-width (1.96 σ/√n) by adaptation step for each metric.

    Args:
        tables: the items' tables in item order, float64 `[tasks, steps + 1]` each.
    """
    names = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return {name: interval(np.concatenate([table[name] for table in tables])) for name in names}


def item_rows(
    heads: tuple[Head, ...], staleness: Sequence[int]
) -> list[dict[str, float | int | str]]:
    """Return who did each item, from how old parameters, and where its time went, seconds."""
    return [
        {
            "pipeline": head.item.pipeline,
            "slot": head.item.slot,
            "part": head.item.part,
            "worker_id": head.worker_id,
            "staleness": stale,
            **head.timings,
        }
        for head, stale in zip(heads, staleness, strict=True)
    ]


def _slot_loss(parts: list[Head]) -> float:
    count = sum(head.num_tasks for head in parts)
    return sum(head.loss * head.num_tasks for head in parts) / count


def _slot_gradient(parts: list[Head], gradients: Mapping[WorkItem, Flat], reduction: str) -> Flat:
    vectors = [gradients[head.item] for head in parts]
    if len(vectors) == 1:
        return vectors[0]
    count = sum(head.num_tasks for head in parts)
    shares = [1.0 if reduction == "sum" else head.num_tasks / count for head in parts]
    return weighted_sum(vectors, shares)
