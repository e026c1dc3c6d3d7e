"""`dmaml cluster RUN`: γ, the tree of pipelines, and how well the true origins were found."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from dmaml.common import checkpoint as checkpoints
from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunDirectoryError
from dmaml.common.gamma import Gamma, columns_of, entropies
from dmaml.common.rundir import read_config, read_rows
from dmaml.common.seeds import Int64
from dmaml.report import scores, similarity
from dmaml.server.clustering.clusterer import Clusterer
from dmaml.worker import tasks
from dmaml.worker.tasks.base import TaskSource

NUM_UNCERTAIN: Final = 10
NUM_NAMED: Final = 100


def show(
    run: Path, data_dir: Path | None, json_output: bool, similarity_file: Path | None = None
) -> None:
    """Print what a run's clustering came to.

    Args:
        similarity_file: where to write how alike its training units are (`report.similarity`).

    Raises:
        BadInputError: no run, no checkpoint yet, or no data; a file that is neither csv nor npy.
    """
    if similarity_file is not None:
        similarity.require_file(similarity_file)
    found = describe(run, data_dir)
    if similarity_file is not None:
        write_similarity(run, data_dir, similarity_file)
    if json_output:
        print(json.dumps(found))
        return
    for part in tables(found):
        Console().print(part)


def describe(run: Path, data_dir: Path | None) -> dict[str, Any]:
    """Return γ of the training units and its scores, as plain values.

    The keys: `strategy`, `phase`, `gamma_version`, `num_units` (trained on), `pipelines` (each with
    `pipeline`, `parent`, `opened_round`, `active`, `units` routed to it, `expected_units`, and
    `origins`: how many units of each), `scores` (`report.scores.score`), `recovery` again, by
    `origins`, `uncertain` (units with their γ), `trials` (of splits, by `gradient_tree`),
    `silhouettes` (of each K that `kmeans` tried, by K as text) and `history` (the record's rows).
    """
    config = read_config(run)
    clusterer = _clusterer(config, run)
    gamma = clusterer.gamma
    source = tasks.build(config, data_dir)
    units = source.split("train")
    size = len(gamma.pipelines)
    unknown = np.full((len(units), size), 1.0 / size, np.float32)  # before the first PROBE round
    matrix = gamma.matrix[units] if len(gamma.matrix) else unknown
    origin, names = _origins(source, units)
    scored = scores.score(matrix, origin)
    return {
        "run_dir": str(run),
        "strategy": config.clustering.name,
        "phase": gamma.phase,
        "gamma_version": gamma.version,
        "num_units": len(units),
        "pipelines": _pipelines(gamma, matrix, origin, names),
        "origins": names,
        "recovery": scored.get("recovery"),
        "scores": scored,
        "uncertain": [
            {
                "unit": int(units[row]),
                "name": source.unit_name(int(units[row])),
                "entropy": float(entropies(matrix[row : row + 1])[0]),
                "gamma": matrix[row].tolist(),
            }
            for row in scores.least_certain(matrix, NUM_UNCERTAIN).tolist()
        ],
        "trials": clusterer.values().get("trials", []),
        "silhouettes": clusterer.values().get("silhouettes", {}),
        "history": [
            {"version": row["version"], "round": row["round"], **row["state"]}
            for row in read_rows(run, "gamma")
        ],
    }


def summary(run: Path, data_dir: Path | None) -> dict[str, Any]:
    """Return what `describe` does, less history and single units: what a sweep keeps of a run.

    Beside it `wall_s`: seconds from each start of the server to its last commit, PROBE rounds
    included. Each active pipeline has the `names` of its units where all are NUM_NAMED or fewer.
    """
    found = describe(run, data_dir)
    commits = [row["at"] for row in read_rows(run, "rounds")]
    wall_s = spans([row["at"] for row in read_rows(run, "starts")], commits)
    if found["num_units"] <= NUM_NAMED:
        names = _names(run, data_dir)
        for row in found["pipelines"]:
            row["names"] = names.get(row["pipeline"], [])
    kept = {key: found[key] for key in found if key not in ("history", "uncertain", "run_dir")}
    return kept | {"wall_s": round(wall_s, 1)}


def spans(starts: Sequence[float], commits: Sequence[float]) -> float:
    """Return the time from each start to the last commit before the next one, summed.

    Args:
        starts, commits: times in the same unit, ascending.
    """
    return math.fsum(
        max((at for at in commits if start <= at < end), default=start) - start
        for start, end in pairwise([*starts, math.inf])
    )


def _names(run: Path, data_dir: Path | None) -> dict[int, list[str]]:
    """Return the names of the training units of each active pipeline."""
    config = read_config(run)
    gamma, source = _clusterer(config, run).gamma, tasks.build(config, data_dir)
    units = source.split("train")
    own = {pipeline: gamma.route(units, pipeline) for pipeline in gamma.pipelines}
    return {p: sorted(source.unit_name(u) for u in one.tolist()) for p, one in own.items()}


def test_by_origin(run: Path, data_dir: Path | None) -> dict[str, Any]:
    """Return the test figures of each source of a mixture: as many tasks, of its classes alone."""
    from dmaml.learner import Learner

    config = read_config(run)
    checkpoint = _checkpoint(run)
    entries = config.task.options["sources"]
    names = [entry if isinstance(entry, str) else entry["source"] for entry in entries]
    section, found = config.evaluation, {}
    for name in dict.fromkeys(names):
        only = (config.task.options.get("only") or {}) | {"test": name}
        task = config.task.model_copy(update={"options": config.task.options | {"only": only}})
        learner = Learner(config.model_copy(update={"task": task}), checkpoint, data_dir)
        found[name] = learner.evaluate(section.test_tasks, section.steps)
    return found


def write_similarity(run: Path, data_dir: Path | None, file: Path) -> None:
    """Write how alike the training units of a run are, by its tree of pipelines.

    Raises:
        RunDirectoryError: no unit has a pipeline yet.
    """
    config = read_config(run)
    gamma = _clusterer(config, run).gamma
    if len(gamma.pipelines) > 1 and not len(gamma.matrix):
        raise RunDirectoryError(
            f"run {str(run)!r} has {len(gamma.pipelines)} pipelines and no γ yet, so units are "
            "neither alike nor unlike. Wait for its first PROBE round, or go on with the run."
        )
    source = tasks.build(config, data_dir)
    units = source.split("train")
    matrix = similarity.of_units(gamma, units)
    similarity.write(file, matrix, [source.unit_name(unit) for unit in units.tolist()])


def _clusterer(config: RunConfig, run: Path) -> Clusterer:
    return Clusterer(config, _checkpoint(run))


def _checkpoint(run: Path) -> Checkpoint:
    checkpoint, _ = checkpoints.load_latest(run)
    if checkpoint is None:
        raise RunDirectoryError(
            f"run directory {str(run)!r} has no checkpoint yet. Train first: "
            f"dmaml train {run / 'config.yaml'} --run-dir {run}"
        )
    return checkpoint


def _origins(source: TaskSource, units: Int64) -> tuple[Int64 | None, list[str]]:
    """Return the origin of each unit, numbered anew by those that occur, and their names."""
    if source.origin is None:
        return None, []
    numbers, origin = np.unique(source.origin[units], return_inverse=True)
    names = getattr(source, "origin_names", None)
    return origin, [names[n] if names else str(n) for n in numbers.tolist()]


def _pipelines(
    gamma: Gamma, matrix: Any, origin: Int64 | None, names: list[str]
) -> list[dict[str, Any]]:
    columns = columns_of(matrix)
    rows = []
    for node in gamma.nodes:
        row: dict[str, Any] = {
            "pipeline": node.number,
            "parent": None if node.parent < 0 else node.parent,
            "opened_round": node.opened_round,
            "active": node.is_active,
            "units": 0,
            "expected_units": 0.0,
        }
        if node.is_active:
            column = gamma.pipelines.index(node.number)
            own = columns == column
            row["units"] = int(own.sum())
            row["expected_units"] = float(matrix[:, column].sum(dtype=np.float64))
            if origin is not None:
                counts = np.bincount(origin[own], minlength=len(names)).tolist()
                row["origins"] = dict(zip(names, counts, strict=True))
        rows.append(row)
    return rows


def tables(found: dict[str, Any]) -> list[Table | str]:
    """Return the tables of a description, and the tree as text."""
    scored, names = found["scores"], found["origins"]
    title = f"{found['strategy']}, γ version {found['gamma_version']}, {found['phase']}"
    pipelines = Table(title=f"{title}: {found['num_units']} units")
    for name in ("pipeline", "parent", "opened at", "units", "expected", *names):
        pipelines.add_column(name, justify="right")
    for row in found["pipelines"]:
        counts = row.get("origins", {})
        pipelines.add_row(
            str(row["pipeline"]) + ("" if row["active"] else " (retired)"),
            "-" if row["parent"] is None else str(row["parent"]),
            str(row["opened_round"]),
            str(row["units"]),
            f"{row['expected_units']:.1f}",
            *(str(counts.get(name, "")) for name in names),
        )
    figures = Table(title="scores")
    figures.add_column("score")
    figures.add_column("value", justify="right")
    for name, share in zip(names, scored.get("recovery", []), strict=True):
        figures.add_row(f"recovery of {name}", f"{share:.3f}")
    for name in ("purity", "nmi", "ari", "entropy"):
        if name in scored:
            figures.add_row(name, f"{scored[name]:.3f}")
    for size, value in found["silhouettes"].items():
        figures.add_row(f"silhouette of {size} clusters", f"{value:.3f}")
    out: list[Table | str] = [pipelines, figures, tree_text(found["pipelines"])]
    if found["trials"]:
        out.append(_trials(found["trials"]))
    if found["uncertain"]:
        uncertain = Table(title="least certain units")
        uncertain.add_column("unit")
        uncertain.add_column("entropy", justify="right")
        uncertain.add_column("γ")
        for row in found["uncertain"]:
            gamma = " ".join(f"{value:.2f}" for value in row["gamma"])
            uncertain.add_row(row["name"], f"{row['entropy']:.3f}", gamma)
        out.append(uncertain)
    return out


def _trials(trials: list[dict[str, Any]]) -> Table:
    """Return when a split was tried, and what the test said."""
    table = Table(title="trials of a split")
    for name in ("round", "pipeline", "units", "sizes", "share", "p", "split"):
        table.add_column(name, justify="right")
    for row in trials:
        figures = ["-"] * 3
        if "share" in row:
            sizes = " + ".join(str(size) for size in row["sizes"])
            share = f"{row['share']:.3f} ± {row['error']:.3f}"
            figures = [sizes, share, f"{row['p_value']:.2g}"]
        first = [str(row[name]) for name in ("trained", "pipeline", "units")]
        table.add_row(*first, *figures, "yes" if row["split"] else "no")
    return table


def tree_text(pipelines: list[dict[str, Any]], parent: int | None = None, depth: int = 0) -> str:
    """Return the tree of pipelines, a line each, children below and right of their parent."""
    lines = []
    for row in pipelines:
        if row["parent"] == parent:
            end = f"{row['units']} units" if row["active"] else "retired"
            lines.append(f"{'  ' * depth}pipeline {row['pipeline']}: {end}")
            below = tree_text(pipelines, row["pipeline"], depth + 1)
            lines += [below] if below else []
    return "\n".join(lines)
