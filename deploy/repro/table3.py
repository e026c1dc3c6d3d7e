"""What models of two origins gain by clustering: table 3 of the paper."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

from dmaml.deploy.repro.clustering import (
    DATA,
    EVEN,
    ORIGINS,
    PATIENT,
    TASK,
    facts_of,
    words,
)
from dmaml.deploy.repro.experiment import (
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Table,
    Variant,
    cells_of,
    figure,
    median_words,
    total_rounds,
)
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.charts import Matrix, Picture

TABLE3: Final = (
    "run:        {name: clustering_table3, seed: 1, rounds: 2500}\n"
    + TASK.rstrip() + "\n    only: {train: omniglot}\n" + """\
model:      {name: conv4, width: 32}
algorithm:  {name: maml, order: second, inner_lr: learned, initial_lr: 0.4, per: layer,
             inner_steps: 1, tasks: 4}
topology:   {slots: 2}
outer:      {name: adam, lr: 0.001, schedule: cosine, final: 0.01}
evaluation: {every: 0, steps: 1, k_query: 5, test_tasks: 1000}
""" + PATIENT
)  # fmt: skip
_TOTAL: Final = {True: 400, False: 5000}  # rounds of the single model of everything
_FIRST: Final = {True: 400, False: 3000}  # the same of the learner of first order
_WARMUP: Final = {True: 200, False: 600}
_ALL: Final = ("task.options.only={}",)


def _parts(form: Form) -> tuple[dict[str, Variant], ...]:
    """Return the rows by what they are called here: at 4 to 1, at 1 to 1, of another learner."""
    whole = _rows(form, _TOTAL[form.quick])
    smaller = ("algorithm.order=first",) + (() if form.quick else ("model.width=16",))
    first = ("A only", "B only", "even", "kmeans", "mixture")
    of_first = _rows(form, _FIRST[form.quick])
    return (
        whole,
        _part("1 to 1", EVEN, {name: row for name, row in whole.items() if name != "even"}),
        _part("first order", smaller, {name: of_first[name] for name in first}),
    )


def _part(label: str, settings: tuple[str, ...], rows: dict[str, Variant]) -> dict[str, Variant]:
    return {
        name: Variant(f"{row.label}, {label}", (*row.settings, *settings))
        for name, row in rows.items()
    }


def _rows(form: Form, total: int) -> dict[str, Variant]:
    warmup = _WARMUP[form.quick]
    half, late = total_rounds(total, 2), total_rounds(total, 2, warmup)
    every = (late - warmup) // form.choose(4, 8)

    def row(label: str, rounds: int, *settings: str) -> Variant:
        return Variant(label, (*settings, f"run.rounds={rounds}"))

    def clustered(label: str, rounds: int, name: str, **options: Any) -> Variant:
        own = tuple(f"clustering.options.{key}={value}" for key, value in options.items())
        number = "max_pipelines" if name == "gradient_tree" else "pipelines"
        chosen = (f"clustering.name={name}", f"clustering.{number}=2")
        return row(label, rounds, *_ALL, *chosen, *own)

    return {
        "A only": row("Omniglot only", half),
        "B only": row("miniImageNet only", half, "task.options.only={train: miniimagenet}"),
        "even": row("even mixture", total, *_ALL, "task.options.shares=equal"),
        "mixed": row("random mixture", total, *_ALL),
        "kmeans": clustered("K-means", half, "kmeans"),
        "gamma": clustered(
            "inference", half, "gamma", bias=0.65, meta_train_iterations=form.choose(100, 200),
            update_iterations=form.choose(200, 600), iterations_per_round=20, tasks=8,
        ),
        "mixture": clustered(
            "mixture", late, "mixture", warmup=warmup, every=max(1, every - 1),
            cycles=form.choose(3, 6), visits=1.0,
        ),
        "tree": clustered(
            "tree", late, "gradient_tree", every=warmup, rows=form.choose(4, 20),
        ),
    }  # fmt: skip


def _cells(form: Form) -> tuple[Cell, ...]:
    quick = ("model.width=16", "evaluation.test_tasks=300")
    variants = [row for part in _parts(form) for row in part.values()]
    return cells_of(TABLE3, variants, form, quick if form.quick else ())


def by_origin(runs: Sequence[Measured], origin: str) -> list[float]:
    """Return each run's test accuracy on the tasks of one origin, %."""
    tests = [run.finished.test for run in runs if run.finished.test is not None]
    return [100 * test["origins"][origin]["accuracy"][-1] for test in tests if "origins" in test]


def _outcome(form: Form, results: Results) -> Outcome:
    parts = _parts(form)
    runs = {row.label: results.of(row, form.seeds) for part in parts for row in part.values()}
    rows = tuple(runs)
    scores = {
        label: {origin: by_origin(own, origin) for origin in ORIGINS} for label, own in runs.items()
    }
    table = tuple(
        (
            label, str(len(runs[label])),
            figure([run.finished.tasks_seen for run in runs[label]], 0),
            words(facts_of(runs[label])["recovery"]),
            *(median_words(scores[label][origin]) for origin in ORIGINS),
        )
        for label in rows
    )  # fmt: skip
    columns = (
        "trained on", "seeds", "tasks seen", "recovery",
        *(f"{origin}: median test accuracy, % (worst)" for origin in ORIGINS),
    )  # fmt: skip
    values = tuple(
        tuple(median(own) if own else None for own in scores[label].values()) for label in rows
    )
    panel = Matrix("median test accuracy, %", rows, ORIGINS, values, (20.0, 100.0))
    return Outcome(
        (Table("test accuracy on each origin, 5-way 1-shot", columns, table),),
        (
            Picture("clustering_table3", f"Table 3, n = {form.seeds}", (panel,), columns=1),
        ),
        tuple(claim for part in parts for claim in _claims(part, form, results)),
        {"test": scores, "clusters": {name: facts_of(own) for name, own in runs.items()}},
    )  # fmt: skip


def _claims(rows: dict[str, Variant], form: Form, results: Results) -> Iterator[Published]:
    """Yield what table 3 shows in the paper: as good as alone, and better than mixed.

    Differences are those of one seed's runs, of the seeds of which both are there.
    """
    alone = dict(zip(ORIGINS, ("A only", "B only"), strict=True))
    for name in ("kmeans", "gamma", "mixture", "tree"):
        for origin in ORIGINS:
            wanted = {
                alone[origin]: ("within 1 point", -1.0, operator.ge),
                "even": ("above it", 0.0, operator.gt),
                "mixed": ("above it", 0.0, operator.gt),
            }
            for base, (words_of_it, least, is_reached) in wanted.items():
                one, other = (rows.get(key) for key in (name, base))
                if one is None or other is None:
                    continue
                pairs = results.pairs(one, other, form.seeds)
                less = [
                    a - b
                    for x, y in pairs
                    for a, b in zip(by_origin([x], origin), by_origin([y], origin), strict=True)
                ]
                if not less:
                    continue
                points = median(less)
                yield Published(
                    f"{origin}: {one.label}, against {other.label}", words_of_it,
                    f"{points:+.1f} points ({min(less):+.1f})", "table 3's shape",
                    "reached" if is_reached(points, least)
                    else f"{least - points:.1f} points below",
                )  # fmt: skip


EXPERIMENTS: Final = (
    Experiment(
        "clustering_table3",
        "Accuracy on each origin, alone, mixed and clustered",
        "table 3 of the clustering paper",
        "MAML, 5-way 1-shot, at equal total tasks: where two pipelines train, rounds are halved, "
        "and a model of one origin sees as many tasks as one of two pipelines. Half of the tasks "
        "of the even mixture are of each origin, as of two pipelines; of the random mixture each "
        "class is seen as often, as in warm-ups, so 80 % are Omniglot's. At 1 to 1 both are the "
        "same. PROBE rounds are not counted. A second learner, of first order with 16 filters, "
        "has 3,000 rounds of the mixture, at 4 to 1. A tree that does not split sees fewer tasks. "
        "The test has as many tasks of each origin, and the "
        f"routed system answers. Inference finds classes and trains in one 5-way run. {DATA} The "
        "quick form has 16 filters and 400 rounds of the mixture.",
        TABLE3,
        _cells,
        _outcome,
        quick_seeds=1,
    ),
)
