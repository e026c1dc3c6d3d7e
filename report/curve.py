"""The learning curve of one run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dmaml.common.errors import RunDirectoryError
from dmaml.common.rundir import read_config, read_rows

BEFORE, AFTER, VALIDATION = "#999999", "#0072B2", "#D55E00"  # told apart by the colour-blind


def draw_curve(run_dir: Path) -> Path:
    """Draw query loss and accuracy before and after adaptation, with the validations.

    Of control it draws the return, which is minus the loss.

    Returns:
        The path of the picture, `report/curve.png` of the run directory.

    Raises:
        RunDirectoryError: no run, or no round yet.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    config = read_config(run_dir)
    rounds, evaluations = read_rows(run_dir, "rounds"), read_rows(run_dir, "evaluations")
    if not rounds:
        raise RunDirectoryError(f"run directory {str(run_dir)!r} has no round yet. Train first.")
    has_accuracy = "accuracy" in rounds[-1]["metrics"]
    has_return = "return" in rounds[-1]["metrics"]
    sign = -1.0 if has_return else 1.0
    figure, axes = pyplot.subplots(
        1, 2 if has_accuracy else 1, figsize=(9.0 if has_accuracy else 5.5, 3.4), squeeze=False
    )
    axis = axes[0][0]
    versions = [row["version"] for row in rounds]
    before = [row["metrics"].get("loss_before") for row in rounds]
    if all(value is not None for value in before):
        _line(axis, versions, [sign * value for value in before], BEFORE, "before adaptation")
    _line(axis, versions, [sign * row["loss"] for row in rounds], AFTER, "after adaptation")
    metric = "loss" if has_accuracy else "return" if has_return else "mse"
    _points(axis, evaluations, metric, "validation")
    labels = {"loss": "query loss", "return": "return", "mse": "mean squared error"}
    axis.set_ylabel(labels[metric])
    if has_accuracy:
        axis = axes[0][1]
        _line(
            axis,
            versions,
            [r["metrics"]["accuracy_before"] for r in rounds],
            BEFORE,
            "before adaptation",
        )
        _line(axis, versions, [r["metrics"]["accuracy"] for r in rounds], AFTER, "after adaptation")
        _points(axis, evaluations, "accuracy", "validation")
        axis.set_ylabel("query accuracy")
        axis.set_ylim(0.0, 1.02)
    for axis in axes[0]:
        axis.set_xlabel("round")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"{config.run.name}: {config.algorithm.name} on {config.task.source}", fontsize=10
    )
    figure.tight_layout()
    path = run_dir / "report" / "curve.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def _line(axis: Any, x: list[int], y: list[float], colour: str, label: str) -> None:
    """Draw the rounds faintly and their running mean clearly."""
    width = max(1, len(y) // 50)
    axis.plot(x, y, color=colour, alpha=0.2, linewidth=0.6)
    smooth, total = [], 0.0
    for i, value in enumerate(y):
        total += value - (y[i - width] if i >= width else 0.0)
        smooth.append(total / min(i + 1, width))
    axis.plot(x, smooth, color=colour, linewidth=1.4, label=label)


def _points(axis: Any, rows: list[dict[str, Any]], metric: str, label: str) -> None:
    rows = [row for row in rows if metric in row["metrics"]]
    if rows:
        means = [row["metrics"][metric]["mean"][-1] for row in rows]
        half = [row["metrics"][metric]["ci95"][-1] for row in rows]
        axis.errorbar(
            [row["version"] for row in rows], means, yerr=half, color=VALIDATION, fmt="o",
            markersize=3, linewidth=1, capsize=2, label=label,
        )  # fmt: skip
