"""Reptile on alphabets with splitting, without, and without meta-training."""

from __future__ import annotations

import textwrap
from importlib.resources import files
from typing import Any, Final

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    CROWDED,
    Experiment,
    Form,
    Outcome,
    Results,
    Variant,
    cells_of,
)
from dmaml.deploy.sweep import Cell
from dmaml.report.charts import Lines, Node, Picture, Tree

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
