"""Which round comes next: a pure function of the progress, the configuration and the strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem, evaluate_tasks

PlanKind = Callable[[], ItemKind]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        round: rounds of every kind done (INIT counts as one).
        version: TRAIN rounds done.
        probes: PROBE rounds done.
        evaluated: version of the last EVALUATE round, -1 for none.
        tasks_seen: tasks of all TRAIN rounds done.
    """

    round: int = 0
    version: int = 0
    probes: int = 0
    evaluated: int = -1
    tasks_seen: int = 0

    def after(self, kind: ItemKind, num_tasks: int) -> Progress:
        """Return the progress once a round of this kind is committed."""
        done = replace(self, round=self.round + 1)
        if kind is ItemKind.TRAIN:
            return replace(done, version=self.version + 1, tasks_seen=self.tasks_seen + num_tasks)
        if kind is ItemKind.PROBE:
            return replace(done, probes=self.probes + 1)
        if kind is ItemKind.EVALUATE:
            return replace(done, evaluated=self.version)
        return done


def next_kind(config: RunConfig, progress: Progress, plan: PlanKind) -> ItemKind | None:
    """Return the kind of the next round, or None when the run is over.

    Args:
        plan: the clustering strategy's choice between TRAIN and PROBE.
    """
    if progress.round == 0:
        return ItemKind.INIT
    is_last = progress.version >= config.run.rounds
    every = config.evaluation.every
    is_due = every > 0 and progress.version > 0 and progress.evaluated < progress.version
    if is_due and (is_last or progress.version % every == 0):
        return ItemKind.EVALUATE
    return None if is_last else plan()


def items_of(
    config: RunConfig, progress: Progress, kind: ItemKind, pipelines: tuple[int, ...]
) -> tuple[WorkItem, ...]:
    """Return the items of the next round in pipeline, slot, part order."""
    index = {
        ItemKind.INIT: 0,
        ItemKind.TRAIN: progress.version,
        ItemKind.PROBE: progress.probes,
        ItemKind.EVALUATE: 0,
    }[kind]

    def item(pipeline: int, slot: int, part: int) -> WorkItem:
        return WorkItem(progress.round, kind, pipeline, slot, part, index, progress.version)

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
