"""Where a point goes before and after adaptation, as a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dmaml.learner import Learner, load
from dmaml.learner.learner import Paths
from dmaml.report.charts import COLOURS
from dmaml.report.section import Section, Shown, axes, rendered

BEFORE, STEPS, GOAL = "#999999", ("#56B4E9", "#0072B2", "#000000"), COLOURS[1]
DASHES = (":", "--", "-.", "-")


def trajectories(tasks: Sequence[Paths]) -> Section | None:
    """Return the trajectories of each task before and after adaptation.

    None unless observations are positions in the plane and parameters a goal there.
    """
    first = tasks[0]
    if first.parameters.shape != (2,) or first.observations[0][0].shape[1:] != (2,):
        return None
    caption = (
        f"{len(tasks)} test tasks from the start (dot) to the goal (star), "
        f"{len(first.observations[0])} trajectories before and after each adaptation step. "
        "Positions are in the environment's units of length."
    )
    return Section("Trajectories", (), (Shown("trajectories", caption, paths_figure(tasks)),))


def paths_figure(tasks: Sequence[Paths]) -> Figure:
    """Return the picture: a panel for each task."""
    figure, found = axes(1, len(tasks), 2.6 * len(tasks), 3.1)
    for axis, task in zip(found[0], tasks, strict=True):
        for step, rows in enumerate(task.observations):
            colour = STEPS[(step - 1) % len(STEPS)] if step else BEFORE
            label = f"after {step} step{'s' if step > 1 else ''}" if step else "before adaptation"
            for row in rows:
                axis.plot(
                    row[:, 0], row[:, 1], color=colour, linewidth=0.9, label=label,
                    linestyle=DASHES[min(step, len(DASHES) - 1)],
                )  # fmt: skip
                label = "_"
        axis.plot(0, 0, "o", color="black", markersize=4)
        axis.plot(*task.parameters, "*", color=GOAL, markersize=13, label="goal", zorder=5)
        axis.set_aspect("equal", "datalim")
        axis.set_xlabel("x")
    found[0][0].set_ylabel("y")
    handles, labels = found[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center")
    return figure


def draw_trajectories(learner: Learner, path: Path, tasks: int = 4, steps: int = 3) -> Path:
    """Draw three trajectories of each task before and after 1 .. `steps` adaptation steps.

    For tasks whose observation is a position in the plane and whose parameters are a goal there.

    Args:
        learner: a trained run of `navigation`.
        path: of the picture.
        tasks: of the test split, side by side.
        steps: 1 to 3.

    Raises:
        ConfigError: the run is not one of control.
    """
    figure = paths_figure(learner.trajectories(tasks, steps, k_query=3))
    figure.suptitle(f"{learner.config.run.name}, round {learner.version}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rendered(figure)[0])
    return path


if __name__ == "__main__":  # python -m dmaml.report.trajectories RUN PICTURE
    print(draw_trajectories(load(sys.argv[1]), Path(sys.argv[2])))
