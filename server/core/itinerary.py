"""What comes after the rounds in progress. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem
from dmaml.server.core.modes import Mode
from dmaml.server.core.progress import Progress
from dmaml.server.core.round import Round
from dmaml.server.core.sequence import PlanKind, Routes, items_of, next_kind


@final
class Itinerary:
    """The rounds ahead, each looked up once however often it is asked for.

    Args:
        config: the run's.
        plan: the clustering strategy's choice between TRAIN and PROBE.
        mode: in which order it hands out items.
        rounds: those in progress, by their numbers; owned and changed by the core.
    """

    def __init__(
        self, config: RunConfig, plan: PlanKind, mode: Mode, rounds: Mapping[int, Round]
    ) -> None:
        self._config = config
        self._plan = plan
        self._mode = mode
        self._rounds = rounds
        self._after: tuple[WorkItem, ...] | None = None
        self._made: tuple[object, tuple[WorkItem, ...]] = (None, ())  # for which round, its items

    def ahead(self, progress: Progress) -> Progress:
        """Return the progress once the rounds in progress are done."""
        for one in self._rounds.values():
            progress = progress.committed(one.kind, 0).closed(one.kind)
        return progress

    def kind(self, ahead: Progress) -> ItemKind | None:
        """Return the kind of the round at this progress; None: the run is over."""
        return next_kind(self._config, ahead, self._plan)

    def items(self, ahead: Progress, kind: ItemKind, routes: Routes) -> tuple[WorkItem, ...]:
        """Return the items of the round at this progress: the same ones that were hinted at."""
        key = (kind, ahead._replace(evaluated=0, tasks_seen=0, commits=0), routes)
        if self._made[0] != key:
            self._made = key, items_of(self._config, ahead, kind, routes)
        return self._made[1]

    def after(self, progress: Progress, routes: Routes) -> tuple[WorkItem, ...]:
        """Return the items of the round after those in progress, as they are handed out.

        They are kept until `forget`, which every new round and every new γ calls for.
        """
        if self._after is None:
            ahead = self.ahead(progress)
            kind = self.kind(ahead)
            items = self.items(ahead, kind, routes) if kind else ()
            is_train = kind is ItemKind.TRAIN
            self._after = self._mode.opened(items, items[0].index) if is_train else items
        return self._after

    def forget(self) -> None:
        """Note that another round comes next, or the same one by another γ."""
        self._after = None
