"""What models of pictures gain by clustering: table 3 of the paper, and alphabets."""

from __future__ import annotations

import operator
import textwrap
from collections.abc import Iterator, Sequence
from importlib.resources import files
from statistics import median
from typing import Any, Final

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.clustering import DATA, ORIGINS, PATIENT, TASK, facts_of, words
from dmaml.deploy.repro.experiment import (
    CROWDED,
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Table,
    Variant,
    cells_of,
    figure,
)
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.charts import Lines, Matrix, Node, Picture, Tree

NONE: Final = ("clustering.name=none",)


def total_rounds(total: int, pipelines: int, warmup: int = 0) -> int:
    """Return the rounds after which so many tasks were seen as one pipeline sees in `total`.

    Args:
        pipelines: that train after the warm-up, each on as many tasks a round as a single one.
        warmup: rounds of a single pipeline before.
    """
    return warmup + (total - warmup) // pipelines


# -- table 3 ---------------------------------------------------------------------------------------

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


def _rows3(form: Form) -> tuple[dict[str, Variant], dict[str, Variant]]:
    """Return the rows of table 3 by what they are called here: of two learners."""
    rows = _rows_of_learner(form, _TOTAL[form.quick])
    smaller = ("algorithm.order=first",) + (() if form.quick else ("model.width=16",))
    first = {
        name: Variant(f"{one.label}, first order", (*one.settings, *smaller))
        for name, one in _rows_of_learner(form, _FIRST[form.quick]).items()
        if name in ("A only", "B only", "even", "kmeans", "mixture")
    }
    return rows, first


def _rows_of_learner(form: Form, total: int) -> dict[str, Variant]:
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


def _cells3(form: Form) -> tuple[Cell, ...]:
    quick = ("model.width=16", "evaluation.test_tasks=300")
    rows, first = _rows3(form)
    variants = (*rows.values(), *first.values())
    return cells_of(TABLE3, variants, form, quick if form.quick else ())


def by_origin(runs: Sequence[Measured], origin: str) -> list[float]:
    """Return each run's test accuracy on the tasks of one origin, %."""
    tests = [run.finished.test for run in runs if run.finished.test is not None]
    return [100 * test["origins"][origin]["accuracy"][-1] for test in tests if "origins" in test]


def _outcome3(form: Form, results: Results) -> Outcome:
    learners = _rows3(form)
    rows = [one.label for of_learner in learners for one in of_learner.values()]
    runs = {
        one.label: results.of(one, form.seeds)
        for of_learner in learners
        for one in of_learner.values()
    }
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
    panel = Matrix("median test accuracy, %", tuple(rows), ORIGINS, values, (20.0, 100.0))
    return Outcome(
        (Table("test accuracy on each origin, 5-way 1-shot", columns, table),),
        (
            Picture("clustering_table3", f"Table 3, n = {form.seeds}", (panel,), columns=1),
        ),
        tuple(claim for one in learners for claim in _claims3(one, scores)),
        {"test": scores, "clusters": {name: facts_of(own) for name, own in runs.items()}},
    )  # fmt: skip


def _claims3(
    rows: dict[str, Variant], scores: dict[str, dict[str, list[float]]]
) -> Iterator[Published]:
    """Yield what table 3 shows in the paper: as good as alone, and better than mixed."""
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
                less = _less(scores[one.label][origin], scores[other.label][origin])
                if not less:
                    continue
                points = median(less)
                yield Published(
                    f"{one.label} on {origin}, against {other.label}", words_of_it,
                    f"{points:+.1f} points ({min(less):+.1f})", "table 3's shape",
                    "reached" if is_reached(points, least)
                    else f"{least - points:.1f} points below",
                )  # fmt: skip


def _less(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return the differences seed by seed, where both have all seeds."""
    return [a - b for a, b in zip(one, other, strict=True)] if len(one) == len(other) else []


def median_words(values: Sequence[float], worst: Any = min, digits: int = 1) -> str:
    """Return the median and the worst in brackets, or `–`."""
    if not values:
        return "–"
    return f"{median(values):.{digits}f} ({worst(values):.{digits}f})"


# -- alphabets -------------------------------------------------------------------------------------

_TREE: Final = (
    files("dmaml.configs").joinpath("tree_omniglot_alphabets.yaml").read_text(encoding="utf-8")
)
ALPHABETS: Final = _TREE[_TREE.index("run:") :].replace(
    "tree-omniglot-alphabets", "clustering_alphabets"
)
SPLIT: Final = Variant("with splitting")
WHOLE: Final = Variant(
    "without splitting",
    ("clustering.name=none", "clustering.max_pipelines=null", "clustering.options={}"),
)
UNTRAINED: Final = Variant(
    "no meta-training",
    (*WHOLE.settings, "algorithm.name=scratch", "algorithm.options={}", "run.rounds=0",
     "outer.schedule=constant", "evaluation.every=0"),
)  # fmt: skip
_THREE: Final = (SPLIT, WHOLE, UNTRAINED)


def _cells_of_alphabets(form: Form) -> tuple[Cell, ...]:
    quick = (
        "model.width=16", "run.rounds=241", "evaluation.every=60", "evaluation.tasks=20",
        "evaluation.test_tasks=100", "clustering.options.every=80", "clustering.options.rows=10",
    )  # fmt: skip
    found = []
    for variant in _THREE:
        own = [one for one in quick if variant is SPLIT or not one.startswith("clustering")]
        taken = {one.partition("=")[0] for one in variant.settings}
        own = [one for one in own if one.partition("=")[0] not in taken]
        found.append(cells_of(ALPHABETS, (variant,), form, tuple(own) if form.quick else ()))
    return tuple(cell for of_seed in zip(*found, strict=True) for cell in of_seed)


def _outcome_of_alphabets(form: Form, results: Results) -> Outcome:
    first = next(iter(results.of(SPLIT, form.seeds)), None)
    clusters = None if first is None else first.finished.clusters
    panel = thesis.curves(results, (SPLIT, WHOLE), form, "rounds", "validation")
    marks = () if clusters is None else splits_of(clusters)
    panel = Lines(
        panel.title, panel.x_label, panel.y_label, panel.lines, panel.y_limits, marks=marks
    )
    pictures = [Picture("clustering_alphabets", f"Alphabets, n = {form.seeds}", (panel,))]
    if clusters is not None:
        tree = tree_of(clusters, "tree of alphabets, seed 1")
        pictures.append(Picture("clustering_alphabets_tree", "", (tree,)))
    return Outcome(
        (thesis.final_table(results, _THREE, form, "Reptile"),),
        tuple(pictures),
        facts={
            "test": thesis.scores_of(results, _THREE, form),
            "splits": list(marks),
            "clusters": [one.finished.clusters for one in results.of(SPLIT, form.seeds)],
        },
        notes=() if not marks else (
            "Splits of seed 1 after rounds " + ", ".join(f"{mark:g}" for mark in marks)
            + ", marked in the curve. Every leaf trains on as many tasks a round as the one model.",
        ),
    )  # fmt: skip


def splits_of(clusters: dict[str, Any]) -> tuple[float, ...]:
    """Return the rounds after which a pipeline was split."""
    return tuple(sorted({float(one["trained"]) for one in clusters["trials"] if one["split"]}))


def tree_of(clusters: dict[str, Any], title: str) -> Tree:
    """Return the tree of pipelines with the names of each leaf's units."""
    rows = clusters["pipelines"]
    places = {row["pipeline"]: number for number, row in enumerate(rows)}
    nodes = tuple(
        Node(_words_of(row), None if row["parent"] is None else places[row["parent"]])
        for row in rows
    )
    return Tree(title, nodes)


def _words_of(row: dict[str, Any]) -> str:
    if not row["active"]:
        return f"pipeline {row['pipeline']}, split"
    names = ", ".join(row.get("names", [])) or f"{row['units']} units"
    return "\n".join(textwrap.wrap(f"pipeline {row['pipeline']}: {names}", 90))


EXPERIMENTS: Final = (
    Experiment(
        "clustering_table3",
        "Accuracy on each origin, alone, mixed and clustered",
        "table 3 of the clustering paper",
        "MAML, 5-way 1-shot, at equal total tasks: where two pipelines train, rounds are halved, "
        "and a model of one origin sees as many tasks as one of two pipelines. Half of the tasks "
        "of the even mixture are of each origin, as of two pipelines; of the random mixture each "
        "class is seen as often, as in warm-ups, so 80 % are Omniglot's. PROBE "
        "rounds are not counted. A second learner, of first order with 16 filters, has 3,000 "
        "rounds of the mixture. The test has as many tasks of each origin, and the routed system "
        f"answers. Inference finds classes and trains in one 5-way run. {DATA} The quick form has "
        "16 filters and 400 rounds of the mixture.",
        TABLE3,
        _cells3,
        _outcome3,
        quick_seeds=1,
    ),
    Experiment(
        "clustering_alphabets",
        "Reptile on alphabets with splitting, without, and without meta-training",
        "model splitting",
        "Settings of tree_omniglot_alphabets.yaml, which says what differs from the paper. The "
        f"quick form has 16 filters and 241 rounds, splits after 80. {CROWDED}",
        ALPHABETS,
        _cells_of_alphabets,
        _outcome_of_alphabets,
        quick_seeds=1,
    ),
)
