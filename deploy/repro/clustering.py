"""Recovery of two origins by each clustering: table 2 and figures 6 to 9 of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

import numpy as np

from dmaml.deploy.repro.experiment import (
    CROWDED,
    UNMEASURED,
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Table,
    Variant,
    cells_of,
)
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.bands import Band, mean_and_half
from dmaml.report.charts import Line, Lines, Matrix, Picture

PAPER: Final = "Clustering Mixed Task Distributions using Meta-Learners"
ORIGINS: Final = ("omniglot", "miniimagenet")
MINIIMAGENET: Final = "{source: miniimagenet, classes: 100, rotations: true}"
TASK: Final = f"""\
task:
  source: mixed
  n_way: 5
  k_shot: 1
  k_query: 5
  image_size: 28
  options:
    sources: [{{source: omniglot, classes: 1600}}, {MINIIMAGENET}]
    channels: 3
    shares: units
"""
MAML: Final = """\
model:      {name: conv4, width: 32}
algorithm:  {name: maml, order: first, inner_lr: 0.4, inner_steps: 1, tasks: 4}
topology:   {slots: 2}
outer:      {name: adam, lr: 0.001}
"""
PATIENT: Final = "server:     {item_timeout_s: 600}\n"  # PROBE items are longer than TRAIN items
NO_TEST: Final = "evaluation: {every: 0, test_tasks: 0}\n" + PATIENT
EVEN: Final = (
    f"task.options.sources=[{{source: omniglot, classes: 400}}, {MINIIMAGENET}]",
)  # fmt: skip
RANKS: Final = ("task.options.channels=1", "task.options.equalise=true")
FOUR: Final = Variant("4 to 1")
PICTURES: Final = (
    FOUR,
    Variant("1 to 1", EVEN),
    Variant("4 to 1, rank-equalised", RANKS),
)
DATA: Final = (
    "Omniglot and miniImageNet, 28×28×3, 70/10/20 % of the classes by seed. 4 to 1: 1,600 "
    "characters and 100 classes in four rotations, 1,120 : 280 training classes; 1 to 1: 400 "
    "characters, 280 : 280. Rank-equalised pictures are grey. Each class is seen as often. The "
    "paper has Omniglot and Fungi. Recovery is the share of an origin's training classes that are "
    "in its cluster, of the best assignment of clusters to origins. Run, s: PROBE rounds included."
)

KMEANS: Final = (
    "run:        {name: clustering_kmeans, seed: 1, rounds: 601}\n" + TASK + MAML
    + "clustering: {name: kmeans, pipelines: 2, options: {features: embedding, whiten: noise, "
    "warmup: 600, samples: 20}}\n" + NO_TEST
)  # fmt: skip
MIXTURE: Final = (
    "run:        {name: clustering_mixture, seed: 1, rounds: 950}\n" + TASK + MAML
    + "clustering: {name: mixture, pipelines: 2, options: {warmup: 600, every: 50, cycles: 6, "
    "visits: 1.0}}\n" + NO_TEST
)  # fmt: skip
TREE: Final = (
    "run:        {name: clustering_tree, seed: 1, rounds: 250}\n"
    + TASK.replace("k_shot: 1", "k_shot: 5") + """\
model:      {name: conv2, width: 32}
algorithm:  {name: reptile, inner_lr: 0.001, inner_steps: 5, tasks: 2,
             options: {batch_size: 10, evaluation_batch_size: 5}}
topology:   {slots: 2}
outer:      {name: sgd, lr: 1.0}
clustering: {name: gradient_tree, max_pipelines: 4, options: {every: 100, rows: 4}}
""" + NO_TEST
)  # fmt: skip
GAMMA: Final = (
    "run:        {name: clustering_gamma, seed: 1, rounds: 201}\n"
    + TASK.replace("n_way: 5", "n_way: 2") + """\
model:      {name: conv4, width: 32}
algorithm:  {name: maml, order: second, inner_lr: learned, initial_lr: 0.4, per: layer,
             inner_steps: 1, tasks: 4}
topology:   {slots: 2}
outer:      {name: adam, lr: 0.001}
clustering:
  name: gamma
  pipelines: 2
  options: {bias: 0.65, meta_train_iterations: 200, update_iterations: 600,
            iterations_per_round: 20, cycles: 1, meta_update_rate: 1.0e+6, tasks: 8}
""" + NO_TEST
)  # fmt: skip
_PIXELS: Final = tuple(
    Variant(
        f"{one.label}, raw pixels",
        (*one.settings, "clustering.options={features: pixels}", "run.rounds=1"),
    )
    for one in PICTURES
)
_SUMS: Final = "clustering.options.bound=phase"
_READINGS: Final = tuple(
    Variant(f"4 to 1, {label}", settings)
    for label, settings in {
        "sums of a phase": (_SUMS,),
        "sums of a phase, clipped": (_SUMS, "clustering.options.robust=clip"),
        "median": ("clustering.options.robust=median",),
        "sums of a phase, four short cycles": (
            _SUMS, "clustering.options.cycles=4", "clustering.options.meta_train_iterations=50",
            "clustering.options.update_iterations=150", "run.rounds=201",
        ),
        "sums of a phase, median": (_SUMS, "clustering.options.robust=median"),
        "absolute differences": ("clustering.options.diff=absolute",),
        "1 − p(θ₂)": ("clustering.options.complement=second",),
        "above the least difference": (_SUMS, "clustering.options.centre=min"),
        "bare differences": (_SUMS, "clustering.options.centre=none"),
        "one initial θ": ("clustering.options.theta=shared",),
        "γ begins at 1 or 0": ("clustering.options.offset=0.5",),
    }.items()
)  # fmt: skip


COLUMNS: Final = (
    "",
    "seeds",
    "median recovery",
    "worst seed",
    "pipelines",
    "median (longest) run, s",
)  # of `row_of`


# -- figures of runs -------------------------------------------------------------------------------


def recoveries(runs: Sequence[Measured]) -> list[list[float]]:
    """Return the recovery of each origin, run by run, of the runs that tell it."""
    told = [run.finished.clusters for run in runs]
    return [one["recovery"] for one in told if one is not None and one["recovery"]]


def medians(found: Sequence[Sequence[float]]) -> list[float]:
    """Return the median over runs of each origin; [] where there is none."""
    return [median(values) for values in zip(*found, strict=True)]


def worst(found: Sequence[Sequence[float]]) -> list[float]:
    """Return the least of each origin over runs; [] where there is none."""
    return [min(values) for values in zip(*found, strict=True)]


def facts_of(runs: Sequence[Measured]) -> dict[str, Any]:
    """Return what a variant came to, for the JSON object."""
    found = recoveries(runs)
    told = [run.finished.clusters for run in runs if run.finished.clusters is not None]
    return {
        "recovery": medians(found),
        "recovery_worst": worst(found),
        "runs": found,
        "seeds": len(found),
        "wall_s": [one["wall_s"] for one in told],
        "active": [sum(node["active"] for node in one["pipelines"]) for one in told],
    }


def words(values: Sequence[float]) -> str:
    """Return figures of origins as .98 / .97, or `–`."""
    return " / ".join(f"{value:.3f}" for value in values) or "–"


def _seconds(values: Sequence[float]) -> str:
    """Return the median, and the longest in brackets."""
    return f"{median(values):.0f} ({max(values):.0f})" if values else "–"


def row_of(variant: Variant, runs: Sequence[Measured]) -> tuple[str, ...]:
    """Return a variant's row of a table with COLUMNS."""
    facts = facts_of(runs)
    active = sorted({str(count) for count in facts["active"]})
    return (
        variant.label, str(facts["seeds"]), words(facts["recovery"]),
        words(facts["recovery_worst"]), ", ".join(active), _seconds(facts["wall_s"]),
    )  # fmt: skip


# -- table 2 ---------------------------------------------------------------------------------------


def _recovery(
    name: str,
    title: str,
    config: str,
    quick: tuple[str, ...],
    published: Sequence[float] = (),
    wanted: float | None = None,
    others: tuple[Variant, ...] = (),
    quick_seeds: int = 1,
    about: str = "",
) -> Experiment:
    """Return the experiment of one strategy.

    Args:
        quick: settings of the quick form.
        published: recovery of the two origins.
        wanted: of both origins, at 4 to 1.
        others: variants beside those of PICTURES.
    """

    def variants_of(form: Form) -> tuple[Variant, ...]:
        return (*PICTURES, *others)

    def cells(form: Form) -> tuple[Cell, ...]:
        return cells_of(config, variants_of(form), form, quick if form.quick else ())

    def outcome(form: Form, results: Results) -> Outcome:
        variants = variants_of(form)
        runs = {one.label: results.of(one, form.seeds) for one in variants}
        facts = {label: facts_of(found) for label, found in runs.items()}
        rows = tuple(row_of(one, runs[one.label]) for one in variants)
        values = tuple(
            tuple(facts[one.label]["recovery"]) or (None,) * len(ORIGINS) for one in variants
        )
        panel = Matrix(
            "median recovery", tuple(one.label for one in variants), ORIGINS, values, (0.5, 1.0), 3
        )
        four = facts[FOUR.label]
        found = words(four["recovery"]) if four["seeds"] else UNMEASURED
        reached = ""
        if wanted is not None and four["seeds"]:
            reached = "reached" if min(four["recovery"]) >= wanted else f"below {wanted:g}"
        return Outcome(
            (Table(f"recovery, {' / '.join(ORIGINS)}", COLUMNS, rows),),
            (Picture(name, f"{title}, n = {form.seeds}", (panel,), columns=1),),
            (
                Published(
                    "recovery, 4 : 1", words(published) if published else "none", found, PAPER,
                    reached,
                ),
            ),
            {"variants": facts},
            headline={
                "recovery": four["recovery"], "recovery_worst": four["recovery_worst"],
                "origins": list(ORIGINS),
            },
        )  # fmt: skip

    text = f"{about} {DATA} The quick form has {', '.join(quick)}. {CROWDED}"
    return Experiment(
        name, title, "table 2 of the clustering paper", text.strip(), config, cells, outcome,
        quick_seeds=quick_seeds, full_seeds=5,
    )  # fmt: skip


# -- figures 6 to 9 --------------------------------------------------------------------------------


def _sweep(
    name: str, title: str, config: str, x_label: str, points: dict[float, tuple[str, ...]],
    quick_points: Sequence[float], quick: tuple[str, ...], about: str,
) -> Experiment:  # fmt: skip
    """Return the experiment of one option of `gamma`, point by point."""
    variants = {x: Variant(f"{x_label} {x:g}", settings) for x, settings in points.items()}

    def cells(form: Form) -> tuple[Cell, ...]:
        chosen = quick_points if form.quick else tuple(points)
        common = quick if form.quick else ()
        return cells_of(config, [variants[x] for x in chosen], form, common)

    def outcome(form: Form, results: Results) -> Outcome:
        chosen = quick_points if form.quick else tuple(points)
        found = {x: results.of(variants[x], form.seeds) for x in chosen}
        lines = tuple(
            Line(origin, _band({x: recoveries(runs) for x, runs in found.items()}, number))
            for number, origin in enumerate(ORIGINS)
        )
        rows = tuple(row_of(variants[x], found[x]) for x in chosen)
        columns = (
            x_label, "seeds", f"median recovery, {' / '.join(ORIGINS)}", "worst seed",
            "pipelines", "median (longest) run, s",
        )  # fmt: skip
        panel = Lines(
            title, x_label, "recovery ± 95 %", lines, y_limits=(0.0, 1.0), has_points=True
        )
        return Outcome(
            (Table("recovery", columns, rows),),
            (Picture(name, f"{title}, n = {form.seeds}", (panel,)),),
            facts={"points": {f"{x:g}": facts_of(runs) for x, runs in found.items()}},
        )

    text = f"{about} {DATA} The quick form has {', '.join(quick)}. {CROWDED}"
    return Experiment(
        name, title, "figures 6 to 9 of the clustering paper", text, config, cells, outcome,
        quick_seeds=1, full_seeds=5,
    )  # fmt: skip


def _band(found: dict[float, list[list[float]]], number: int) -> Band:
    """Return one origin's recovery at each point that was measured."""
    values = {x: [run[number] for run in runs] for x, runs in found.items() if runs}
    values = {x: own for x, own in values.items() if all(map(math.isfinite, own))}
    means = [mean_and_half(own) for own in values.values()]
    count = min((len(own) for own in values.values()), default=0)
    return Band(
        np.array(list(values)), np.array([m for m, _ in means]), np.array([h for _, h in means]),
        count,
    )  # fmt: skip


_BIASES: Final = (0.55, 0.65, 0.75, 0.85, 0.95)
_ITERATIONS: Final = (50, 100, 200, 400, 800)
_QUICK_GAMMA: Final = (
    "model.width=16", "algorithm.order=first", "clustering.options.update_iterations=200",
)  # fmt: skip

EXPERIMENTS: Final = (
    _recovery(
        "clustering_kmeans", "Recovery of two origins by K-means", KMEANS,
        ("model.width=16", "run.rounds=201", "clustering.options.warmup=200"),
        (0.91, 0.87), 0.99, others=_PIXELS,
        about="K-means of 20 samples of each class in the features that a meta-learner has after "
        "600 rounds on everything, in units of the noise of samples about their class; and as in "
        "the paper on raw pixels, 50 samples projected to 512 columns.",
    ),
    _recovery(
        "clustering_gamma", "Recovery of two origins by γ and gradient steps", GAMMA,
        (*_QUICK_GAMMA, "run.rounds=101", "clustering.options.meta_train_iterations=100"),
        (0.73, 0.64), others=_READINGS,
        about="Tables 4 and 5 of the paper as printed, and other readings "
        "(docs/clustering/gamma.md).",
    ),
    _recovery(
        "clustering_mixture", "Recovery of two origins by a mixture", MIXTURE,
        ("model.width=16", "run.rounds=280", "clustering.options.warmup=200",
         "clustering.options.every=20", "clustering.options.cycles=3"),
        (0.73, 0.64), 0.98, about="The published figures are those of γ.",
    ),
    _recovery(
        "clustering_tree", "Recovery of two origins by a tree of models", TREE,
        ("model.width=16", "run.rounds=61", "clustering.options.every=60",
         "clustering.options.rows=2"),
        (0.73, 0.64), 0.98,
        about="Reptile, 5-way 5-shot. Two leaves are wanted, up to four are allowed; recovery "
        "counts one leaf for each origin. The published figures are those of γ.",
    ),
    _sweep(
        "clustering_bias", "Recovery by the initial bias of γ",
        GAMMA.replace("clustering_gamma", "clustering_bias").replace("bias: 0.65", "bias: 0.55"),
        "bias", {b: (f"clustering.options.bias={b}",) for b in _BIASES}, (0.55, 0.75, 0.95),
        (*_QUICK_GAMMA, "run.rounds=101", "clustering.options.meta_train_iterations=100"),
        "As printed otherwise, 200 meta-train iterations.",
    ),
    _sweep(
        "clustering_iterations", "Recovery of γ by meta-train iterations",
        GAMMA.replace("clustering_gamma", "clustering_iterations")
        .replace("bias: 0.65", "bias: 0.75")
        .replace("rounds: 201", "rounds: 51")
        .replace("meta_train_iterations: 200", "meta_train_iterations: 50"),
        "iterations",
        {
            n: (f"clustering.options.meta_train_iterations={n}", f"run.rounds={n + 1}")
            for n in _ITERATIONS
        },
        (50, 100, 200), _QUICK_GAMMA,
        "Bias .75. We take the iterations that are swept to be those of meta-training.",
    ),
)  # fmt: skip
