"""Slots that answer wrongly on purpose: what aggregation rules and weight generators must stand.

A fault is a pure function of the task or the item, like every answer: it does not depend on the
actor that does the item, nor on the division of a slot's tasks into parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.layout import Flat
from dmaml.common.sections import FaultsSection
from dmaml.common.seeds import Int64, Stream
from dmaml.worker.tasks.base import TaskBatch


def has_fault(faults: FaultsSection, item: WorkItem, kind: str) -> bool:
    """Tell whether an item is answered with this fault; only TRAIN items ever are."""
    is_ours = item.kind is ItemKind.TRAIN and item.slot in faults.slots
    return is_ours and faults.kind == kind


def with_shuffled_labels(batch: TaskBatch, streams: Sequence[Stream]) -> TaskBatch:
    """Return the batch with each task's support and query labels permuted, independently.

    Targets of a regression are permuted likewise.

    Args:
        streams: one per task; the support set's permutation is drawn first.
    """
    support, query = batch.support_y.shape[1], batch.query_y.shape[1]
    drawn = [(one.permutation(support), one.permutation(query)) for one in streams]
    return replace(
        batch,
        support_y=_permuted(batch.support_y, [both[0] for both in drawn]),
        query_y=_permuted(batch.query_y, [both[1] for both in drawn]),
    )


def scaled(gradient: Flat, scale: float) -> Flat:
    """Return scale times the gradient, float32 `[d]`."""
    with np.errstate(over="ignore"):  # what is not finite is void
        product: Flat = gradient * np.float32(scale)
    return product


def _permuted(labels: NDArray[Any], orders: Sequence[Int64]) -> NDArray[Any]:
    rows = [row[order] for row, order in zip(labels, orders, strict=True)]
    return np.stack(rows)
