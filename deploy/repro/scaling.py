"""Figures 6.23 and 6.24: which parameter to raise 16 times, and which two together."""

from __future__ import annotations

from typing import Final

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Table,
    Variant,
    cells_of,
    percent,
)
from dmaml.deploy.sweep import Cell
from dmaml.report.charts import Picture

QUICK_ROUNDS: Final = 24
CONFIG: Final = thesis.named("scaling", thesis.OMNIGLOT)
ONE: Final = Variant("none raised")
RAISED: Final = (
    Variant("workers × 16", ("topology.slots=16",)),
    Variant("epochs × 16", ("algorithm.local_steps=16",)),
    Variant("tasks × 16", ("algorithm.tasks=512",)),
)
PAIRS: Final = (
    Variant("tasks × 4, workers × 4", ("algorithm.tasks=128", "topology.slots=4")),
    Variant("tasks × 4, epochs × 4", ("algorithm.tasks=128", "algorithm.local_steps=4")),
    Variant("workers × 4, epochs × 4", ("topology.slots=4", "algorithm.local_steps=4")),
)
# as many tasks as the others see, in 16 times the rounds
LONG: Final = Variant("none raised, 16 × the rounds")


def _cells(form: Form) -> tuple[Cell, ...]:
    rounds = form.choose(QUICK_ROUNDS, 1000)
    every = form.choose(2, 40)
    long = Variant(LONG.label, (f"run.rounds={16 * rounds}", f"evaluation.every={16 * every}"))
    common = (*thesis.short(form, rounds), f"evaluation.every={every}")
    return cells_of(CONFIG, (ONE, *RAISED, *PAIRS, long), form, common)


def _outcome(form: Form, results: Results) -> Outcome:
    one, two = (ONE, *RAISED), (ONE, *PAIRS)
    equal = (*RAISED, *PAIRS, LONG)
    panels = (
        thesis.curves(results, one, form, "rounds", "one raised, by round (6.23)"),
        thesis.curves(results, two, form, "rounds", "two raised, by round (6.24)"),
        thesis.curves(results, equal, form, "tasks", "by task seen"),
        thesis.curves(results, equal, form, "seconds", "by second (one actor each)"),
    )
    mixed = "; ".join(f"{v.label}: {percent(results.of(v, form.seeds))} %" for v in PAIRS)
    return Outcome(
        (thesis.final_table(results, (ONE, *equal), form, "raised"), _by_step(form, results)),
        (Picture("scaling", f"One or two parameters raised, n = {form.seeds}", panels, columns=2),),
        (Published("two raised together", "“mix increase of tasks and workers”", mixed),),
        {"test": thesis.scores_of(results, (ONE, *equal), form)},
        (
            "Each but the first sees 512 tasks a round; the last one as many in all, in 16 times "
            "the rounds.",
            "Seconds are those of one actor, one run at a time. `dmaml repro workers` has accuracy "
            "by second where actors grow with the slots.",
        ),
    )  # fmt: skip


def _by_step(form: Form, results: Results) -> Table:
    rows = []
    for variant in (ONE, *RAISED, *PAIRS, LONG):
        runs = results.of(variant, form.seeds)
        rows.append((variant.label, *(percent(runs, step) for step in range(4))))
    columns = ("raised", *(f"after {step} steps, %" for step in range(4)))
    return Table("final test by adaptation step", columns, tuple(rows))


EXPERIMENTS: Final = (
    Experiment(
        "scaling",
        "One parameter raised 16 times, and two raised 4 times each",
        "figures 6.23, 6.24",
        f"{thesis.READING} Each is compared by round, as in the thesis, and, which it does not "
        "have, by task seen and by second. The quick form has 16 filters and "
        f"{QUICK_ROUNDS} rounds.",
        CONFIG,
        _cells,
        _outcome,
        is_timed=True,
    ),
)
