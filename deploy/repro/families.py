"""Families of functions: one meta-model, clustered ones, and one for each family."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Final, final

from dmaml.deploy.repro.clustering import PATIENT, facts_of, words
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
    final_scores,
    median_words,
    total_rounds,
)
from dmaml.deploy.sweep import Cell
from dmaml.report.charts import Matrix, Picture

FAMILIES: Final = (
    """\
run:         {name: clustering_families, seed: 1, rounds: 5000}
task:        {source: function_families, n_way: 1, k_shot: 5, k_query: 10, options: {setting: hsml}}
model:       {name: mlp, hidden: [40, 40], init: glorot}
algorithm:   {name: maml, order: second, inner_lr: learned, per: layer_step, initial_lr: 0.01,
              inner_steps: 5, multi_step_rounds: 100000, inner_clip: 40.0, tasks: 100}
engine:      {chunk: 100}
topology:    {slots: 1}
aggregation: {name: clip, options: {norm: 10.0}}
outer:       {name: adam, lr: 0.003, schedule: cosine, final: 0.01}
evaluation:  {every: 0, steps: 5, k_query: 10, test_tasks: 1000}
"""
    + PATIENT
)
_TOTAL: Final = {True: 1000, False: 5000}  # rounds of one MAML
_WHOLE: Final = {True: 200, False: 1000}  # of one leaf, before the tree's splits
_ONE: Final = "one MAML"
_KNOWN: Final = "one MAML for each family"


@final
@dataclass(frozen=True)
class _Families:
    """Families of one paper, and what was published of them after five examples.

    Attributes:
        prefix: of the labels of its rows.
        setting: its settings beside FAMILIES.
        names: of the families.
        published: mean squared errors by row.
        share: of one MAML's error, what was published and is wanted.
        by: who published.
    """

    prefix: str
    setting: tuple[str, ...]
    names: tuple[str, ...]
    published: dict[str, str]
    share: str
    by: str

    def rows(self, form: Form) -> tuple[Variant, ...]:
        """Return one MAML and the clusterings, at equal total tasks."""
        total, whole, size = _TOTAL[form.quick], _WHOLE[form.quick], len(self.names)
        apart, late = total_rounds(total, size), total_rounds(total, size, whole)
        kinds = f"clustering.pipelines={size}"
        return (
            self._row(_ONE, f"run.rounds={total}"),
            self._row("K-means", f"run.rounds={apart}", "clustering.name=kmeans", kinds),
            self._row(
                "mixture", f"run.rounds={apart}", "clustering.name=mixture", kinds,
                f"clustering.options={{warmup: 0, every: {apart // form.choose(5, 20)}, "
                f"cycles: {form.choose(4, 12)}, visits: 1.0}}",
            ),
            self._row(
                "tree", f"run.rounds={late}", "clustering.name=gradient_tree",
                f"clustering.max_pipelines={size}",
                f"clustering.options={{every: {2 * whole // size}, rows: {form.choose(4, 10)}}}",
            ),
        )  # fmt: skip

    def alone(self, form: Form) -> tuple[Variant, ...]:
        """Return a model of each family alone, with its share of the tasks."""
        rounds = total_rounds(_TOTAL[form.quick], len(self.names))
        return tuple(
            self._row(
                f"{name} alone", f"run.rounds={rounds}",
                f"task.options.only={{train: {name}, test: {name}}}",
            )
            for name in self.names
        )  # fmt: skip

    def _row(self, label: str, *settings: str) -> Variant:
        return Variant(self.prefix + label, (*self.setting, *settings))


_SETTINGS: Final = (
    _Families(
        "", (), ("sine", "line", "quadratic", "cubic"),
        {_ONE: "2.205", "mixture": "0.856 (HSML), 1.096 (MUMOMAML)"}, "0.39 (HSML); wanted: 0.5",
        "Yao and others 2019 (HSML)",
    ),
    _Families(
        "two families: ", ("task.options.setting=mmaml2",), ("sine", "line"),
        {}, "wanted: 0.5", "ours",
    ),
)  # fmt: skip


def _cells_of_families(form: Form) -> tuple[Cell, ...]:
    quick = ("task.options.functions=500", "evaluation.test_tasks=600")
    variants = [one for own in _SETTINGS for one in (*own.rows(form), *own.alone(form))]
    return cells_of(FAMILIES, variants, form, quick if form.quick else ())


@final
@dataclass(frozen=True)
class _Found:
    """What the runs of one setting came to: errors and clusters by row, in their order."""

    errors: dict[str, list[float]]
    clusters: dict[str, dict[str, Any]]
    rows: tuple[tuple[str, ...], ...]
    claims: tuple[Published, ...]


def _found(own: _Families, form: Form, results: Results) -> _Found:
    variants, alone = own.rows(form), own.alone(form)
    runs = {one.label: results.of(one, form.seeds) for one in (*variants, *alone)}
    errors = {label: final_scores(found, "mse") for label, found in runs.items()}
    clusters = {label: facts_of(found) for label, found in runs.items()}
    rows = tuple(
        (
            label, str(len(found)), figure([run.finished.tasks_seen for run in found], 0),
            words(clusters[label]["recovery"]), median_words(errors[label], max, 3),
        )
        for label, found in runs.items()
    )  # fmt: skip
    known = own.prefix + _KNOWN
    by_family = [errors[one.label] for one in alone]
    if all(len(found) == form.seeds for found in by_family):
        errors[known] = [mean(of_seed) for of_seed in zip(*by_family, strict=True)]
    means = errors.get(known, [])
    rows += ((known, str(len(means)), "", "–", median_words(means, max, 3)),)
    claims = [
        Published(
            f"MSE, {own.prefix}{label}", figures, median_words(errors[own.prefix + label], max, 3),
            own.by,
        )
        for label, figures in own.published.items()
    ]  # fmt: skip
    shares = {
        one.label: [
            a / b
            for run, single in results.pairs(one, variants[0], form.seeds)
            for a, b in zip(final_scores([run], "mse"), final_scores([single], "mse"), strict=True)
        ]
        for one in variants[1:]
    }
    single = errors[variants[0].label]
    if len(means) == len(single):
        shares[known] = [a / b for a, b in zip(means, single, strict=True)]
    claims += [
        Published(
            f"error of {label} in that of one MAML (worst)", own.share,
            median_words(found, max, 2), own.by,
            "reached" if median(found) <= 0.5 else "above 0.5",
        )
        for label, found in shares.items() if found
    ]  # fmt: skip
    recovered = clusters[own.prefix + "mixture"]["recovery_worst"]
    if recovered:
        least = min(recovered)
        claims.append(Published(
            f"{own.prefix}the least recovery by the mixture, of all families and seeds",
            "wanted: 0.9", f"{least:.3f}", "ours", "reached" if least >= 0.9 else "below 0.9",
        ))  # fmt: skip
    return _Found(errors, clusters, rows, tuple(claims))


def _outcome_of_families(form: Form, results: Results) -> Outcome:
    every = [_found(own, form, results) for own in _SETTINGS]
    errors = {label: own for one in every for label, own in one.errors.items()}
    columns = (
        "", "seeds", "tasks seen", "recovery, median", "median test MSE after 5 steps (worst)",
    )  # fmt: skip
    values = tuple((median(own) if own else None,) for own in errors.values())
    panel = Matrix("median test MSE", tuple(errors), ("MSE",), values, (0.0, 4.0), 3)
    return Outcome(
        (Table("test", columns, tuple(row for one in every for row in one.rows)),),
        (Picture("clustering_families", f"Families of functions, n = {form.seeds}",
                 (panel,), columns=1),),
        tuple(claim for one in every for claim in one.claims),
        {"test": errors,
         "clusters": {label: own for one in every for label, own in one.clusters.items()}},
    )  # fmt: skip


EXPERIMENTS: Final = (
    Experiment(
        "clustering_families",
        "Families of functions: one MAML, clustered ones, and one for each family",
        "the synthetic tasks of HSML",
        "Learner of sinusoid_5shot_learned.yaml, but for larger batches and their rate: five steps "
        "with learned rates (with those of function_families_hsml.yaml a step adapts next to "
        "nothing), 100 tasks a round, at equal total tasks. Four families without noise (HSML), "
        "and two with (MMAML, setting mmaml2). K-means sees x and y; the mixture has no warm-up: "
        "gradients of an untrained θ tell as much. A model of one family alone has its share of "
        "the tasks and is tested on its family: their mean is what a clustering without an error "
        "would come to. PROBE rounds are not counted: the mixture meets a function 20 (quick) or "
        "28 times in them, 7 to 26 % of the tasks that are. The quick form has a fifth of the "
        "rounds and 500 functions in each family.",
        FAMILIES,
        _cells_of_families,
        _outcome_of_families,
        quick_seeds=1,
    ),
)
