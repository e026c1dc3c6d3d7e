"""Where a point goes before and after adaptation, as a picture."""

from __future__ import annotations

import sys
from pathlib import Path

from dmaml.learner import Learner, load

BEFORE, STEPS, GOAL = "#999999", ("#56B4E9", "#0072B2", "#000000"), "#D55E00"


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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, tasks, figsize=(2.6 * tasks, 2.9), squeeze=False)
    for axis, task in zip(axes[0], learner.trajectories(tasks, steps, k_query=3), strict=True):
        for step, rows in enumerate(task.observations):
            colour = STEPS[step - 1] if step else BEFORE
            label = f"after {step} step{'s' if step > 1 else ''}" if step else "before adaptation"
            for row in rows:
                axis.plot(row[:, 0], row[:, 1], color=colour, linewidth=0.9, label=label)
                label = "_"
        axis.plot(0, 0, "o", color="black", markersize=4)
        axis.plot(*task.parameters, "*", color=GOAL, markersize=13, label="goal", zorder=5)
        axis.set_aspect("equal", "datalim")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=len(labels), loc="lower center")
    figure.suptitle(f"{learner.config.run.name}, round {learner.version}", fontsize=10)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


if __name__ == "__main__":  # python -m dmaml.report.trajectories RUN PICTURE
    print(draw_trajectories(load(sys.argv[1]), Path(sys.argv[2])))
