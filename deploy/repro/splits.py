"""The tree's split test over seeds: what is whole stays whole, what is two is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dmaml.deploy.repro.clustering import TREE, facts_of, recoveries
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
)
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.charts import Matrix, Picture

SPLITS: Final = (
    TREE.replace("clustering_tree", "clustering_splits")
    .replace("rounds: 250", "rounds: 61")
    .replace("classes: 1600", "classes: 400")
    .replace("width: 32", "width: 16")
    .replace("max_pipelines: 4, options: {every: 100, rows: 4}",
             "max_pipelines: 2, options: {every: 60, rows: 4}")
)  # fmt: skip
_TWO: Final = Variant("two origins")
_ONE: Final = Variant("one origin", ("task.options.only={train: omniglot}",))
_QUICK_SPLITS: Final = ("run.rounds=41", "clustering.options.every=40")
SEPARATED: Final = 0.9  # recovery of either origin


def num_split(runs: Sequence[Measured]) -> int:
    """Return how many runs ended with more than one pipeline."""
    return sum(active > 1 for active in facts_of(runs)["active"])


def num_separated(runs: Sequence[Measured]) -> int:
    """Return in how many runs either origin is recovered."""
    return sum(min(found) >= SEPARATED for found in recoveries(runs))


def _verdict(count: int, is_reached: bool, form: Form) -> str:
    """Return what 20 seeds, or as many as there are, say."""
    if not count:
        return ""
    return ("reached" if is_reached else "missed") + (" so far" if count < form.seeds else "")


def _cells_of_splits(form: Form) -> tuple[Cell, ...]:
    return cells_of(SPLITS, (_TWO, _ONE), form, _QUICK_SPLITS if form.quick else ())


def _outcome_of_splits(form: Form, results: Results) -> Outcome:
    one, two = (results.of(variant, form.seeds) for variant in (_ONE, _TWO))
    false, found = num_split(one), num_separated(two)
    counts = ((_ONE.label, one), (_TWO.label, two))
    values = tuple((num_split(own) / len(own) if own else None,) for _, own in counts)
    panel = Matrix(
        "runs that split", tuple(label for label, _ in counts), ("share",), values, (0.0, 1.0), 2
    )
    return Outcome(
        (
            Table(
                "first splits",
                ("training classes", "seeds", "split", f"both recovered (≥ {SEPARATED:g})"),
                (
                    (_ONE.label, str(len(one)), str(false), "–"),
                    (_TWO.label, str(len(two)), str(num_split(two)), str(found)),
                ),
            ),
        ),
        (Picture("clustering_splits", f"Runs whose tree split, n = {form.seeds}", (panel,),
                 columns=1),),
        (
            Published("splits of one origin", "wanted: none", f"{false} of {len(one)}",
                      "ours", _verdict(len(one), false == 0, form)),
            Published("origins separated", "wanted: 95 %", f"{found} of {len(two)}",
                      "ours",
                      _verdict(len(two), found >= 0.95 * len(two), form)),
        ),
        {"one origin": facts_of(one), "two origins": facts_of(two)},
    )  # fmt: skip


EXPERIMENTS: Final = (
    Experiment(
        "clustering_splits", "Does the tree split what is whole, and find what is two?", "ours",
        "Omniglot alone (280 training classes), and with miniImageNet (280 : 280). "
        f"Reptile, 60 rounds, then the split test. The quick form has {', '.join(_QUICK_SPLITS)}. "
        f"{CROWDED}",
        SPLITS, _cells_of_splits, _outcome_of_splits, quick_seeds=3, full_seeds=20,
    ),
)  # fmt: skip
