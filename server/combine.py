"""The numbers of a commit: answers in, parameters and a record out. One thread, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig
from dmaml.common.intervals import interval
from dmaml.common.items import WorkItem
from dmaml.common.layout import Flat, norm_of
from dmaml.server.aggregation.base import AggregationRule, weighted_sum
from dmaml.server.core.actions import Head
from dmaml.server.weights.base import WeightGenerator

Tables = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Combined:
    """One pipeline's combined gradient and how it came about.

    Attributes:
        gradient: float32 `[d]`.
        losses: query loss by slot, None where the slot is void.
        weights: weight by slot, 0 where the slot is void.
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
        row: for the run's record; None for INIT.
        figures: by pipeline; of TRAIN only.
    """

    row: dict[str, Any] | None = None
    figures: dict[int, Figures] = field(default_factory=dict)

    @property
    def num_tasks(self) -> int:
        """Tasks that were trained on, local steps included."""
        return sum(figures.num_tasks for figures in self.figures.values())


def combine(
    config: RunConfig,
    heads: list[Head],
    voids: frozenset[WorkItem],
    gradients: Mapping[WorkItem, Flat],
    generator: WeightGenerator,
    rule: AggregationRule,
) -> Combined:
    """Combine one pipeline's answers of a TRAIN round.

    Parts become the slot's gradient in part order, slots become the round's in slot order. A slot
    with a void part is void.

    Args:
        heads: the pipeline's answers in slot, part order; not all void.
        gradients: the payloads, float32 `[d]` each.
    """
    by_slot: dict[int, list[Head]] = {}
    for head in heads:
        by_slot.setdefault(head.item.slot, []).append(head)
    void = void_slots(voids)
    alive = {s: parts for s, parts in by_slot.items() if (parts[0].item.pipeline, s) not in void}
    slots = list(alive)
    losses = np.array([_slot_loss(parts) for parts in alive.values()])
    slot_gradients = [
        _slot_gradient(parts, gradients, config.algorithm.task_reduction)
        for parts in alive.values()
    ]
    weights = generator.weights(
        losses, np.array(slots, dtype=np.int64), np.zeros(len(slots), dtype=np.int64)
    )
    gradient = rule.combine(slot_gradients, weights)
    by_slot_loss = dict(zip(slots, losses.tolist(), strict=True))
    by_slot_weight = dict(zip(slots, weights.tolist(), strict=True))
    return Combined(
        gradient,
        [by_slot_loss.get(slot) for slot in by_slot],
        [by_slot_weight.get(slot, 0.0) for slot in by_slot],
        norm_of(gradient),
        entropy_ratio(weights.tolist()),
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


def void_slots(voids: frozenset[WorkItem]) -> set[tuple[int, int]]:
    """Return (pipeline, slot) of every slot with a void part: it counts nothing."""
    return {(item.pipeline, item.slot) for item in voids}


def counted(heads: tuple[Head, ...], voids: frozenset[WorkItem]) -> list[Head]:
    """Return the answers whose slot counts."""
    void = void_slots(voids)
    return [head for head in heads if (head.item.pipeline, head.item.slot) not in void]


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


def item_rows(heads: tuple[Head, ...]) -> list[dict[str, float | int | str]]:
    """Return who did each item and where its time went, seconds."""
    return [
        {
            "pipeline": head.item.pipeline,
            "slot": head.item.slot,
            "part": head.item.part,
            "worker_id": head.worker_id,
            **head.timings,
        }
        for head in heads
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
