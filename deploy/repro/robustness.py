"""Weight generators and aggregation rules when one slot of five answers wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    UNMEASURED,
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Table,
    Variant,
    cells_of,
    final_scores,
    percent,
)
from dmaml.deploy.sweep import Cell
from dmaml.report.bands import mean_and_half
from dmaml.report.charts import Matrix, Picture

CLEAN, SHUFFLED, SCALED = "clean", "1 of 5 on shuffled labels", "1 of 5 pushes −10 × its gradient"
FAULTS: Final = {
    CLEAN: (),
    SHUFFLED: ("faults.kind=shuffled_labels", "faults.slots=[0]"),
    SCALED: ("faults.kind=scaled_gradient", "faults.slots=[0]", "faults.scale=-10.0"),
}
_SHORT: Final = {CLEAN: "clean", SHUFFLED: "shuffled", SCALED: "scaled"}
GENERATORS: Final = {
    "mean": ("weights.name=mean",),
    "loss_weighted": ("weights.name=loss_weighted",),
    "loss_median": ("weights.name=loss_median",),
    "loss_moving_average": ("weights.name=loss_moving_average",),
}
RULES: Final = {
    "mean": (),
    "sum": ("aggregation.name=sum",),
    "median": ("aggregation.name=median",),
    "trimmed_mean": ("aggregation.name=trimmed_mean",),
    "krum": ("aggregation.name=krum",),
    "multi_krum": ("aggregation.name=multi_krum", "aggregation.options.num_selected=4"),
    "clip": ("aggregation.name=clip", "aggregation.options.norm=1.0"),
}


# -- generators alone ------------------------------------------------------------------------------

GENERATORS_CONFIG: Final = """\
run:        {name: generators, seed: 1, rounds: 1000}
task:       {source: omniglot, splits: vinyals, n_way: 5, k_shot: 1, k_query: 1, rotations: true}
model:      {name: conv4, width: 64}
algorithm:  {name: maml, order: second, inner_lr: 0.4, inner_steps: 1, tasks: 8}
engine:     {chunk: 8}
topology:   {slots: 5}
outer:      {name: adam, lr: 0.003}
evaluation: {every: 40, tasks: 100, steps: 3, k_query: 1, split: validation, test_tasks: 1000}
"""
_GENERATOR_CELLS: Final = {
    (name, fault): Variant(f"{name}, {_SHORT[fault]}", (*GENERATORS[name], *FAULTS[fault]))
    for fault in (CLEAN, SHUFFLED)
    for name in GENERATORS
}


def _generator_cells(form: Form) -> tuple[Cell, ...]:
    return cells_of(
        GENERATORS_CONFIG, tuple(_GENERATOR_CELLS.values()), form, thesis.short(form, 150)
    )


def _generator_outcome(form: Form, results: Results) -> Outcome:
    rows = tuple(
        (name, *(percent(results.of(_GENERATOR_CELLS[name, f], form.seeds)) for f in _TWO))
        for name in GENERATORS
    )
    panels = tuple(
        thesis.curves(
            results, [_GENERATOR_CELLS[name, fault] for name in GENERATORS], form, "rounds", fault,
            label=lambda variant: variant.label.partition(",")[0],
        )
        for fault in _TWO
    )  # fmt: skip
    columns = ("generator", *(f"{fault}, test accuracy, % ± 95 %" for fault in _TWO))
    return Outcome(
        (Table("weight generators", columns, rows),),
        (Picture("generators", f"Weight generators, 5 slots, n = {form.seeds}", panels),),
        (
            Published(
                "generators with faulty workers", "named as future work, not measured", "above"
            ),
        ),
        {"test": thesis.scores_of(results, tuple(_GENERATOR_CELLS.values()), form)},
    )


_TWO: Final = (CLEAN, SHUFFLED)


# -- generators and rules --------------------------------------------------------------------------

BYZANTINE_CONFIG: Final = """\
run:        {name: byzantine, seed: 1, rounds: 200}
task:       {source: omniglot, splits: vinyals, n_way: 5, k_shot: 1, k_query: 1, rotations: true}
model:      {name: mlp, hidden: [128, 64], batch_norm: true}
algorithm:  {name: maml, order: second, inner_lr: 0.4, inner_steps: 1, tasks: 8}
engine:     {chunk: 8}
topology:   {slots: 5}
outer:      {name: adam, lr: 0.004}
evaluation: {every: 0, steps: 1, k_query: 5, test_tasks: 1000}
"""
_TABLE: Final = {
    (generator, rule, fault): Variant(
        f"{generator}, {rule}, {_SHORT[fault]}",
        (*GENERATORS[generator], *RULES[rule], *FAULTS[fault]),
    )
    for fault in FAULTS
    for generator in GENERATORS
    for rule in RULES
}
_BASELINE: Final = ("mean", "mean", CLEAN)
NEAR: Final = 1.0  # percentage points


def _byzantine_cells(form: Form) -> tuple[Cell, ...]:
    common = ("run.rounds=100", "evaluation.test_tasks=600") if form.quick else ()
    return cells_of(BYZANTINE_CONFIG, tuple(_TABLE.values()), form, common)


def _byzantine_outcome(form: Form, results: Results) -> Outcome:
    scores = {
        key: [100 * score for score in final_scores(results.of(variant, form.seeds))]
        for key, variant in _TABLE.items()
    }
    clean = _mean(scores[_BASELINE])
    tables = tuple(_fault_table(fault, scores) for fault in FAULTS)
    high = clean if clean is not None else 100.0
    panels = tuple(
        Matrix(
            fault, tuple(GENERATORS), tuple(RULES),
            tuple(tuple(_mean(scores[g, r, fault]) for r in RULES) for g in GENERATORS),
            (high - 8 * NEAR, high), bold_from=high - NEAR,
        )
        for fault in FAULTS
    )  # fmt: skip
    near = {
        fault: [
            f"{generator} × {rule}"
            for generator in GENERATORS
            for rule in RULES
            if _is_near(_mean(scores[generator, rule, fault]), clean)
        ]
        for fault in (SHUFFLED, SCALED)
    }
    both = [name for name in near[SHUFFLED] if name in near[SCALED]]
    stopped = sorted({run.cell.name for run in results if run.finished.stopped})
    unmeasured = {f: sum(not scores[g, r, f] for g in GENERATORS for r in RULES) for f in near}
    notes = [
        f"clean, mean × mean: {_words(clean)}; chance is 20 %.",
        *(
            f"{fault}: mean × mean {_words(_mean(scores['mean', 'mean', fault]))}; within "
            f"{NEAR:g} point of the clean run: {_names(found, clean, unmeasured[fault])}."
            for fault, found in near.items()
        ),
        f"within {NEAR:g} point under both: {_names(both, clean, max(unmeasured.values()))}.",
        "Under Adam, which divides by the gradient's size, sum equals mean up to rounding. krum "
        "keeps one slot's gradient and ignores the weights: every generator gives it the same run. "
        "staleness_discount is mean in mode sync, where nothing is stale, and is left out; "
        "loss_weighted is its softmax form.",
    ]
    if stopped:
        notes.append(
            f"{len(stopped)} runs stopped before their end because no gradient was finite any "
            f"more; they were tested as they were: {', '.join(stopped)}."
        )
    title = (
        f"Test accuracy in %, generators × rules, n = {form.seeds}; "
        f"bold: within {NEAR:g} point of the clean mean × mean"
    )
    return Outcome(
        tables,
        (Picture("byzantine", title, panels, columns=1),),
        (Published("1 of 5 workers on shuffled labels", "future work, not measured", "above"),),
        {
            "test": {" | ".join(key): values for key, values in scores.items()},
            "clean": clean, "near": near, "near_under_both": both, "stopped": stopped,
        },
        tuple(notes),
    )  # fmt: skip


def _fault_table(fault: str, scores: dict[tuple[str, str, str], list[float]]) -> Table:
    rows = tuple(
        (generator, *(_cell_words(scores[generator, rule, fault]) for rule in RULES))
        for generator in GENERATORS
    )
    return Table(f"{fault}: test accuracy, %", ("generator", *RULES), rows)


def _cell_words(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean, half = mean_and_half(values)
    return f"{mean:.1f}" + (f" ±{half:.1f}" if len(values) > 1 else "")


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _words(value: float | None) -> str:
    return UNMEASURED if value is None else f"{value:.1f} %"


def _names(found: Sequence[str], clean: float | None, num_unmeasured: int) -> str:
    """Return which combinations are near, and how many nobody knows of."""
    total = len(GENERATORS) * len(RULES)
    if clean is None or num_unmeasured == total:
        return UNMEASURED
    left = f" ({num_unmeasured} of {total} {UNMEASURED})" if num_unmeasured else ""
    return (", ".join(found) or "none") + left


def _is_near(value: float | None, clean: float | None) -> bool:
    return value is not None and clean is not None and value >= clean - NEAR


EXPERIMENTS: Final = (
    Experiment(
        "generators",
        "The four weight generators, clean and with 1 of 5 slots on shuffled labels",
        "the thesis's weight generators; its future work",
        "Omniglot 5-way 1-shot with Adam at 0.003 and the settings of table 5.1 otherwise; 5 slots "
        "of 8 tasks. The faulty slot permutes the labels of support and query set independently. "
        "The quick form has 16 filters and 150 rounds.",
        GENERATORS_CONFIG,
        _generator_cells,
        _generator_outcome,
    ),
    Experiment(
        "byzantine",
        "All weight generators × all aggregation rules, clean and with one wrong slot of five",
        "robustness; the thesis's future work",
        "A small fully connected network, so that a run costs seconds: Omniglot 5-way 1-shot, "
        "5 slots of 8 tasks, Adam at 0.004, 200 rounds (quick: 100), one adaptation step, 1,000 "
        "test tasks of 5 queries a class (quick: 600), the same for all runs of a seed. "
        "multi_krum keeps 4 of 5, clip is at norm 1 (a clean slot's gradient has about 1.7).",
        BYZANTINE_CONFIG,
        _byzantine_cells,
        _byzantine_outcome,
        quick_seeds=1,
    ),
)
