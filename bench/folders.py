"""Measure `dmaml adapt` on folders of original Omniglot drawings, beside the run's own evaluation.

The run's first test tasks (characters never seen in training) are written as folders of PNG files,
black on white, 105 x 105, one bit, turned where the task has turned characters; then
`dmaml adapt --json` reads each folder. The same tasks are evaluated by the run itself. Both figures
are inductive.
Needs a run on omniglot, and omniglot105_bits.npz.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmaml.bench.options import Parser, say, whole
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.deploy.cli import run_cli
from dmaml.learner import Learner, load
from dmaml.worker.tasks import build
from dmaml.worker.tasks.episodes import Draw, draw
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.locate import locate

SIDE = 105
DRAWERS = 20  # drawings of a character


def main(arguments: list[str]) -> None:
    """Run with these command-line arguments."""
    parser = Parser("folders", __doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--tasks", type=whole, default=100, help="folders (default 100)")
    parser.add_argument("--k-query", type=whole, default=1, help="queries a class (default 1)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data are looked for")
    given = parser.parse_args(arguments)
    found = measure(given.run, given.tasks, given.k_query, given.data_dir)
    if given.json:
        print(json.dumps(found))
        return
    print(
        f"{found['tasks']} folders: accuracy {found['folders']:.4f}; the run's own "
        f"{found['own']:.4f} ± {found['ci95']:.4f}; within: {found['within']}"
    )


def measure(run: Path, tasks: int, k_query: int, data_dir: Path | None) -> dict[str, Any]:
    """Return the mean accuracy over folders, and the run's own with its 95 % half-width.

    Raises:
        ConfigError: the run is not on omniglot.
        DataError: data that are missing.
    """
    learner = load(run, data_dir=data_dir)
    config = learner.config
    source = build(config, data_dir)
    if config.task.source != "omniglot" or not isinstance(source, ImageSource):
        raise ConfigError(f"{str(run)!r} is a run on {config.task.source!r}; required omniglot.")
    steps = config.evaluation.steps
    own = learner.evaluate(tasks, steps, "test", k_query)
    chosen = _tasks(learner, source, tasks, k_query)
    originals = _originals(locate("omniglot105_bits.npz", data_dir))
    rows = [
        _adapted(run, source, chosen, task, originals, config.task.k_shot, data_dir)
        for task in range(tasks)
    ]
    mean, half = own["inductive"]["accuracy"][-1], own["inductive"]["ci95"][-1]
    folders = float(np.mean(rows))
    return {
        "run_dir": str(run),
        "algorithm": config.algorithm.name,
        "steps": steps,
        "tasks": tasks,
        "k_query": k_query,
        "folders": folders,
        "own": mean,
        "ci95": half,
        "within": abs(folders - mean) <= half,
    }


def _tasks(learner: Learner, source: ImageSource, tasks: int, k_query: int) -> Draw:
    """Return the choices of the run's first test tasks, as `Learner.evaluate` draws them."""
    config = learner.config
    streams = [stream(config.run.seed, Kind.TEST, 0, 0, j) for j in range(tasks)]
    units = source.split("test")
    return draw(source.roster, streams, units, config.task.n_way, config.task.k_shot + k_query)


def _originals(path: Path) -> NDArray[np.bool_]:
    """Return all drawings, bool `[N, 105, 105]`, true for ink."""
    with np.load(path, allow_pickle=False) as archive:
        bits = np.unpackbits(archive["images_packed"], axis=1, count=SIDE * SIDE)
    return bits.reshape(-1, SIDE, SIDE).astype(np.bool_)


def _adapted(
    run: Path,
    source: ImageSource,
    chosen: Draw,
    task: int,
    originals: NDArray[np.bool_],
    k_shot: int,
    data_dir: Path | None,
) -> float:
    """Return the accuracy that `dmaml adapt` tells of one task's folders."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, number in enumerate(chosen.classes[task]):
            base = int(source.roster.base(number))
            turns = int(source.roster.turns(number))
            for place, example in enumerate(chosen.examples[task, label]):
                part = "support" if place < k_shot else "query"
                ink = np.rot90(originals[base * DRAWERS + int(example)], turns)
                file = folder / part / f"{label}" / f"{place}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(~ink).save(file)
        words = ["adapt", str(run), "--json"]
        words += ["--support", str(folder / "support"), "--query", str(folder / "query")]
        words += [] if data_dir is None else ["--data-dir", str(data_dir)]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = run_cli(words)
    if code:
        raise SystemExit(code)
    report: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
    say(f"task {task}: {report['accuracy']:.2f}")
    return float(report["accuracy"])


if __name__ == "__main__":
    main(sys.argv[1:])
