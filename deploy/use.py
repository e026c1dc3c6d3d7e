"""`dmaml adapt` and `dmaml export`: a trained run on one's own pictures."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from dmaml.common.errors import ConfigError, DataError
from dmaml.learner import Adapted, Prediction, load
from dmaml.learner.exports import checked_path
from dmaml.learner.pictures import Files, find_pictures


def adapt_run(
    run: Path,
    support: Path,
    query: Path | None,
    steps: int | None,
    pipeline: int | None,
    which: str,
    out: Path | None,
    data_dir: Path | None,
    json_output: bool,
) -> None:
    """Adapt a run to a folder of pictures, print what it says about others, write it.

    Args:
        run: its directory.
        support: one folder of pictures per class.
        query: the same, or a flat folder, or one picture.
        steps: adaptation steps; None: the run's.
        pipeline: of several; None: the one that the support set is routed to.
        which: latest or best.
        out: a `.safetensors` or `.onnx` file.

    Raises:
        BadInputError: see `Learner.adapt`, `Adapted.predict`, `Adapted.save`.
    """
    if query is None and out is None:
        raise ConfigError("dmaml adapt: nothing to do. Give --query FOLDER, --out FILE, or both.")
    if out is not None:
        checked_path(out)
    learner = load(run, checkpoint_of(which), data_dir)
    files = None if query is None else find_pictures(query, "query", needs_classes=False)
    adapted = learner.adapt(support, steps=steps, pipeline=pipeline)
    report: dict[str, Any] = {
        "run_dir": str(run),
        "version": learner.version,
        **_routed(adapted),
        "steps": adapted.steps,
        "classes": list(adapted.classes),
        "support_loss": adapted.support_loss,
    }
    if files is not None and query is not None:
        _require_known(files, adapted, query)
        report |= answers(files, adapted.predict(query))
    if out is not None:
        report["out"] = str(adapted.save(out))
    _show(report, json_output)


def export_run(
    run: Path,
    support: Path | None,
    out: Path,
    steps: int | None,
    pipeline: int | None,
    which: str,
    data_dir: Path | None,
    json_output: bool,
) -> None:
    """Write a run's network as a plain torch model, adapted where there is a support set.

    Raises:
        BadInputError: see `Learner.adapt`, `Learner.save`, `Adapted.save`.
    """
    checked_path(out)
    learner = load(run, checkpoint_of(which), data_dir)
    report: dict[str, Any] = {"run_dir": str(run), "version": learner.version}
    if support is None:
        if steps is not None:
            raise ConfigError("--steps without --support: there is nothing to adapt to. Add it.")
        written = learner.save(out, pipeline)
    else:
        adapted = learner.adapt(support, steps=steps, pipeline=pipeline)
        report |= _routed(adapted)
        report |= {"classes": list(adapted.classes), "steps": adapted.steps}
        written = adapted.save(out)
    _show(report | {"out": str(written), "bytes": written.stat().st_size}, json_output)


def checkpoint_of(which: str) -> Literal["latest", "best"]:
    """Return the checkpoint that `--checkpoint` names.

    Raises:
        ConfigError: another name.
    """
    if which == "latest":
        return "latest"
    if which == "best":
        return "best"
    raise ConfigError(f"--checkpoint {which!r} is unknown. Known: latest, best.")


def answers(files: Files, prediction: Prediction) -> dict[str, Any]:
    """Return each query's answer, and the accuracy where the classes are known."""
    labels = files.labels or (None,) * len(files.paths)
    queries = [
        {
            "file": str(path),
            "label": said,
            "probability": float(row.max()),
            "probabilities": [float(one) for one in row],
            **({} if files.labels is None else {"class": label}),
        }
        for path, label, said, row in zip(
            files.paths, labels, prediction.labels, prediction.probabilities, strict=True
        )
    ]
    out: dict[str, Any] = {"num_queries": len(queries), "queries": queries}
    if files.labels is not None:
        right = [one["label"] == one["class"] for one in queries]
        out["accuracy"] = sum(right) / len(right)
    return out


def _routed(adapted: Adapted) -> dict[str, Any]:
    posterior = {str(number): share for number, share in adapted.posterior.items()}
    return {"pipeline": adapted.pipeline, "posterior": posterior}


def _require_known(files: Files, adapted: Adapted, query: Path) -> None:
    unknown = sorted(set(files.labels or ()) - set(adapted.classes))
    if unknown:
        raise DataError(
            f"query folder {str(query)!r} has the class {unknown[0]!r}, which the support set has "
            f"not ({', '.join(map(str, adapted.classes))}). Rename it, or give all queries in one "
            "flat folder."
        )


def _show(report: dict[str, Any], json_output: bool) -> None:
    if json_output:
        sys.stdout.write(json.dumps(report) + "\n")
        return
    console = Console(markup=False)  # names of files are no markup
    if "queries" in report:
        console.print(_table(report["queries"]))
        counts = Counter(one["label"] for one in report["queries"])
        lines = [", ".join(f"{label}: {count}" for label, count in sorted(counts.items()))]
        if "accuracy" in report:
            lines.append(f"accuracy {report['accuracy']:.3f} of {report['num_queries']} queries")
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)
    if len(posterior := report.get("posterior", {})) > 1:
        shares = ", ".join(f"{number}: {share:.3f}" for number, share in posterior.items())
        line = f"pipeline {report['pipeline']} (posterior {shares})"
        console.print(line, highlight=False, soft_wrap=True)
    if "out" in report:
        console.print(f"written: {report['out']}", highlight=False, soft_wrap=True)


def _table(queries: list[dict[str, Any]]) -> Table:
    table = Table()
    table.add_column("picture", overflow="fold")
    has_class = "class" in queries[0]
    for name in ("class",) * has_class + ("label",):
        table.add_column(name)
    table.add_column("probability", justify="right")
    for one in queries:
        told = (one["class"],) if has_class else ()
        table.add_row(one["file"], *told, one["label"], f"{one['probability']:.3f}")
    return table
