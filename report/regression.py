"""Fitted curves before and after adaptation, of tasks with one input and one output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dmaml.report.probe import Episode
from dmaml.report.section import BEFORE, Section, Shown, axes, line_style

STEPS: Final = (0, 1, 10)
QUERIES: Final = 200  # points of the true function
COLUMNS: Final = 3


def fitted_curves(episodes: Sequence[Episode]) -> Section | None:
    """Return each task's curve before and after adaptation, beside what is true.

    None where inputs or outputs are more than one number.

    Args:
        episodes: with many queries each, which draw the curves.
    """
    first = episodes[0]
    if first.support_x.shape[1:] != (1,) or first.support_y.shape[1:] != (1,):
        return None
    rows = -(-len(episodes) // COLUMNS)
    figure, found = axes(
        rows, min(COLUMNS, len(episodes)), 3.1 * min(COLUMNS, len(episodes)), 2.5 * rows + 0.3
    )
    for axis, one in zip(found.flat, episodes, strict=False):
        order = one.query_x[:, 0].argsort()
        x = one.query_x[order, 0]
        axis.plot(x, one.query_y[order, 0], color="#999999", linewidth=4, alpha=0.5, label="true")
        for number, (steps, answer) in enumerate(sorted(one.answers.items())):
            style = {"color": BEFORE, "linestyle": ":"} if steps == 0 else line_style(number - 1)
            axis.plot(x, answer[order, 0], label=_words(steps), **style)
        axis.plot(
            one.support_x[:, 0], one.support_y[:, 0], "^", color="black", markersize=6,
            label="support", zorder=5,
        )  # fmt: skip
        axis.set_title(_errors(one), fontsize=8)
        axis.set_xlabel("x")
        axis.set_ylabel("y")
    for axis in found.flat[len(episodes) :]:
        axis.set_visible(False)
    handles, labels = found.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center")
    caption = (
        f"The first {len(episodes)} test tasks: what is true, the {len(first.support_x)} support "
        "examples, and the model before and after adaptation to them. Above each: its mean "
        f"squared error on {len(first.query_x)} queries."
    )
    return Section("Fitted curves", (), (Shown("fitted_curves", caption, figure),))


def _words(steps: int) -> str:
    return f"after {steps} step{'s' * (steps != 1)}" if steps else "before"


def _errors(one: Episode) -> str:
    errors = (f"{one.error(steps):.3g}" for steps in sorted(one.answers))
    return "MSE " + " → ".join(errors)
