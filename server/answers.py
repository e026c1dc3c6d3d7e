"""The answers of the rounds in progress, and what a commit makes of them."""

from __future__ import annotations

import math
from typing import final

from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.layout import Flat, Layout
from dmaml.server import aggregation
from dmaml.server.combine import (
    Combined,
    Computed,
    Figures,
    Tables,
    combine,
    counted,
    evaluation_metrics,
    item_rows,
    train_metrics,
)
from dmaml.server.core.actions import Commit, Head
from dmaml.server.outer.schedules import learning_rate
from dmaml.server.parameters import Parameters
from dmaml.server.shelf import Shelf
from dmaml.server.weights.per_pipeline import PerPipeline


@final
class Answers:
    """Keeps answers (on the event loop) and combines them (on the numeric thread)."""

    def __init__(
        self,
        config: RunConfig,
        parameters: Parameters,
        generators: PerPipeline,
        shelf: Shelf,
    ) -> None:
        self._config = config
        self._parameters = parameters
        self._generators = generators
        self._rule = aggregation.build(config.aggregation)
        self._shelf = shelf
        self._tables: dict[WorkItem, Tables] = {}
        self._layouts: dict[WorkItem, Layout] = {}

    def num_required(self, num_voids: int) -> int:
        """Return how many contributions a commit needs beside so many that are void."""
        return aggregation.num_required(aggregation.after_voids(self._rule, num_voids))

    def open(self) -> None:
        """Reserve a round's places, once the model's size is known."""
        self._shelf.open(self._parameters.layout.size)

    def keep(self, item: WorkItem, flat: Flat, tables: Tables, layout: Layout | None) -> None:
        """Keep one answer until its round is combined."""
        if item.kind is ItemKind.TRAIN:
            self._shelf.put(item, flat)
        elif item.kind is ItemKind.INIT and layout is not None:
            self._layouts[item] = layout
            self._shelf.keep(item, flat)
        else:
            self._tables[item] = tables

    def combine(self, commit: Commit) -> Computed:
        """Combine a commit's answers, move the parameters and stage them, forget the answers."""
        computed = {
            ItemKind.INIT: self._init,
            ItemKind.TRAIN: self._train,
            ItemKind.EVALUATE: self._evaluate,
        }[commit.kind](commit)
        items = [head.item for head in commit.heads]
        self._shelf.forget(items)
        for item in items:
            self._tables.pop(item, None)
            self._layouts.pop(item, None)
        return computed

    def _init(self, commit: Commit) -> Computed:
        layout = self._layouts[commit.heads[0].item]
        flats = {head.item.pipeline: self._shelf.get(head.item) for head in commit.heads}
        self._parameters.start(layout, flats)
        self.open()
        return Computed()

    def _train(self, commit: Commit) -> Computed:
        alive = counted(commit.heads, commit.voids)
        if not alive:
            return Computed()
        staleness = dict(zip([h.item for h in commit.heads], commit.staleness, strict=True))
        by_pipeline: dict[int, list[Head]] = {}
        for head in alive:
            by_pipeline.setdefault(head.item.pipeline, []).append(head)
        lr = learning_rate(self._config.outer, commit.index, self._config.run.rounds)
        done: dict[int, Combined] = {}
        for pipeline, heads in by_pipeline.items():
            done[pipeline] = combine(
                self._config,
                heads,
                commit.voids,
                staleness,
                {head.item: self._shelf.get(head.item) for head in heads},
                self._generators.of(pipeline),
                self._rule,
            )
            self._parameters.step(pipeline, done[pipeline].gradient, lr)
        self._parameters.stage(commit.version + 1)
        metrics = train_metrics(commit.heads, commit.voids)
        row = {
            "table": "rounds",
            "loss": metrics.pop("loss"),
            "metrics": metrics,
            "weights": {str(p): one.weights for p, one in done.items()},
            "losses": {str(p): one.losses for p, one in done.items()},
            "norm": math.sqrt(sum(one.norm**2 for one in done.values())),
            "voids": len(commit.voids),
            "items": item_rows(commit.heads, commit.staleness),
        }
        num_tasks = dict.fromkeys(done, 0)
        for head in alive:
            num_tasks[head.item.pipeline] += head.num_tasks
        figures = {
            p: Figures(num_tasks[p], one.norm, one.weight_entropy) for p, one in done.items()
        }
        return Computed(row, figures, lr)

    def _evaluate(self, commit: Commit) -> Computed:
        row = {
            "table": "evaluations",
            "split": self._config.evaluation.split,
            "num_tasks": sum(head.num_tasks for head in commit.heads),
            "metrics": evaluation_metrics([self._tables[head.item] for head in commit.heads]),
        }
        return Computed(row)
