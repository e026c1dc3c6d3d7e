"""Four families of functions: one meta-model, clustered ones, and one for each family."""

from __future__ import annotations

from statistics import mean, median
from typing import Final

from dmaml.deploy.repro.clustered import median_words, total_rounds
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
)
from dmaml.deploy.sweep import Cell
from dmaml.report.charts import Matrix, Picture

FAMILIES: Final = (
    """\
run:         {name: clustering_families, seed: 1, rounds: 10000}
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
_FAMILY_TOTAL: Final = {True: 1000, False: 10000}
_FAMILY_WARMUP: Final = {True: 200, False: 2000}
_NAMES: Final = ("sine", "line", "quadratic", "cubic")
_KNOWN: Final = "one MAML for each family"


def _alone(form: Form) -> tuple[Variant, ...]:
    """Return a model of each family alone, with a quarter of the tasks."""
    rounds = total_rounds(_FAMILY_TOTAL[form.quick], len(_NAMES))
    return tuple(
        Variant(
            f"{name} alone",
            (f"run.rounds={rounds}", f"task.options.only={{train: {name}, test: {name}}}"),
        )
        for name in _NAMES
    )


def _rows_of_families(form: Form) -> tuple[Variant, ...]:
    total, warmup = _FAMILY_TOTAL[form.quick], _FAMILY_WARMUP[form.quick]
    late = total_rounds(total, 4, warmup)
    every = (late - warmup) // form.choose(5, 20)
    return (
        Variant("one MAML", (f"run.rounds={total}",)),
        Variant(
            "K-means",
            (f"run.rounds={total_rounds(total, 4)}", "clustering.name=kmeans",
             "clustering.pipelines=4"),
        ),
        Variant(
            "mixture",
            (f"run.rounds={late}", "clustering.name=mixture", "clustering.pipelines=4",
             f"clustering.options={{warmup: {warmup}, every: {every}, "
             f"cycles: {form.choose(4, 12)}, visits: 1.0}}"),
        ),
        Variant(
            "tree",
            (f"run.rounds={late}", "clustering.name=gradient_tree", "clustering.max_pipelines=4",
             f"clustering.options={{every: {warmup // 2}, rows: {form.choose(4, 10)}}}"),
        ),
    )  # fmt: skip


def _cells_of_families(form: Form) -> tuple[Cell, ...]:
    quick = ("task.options.functions=250", "evaluation.test_tasks=600")
    variants = (*_rows_of_families(form), *_alone(form))
    return cells_of(FAMILIES, variants, form, quick if form.quick else ())


def _outcome_of_families(form: Form, results: Results) -> Outcome:
    variants = _rows_of_families(form)
    runs = {one.label: results.of(one, form.seeds) for one in (*variants, *_alone(form))}
    scores = {label: final_scores(own, "mse") for label, own in runs.items()}
    alone = [scores[one.label] for one in _alone(form)]
    if all(len(own) == form.seeds for own in alone):
        scores[_KNOWN] = [mean(of_seed) for of_seed in zip(*alone, strict=True)]
    rows = tuple(
        (
            label, str(len(own)), figure([run.finished.tasks_seen for run in own], 0),
            words(facts_of(own)["recovery"]), median_words(scores[label], max, 3),
        )
        for label, own in runs.items()
    )  # fmt: skip
    known = scores.get(_KNOWN, [])
    rows += ((_KNOWN, str(len(known)), "", "–", median_words(known, max, 3)),)
    columns = (
        "", "seeds", "tasks seen", "recovery, median", "median test MSE after 5 steps (worst)",
    )  # fmt: skip
    single = scores[variants[0].label]
    shares = {
        label: median(own) / median(single)
        for label in (*(one.label for one in variants[1:]), _KNOWN)
        if (own := scores.get(label, [])) and single and median(single) > 0
    }
    claims = tuple(
        Published(
            f"error of {label} in that of one MAML", "0.39 (HSML); wanted: 0.5", f"{share:.2f}",
            "Yao and others 2019 (HSML)", "reached" if share <= 0.5 else "above 0.5",
        )
        for label, share in shares.items()
    )  # fmt: skip
    values = tuple((median(own) if own else None,) for own in scores.values())
    panel = Matrix("median test MSE", tuple(scores), ("MSE",), values, (0.0, 4.0), 3)
    published = {"one MAML": "2.205", "mixture": "0.856 (HSML), 1.096 (MUMOMAML)"}
    return Outcome(
        (Table("test", columns, rows),),
        (Picture("clustering_families", f"Four families of functions, n = {form.seeds}",
                 (panel,), columns=1),),
        tuple(
            Published(f"MSE, {label}", figures, median_words(scores[label], max, 3),
                      "Yao and others 2019 (HSML)")
            for label, figures in published.items()
        )
        + claims,
        {"test": scores, "clusters": {label: facts_of(own) for label, own in runs.items()}},
    )  # fmt: skip


EXPERIMENTS: Final = (
    Experiment(
        "clustering_families",
        "Four families of functions: one MAML, clustered ones, and one for each family",
        "the synthetic tasks of HSML",
        "Learner of sinusoid_5shot_learned.yaml, but for larger batches and their rate: five steps "
        "with learned rates (with those of "
        "function_families_hsml.yaml a step adapts next to nothing), 100 tasks a round, at equal "
        "total tasks. K-means sees x and y. A "
        "model of one family alone has a quarter of the tasks and is tested on its family: the "
        "mean of the four is what a clustering without an error would come to. The quick form has "
        "a tenth of the rounds and 250 functions in each family.",
        FAMILIES,
        _cells_of_families,
        _outcome_of_families,
        quick_seeds=1,
    ),
)
