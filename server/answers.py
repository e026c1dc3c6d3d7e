"""The answers of the rounds in progress, and what a commit makes of them."""

from __future__ import annotations

import math
from typing import final

from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.layout import Flat, Layout
from dmaml.common.probes import Observation, Probe
from dmaml.server import aggregation
from dmaml.server.clustering.clusterer import Clusterer
from dmaml.server.clustering.probing import gathered
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
        clusterer: Clusterer,
    ) -> None:
        self._config = config
        self._parameters = parameters
        self._generators = generators
        self._rule = aggregation.build(config.aggregation)
        self._shelf = shelf
        self._clusterer = clusterer
        self._tables: dict[WorkItem, Tables] = {}
        self._layouts: dict[WorkItem, Layout] = {}
        self._observations: dict[WorkItem, Observation] = {}

    def num_required(self, num_voids: int) -> int:
        """Return how many contributions a commit needs beside so many that are void."""
        return aggregation.num_required(aggregation.after_voids(self._rule, num_voids))

    def open(self) -> None:
        """Reserve a round's places, once the model's size is known."""
        self._shelf.open(self._parameters.layout.size)

    def keep(
        self,
        item: WorkItem,
        flat: Flat,
        tables: Tables,
        layout: Layout | None,
        observation: Observation | None = None,
    ) -> None:
        """Keep one answer until its round is combined."""
        if observation is not None:
            self._observations[item] = observation
        elif item.kind is ItemKind.TRAIN:
            if flat.size:  # else its pipeline sits out
                self._shelf.put(item, flat)
        elif item.kind is ItemKind.INIT and layout is not None:
            self._layouts[item] = layout
            self._shelf.keep(item, flat)
        else:
            self._tables[item] = tables

    def combine(self, commit: Commit, probe: Probe | None = None, trained: int = 0) -> Computed:
        """Combine a commit's answers, move the parameters and stage them, forget the answers.

        Args:
            probe: what a PROBE round asked for.
            trained: TRAIN rounds before it.
        """
        if commit.kind is ItemKind.PROBE and probe is not None:
            computed = self._probe(commit, probe, trained)
        else:
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
            self._observations.pop(item, None)
        return computed

    def _init(self, commit: Commit) -> Computed:
        layout = self._layouts[commit.heads[0].item]
        flats = {head.item.pipeline: self._shelf.get(head.item) for head in commit.heads}
        self._parameters.start(layout, flats)
        self.open()
        return Computed()

    def _train(self, commit: Commit) -> Computed:
        counting = counted(commit.heads, commit.voids)
        alive = [head for head in counting if head.num_tasks]
        sat_out = frozenset(head.item.pipeline for head in counting if not head.num_tasks)
        if sat_out and not alive and self._config.sync.mode != "async":
            raise RunFailedError(
                f"γ version {commit.gamma_version} leaves no pipeline enough units for task.n_way "
                f"{self._config.task.n_way}: nothing can be trained. Lower task.n_way or "
                "clustering.pipelines."
            )
        if not alive:
            return Computed(sat_out=sat_out)
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
        return Computed(row, figures, lr, sat_out)

    def _evaluate(self, commit: Commit) -> Computed:
        row = {
            "table": "evaluations",
            "split": self._config.evaluation.split,
            "num_tasks": sum(head.num_tasks for head in commit.heads),
            "metrics": evaluation_metrics([self._tables[head.item] for head in commit.heads]),
        }
        return Computed(row)

    def _probe(self, commit: Commit, probe: Probe, trained: int) -> Computed:
        pipelines = self._clusterer.gamma.pipelines
        answers = [self._observations[head.item] for head in commit.heads]
        before = self._clusterer.gamma.version
        gamma = self._clusterer.observe(gathered(answers, probe, pipelines, trained))
        self._parameters.follow(gamma)
        self._generators.follow(gamma)
        self._parameters.stage(commit.version)
        return Computed(self._clusterer.row() if gamma.version != before else None)
