"""Figures 6.4, 6.11, 6.16 to 6.19: accuracy by workers, epochs, tasks and gradient steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    CROWDED,
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Variant,
    cells_of,
    percent,
)
from dmaml.deploy.sweep import Cell
from dmaml.report.charts import Picture

# an actor for each slot: θ does not depend on the actors, the seconds do
WORKERS: Final = tuple(
    Variant(f"{n} slots and actors" if n > 1 else "1 slot and actor", (f"topology.slots={n}",), n)
    for n in thesis.FACTORS
)
EPOCHS: Final = tuple(
    Variant(f"{n} epoch{'' if n == 1 else 's'}", (f"algorithm.local_steps={n}",))
    for n in thesis.FACTORS
)
TASKS: Final = tuple(
    Variant(
        f"{32 * n} tasks, {reduction}",
        (f"algorithm.tasks={32 * n}", f"algorithm.task_reduction={reduction}"),
    )
    for reduction in ("sum", "mean")
    for n in thesis.FACTORS
)
STEPS: Final = tuple(
    Variant(f"{n} gradient step{'' if n == 1 else 's'}", (f"algorithm.inner_steps={n}",))
    for n in (1, 2, 3, 5)
)


def _experiment(
    name: str,
    title: str,
    shows: str,
    heading: str,
    variants: Sequence[Variant],
    quick_rounds: int,
    about: str = "",
    published: tuple[tuple[str, str, tuple[Variant, ...]], ...] = (),
    groups: Sequence[tuple[str, Sequence[Variant]]] = (),
    is_timed: bool = False,
) -> Experiment:
    """Return an experiment that varies one setting.

    Args:
        published: (what, published, the variants whose figures stand beside it).
        groups: (title, variants) of each row of panels; default: all of them in one.
        is_timed: one run at a time, with a panel of accuracy by second.
    """
    config = thesis.named(name, thesis.OMNIGLOT)
    places = ("rounds", "tasks", "seconds") if is_timed else ("rounds", "tasks")

    def cells(form: Form) -> tuple[Cell, ...]:
        return cells_of(config, variants, form, thesis.short(form, quick_rounds))

    def outcome(form: Form, results: Results) -> Outcome:
        panels = tuple(
            thesis.curves(results, group, form, by, f"{what} by {by}".strip())
            for what, group in (groups or [("", variants)])
            for by in places
        )
        beside = tuple(
            Published(
                what, words, "; ".join(f"{v.label} {_score(results, v, form)}" for v in those)
            )
            for what, words, those in published
        )
        return Outcome(
            (thesis.final_table(results, variants, form, heading),),
            (Picture(name, f"{title}, n = {form.seeds}", panels, columns=len(places)),),
            beside,
            {"test": thesis.scores_of(results, variants, form)},
        )

    quick = f"The quick form has 16 filters and {quick_rounds} rounds."
    text = f"{thesis.READING} {about} {quick} {'' if is_timed else CROWDED}"
    return Experiment(name, title, shows, " ".join(text.split()), config, cells, outcome, is_timed)


def _score(results: Results, variant: Variant, form: Form) -> str:
    runs = results.of(variant, form.seeds)
    seen = f" after {runs[0].finished.tasks_seen:,} tasks" if runs else ""
    return f"{percent(runs)} %{seen}"


EXPERIMENTS: Final = (
    _experiment(
        "workers",
        "Accuracy by number of workers",
        "figures 6.4, 6.11, 6.17",
        "workers",
        WORKERS,
        60,
        "Workers are `topology.slots`; their gradients are averaged. There are as many actors as "
        "slots, and one run at a time, so that accuracy by second is that of a cluster which grows "
        "with the slots, as far as there are cores for its actors.",
        (("more workers", "a loss of accuracy per seen task", (WORKERS[0], WORKERS[-1])),),
        is_timed=True,
    ),
    _experiment(
        "epochs",
        "Accuracy by number of epochs",
        "figure 6.18",
        "epochs",
        EPOCHS,
        60,
        "Epochs are `algorithm.local_steps`, with fresh tasks in each and local_lr = β.",
    ),
    _experiment(
        "tasks",
        "Accuracy by number of tasks, summed and averaged",
        "figure 6.19",
        "tasks, reduction",
        TASKS,
        30,
        "Sum and mean over tasks are `algorithm.task_reduction` under `outer: sgd` with one β: the "
        "mean's steps are as many times shorter as there are tasks.",
        groups=(("sum,", TASKS[:5]), ("mean,", TASKS[5:])),
    ),
    _experiment(
        "gradient_steps",
        "Accuracy by number of gradient steps",
        "figure 6.16",
        "gradient steps",
        STEPS,
        100,
        "Gradient steps are `algorithm.inner_steps` in training; validation has 3 in each case.",
    ),
)
