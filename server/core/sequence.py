"""Which round comes next: a pure function of the progress, the configuration and the strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem, evaluate_tasks
from dmaml.server.core.progress import Progress

PlanKind = Callable[[Progress], ItemKind]


class Routes(NamedTuple):
    """What the core knows of γ: its version, and the ids of the active pipelines, ascending."""

    gamma_version: int = 0
    pipelines: tuple[int, ...] = (0,)


def next_kind(config: RunConfig, progress: Progress, plan: PlanKind) -> ItemKind | None:
    """Return the kind of the next round, or None when the run is over.

    Args:
        plan: the clustering strategy's choice between TRAIN and PROBE.
    """
    if progress.round == 0:
        return ItemKind.INIT
    is_last = progress.trained >= config.run.rounds
    every = config.evaluation.every
    is_due = every > 0 and progress.trained > 0 and progress.evaluated < progress.trained
    if is_due and (is_last or progress.trained % every == 0):
        return ItemKind.EVALUATE
    return None if is_last else plan(progress)


def items_of(
    config: RunConfig, progress: Progress, kind: ItemKind, routes: Routes
) -> tuple[WorkItem, ...]:
    """Return the items of the next round in pipeline, slot, part order."""
    index = {
        ItemKind.INIT: 0,
        ItemKind.TRAIN: progress.trained,
        ItemKind.PROBE: progress.probes,
        ItemKind.EVALUATE: 0,
    }[kind]

    def item(pipeline: int, slot: int, part: int) -> WorkItem:
        return WorkItem(
            progress.round, kind, pipeline, slot, part, index, progress.version,
            routes.gamma_version,
        )  # fmt: skip

    pipelines = routes.pipelines
    if kind is ItemKind.INIT:
        return tuple(item(p, 0, 0) for p in pipelines)
    places = [
        (slot, part)
        for slot in range(config.topology.slots)
        for part in range(config.topology.parts)
    ]
    if kind is ItemKind.TRAIN:
        return tuple(item(p, slot, part) for p in pipelines for slot, part in places)
    every = [item(pipelines[0], slot, part) for slot, part in places]
    if kind is ItemKind.EVALUATE:
        every = [one for one in every if len(evaluate_tasks(config, one))]
    return tuple(every)
