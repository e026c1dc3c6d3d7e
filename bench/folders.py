"""Measure `dmaml adapt` on folders of original Omniglot drawings, beside the run's own evaluation.

The run's first test tasks (characters never seen in training) are written as folders of PNG files,
black on white, 105 x 105, one bit, turned where the task has turned characters; then
`dmaml adapt --json` reads each folder. The same tasks are evaluated by the run itself. Both figures
are inductive. With `--exports N` the adapted models of the first N folders are written as
`.safetensors` and `.onnx`, and what these say of the queries is compared.
Needs a run on omniglot, and omniglot105_bits.npz.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from dmaml.bench.options import Parser, say, whole
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.deploy.cli import run_cli
from dmaml.learner import Learner, load
from dmaml.learner.pictures import Preparation
from dmaml.worker.tasks import build
from dmaml.worker.tasks.episodes import Draw, draw
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.locate import locate

SIDE = 105
DRAWERS = 20  # drawings of a character
Report = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """The drawings, bool `[N, 105, 105]`, true for ink, and how many of a class are support."""

    originals: NDArray[np.bool_]
    k_shot: int


def main(arguments: list[str]) -> None:
    """Run with these command-line arguments."""
    parser = Parser("folders", __doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--tasks", type=whole, default=100, help="folders (default 100)")
    parser.add_argument("--k-query", type=whole, default=1, help="queries a class (default 1)")
    parser.add_argument("--exports", type=int, default=0, help="models exported (default 0)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data are looked for")
    given = parser.parse_args(arguments)
    found = measure(given.run, given.tasks, given.k_query, given.exports, given.data_dir)
    if given.json:
        print(json.dumps(found))
        return
    print(
        f"{found['tasks']} folders: accuracy {found['folders']:.4f}; the run's own "
        f"{found['own']:.4f} ± {found['ci95']:.4f}; within: {found['within']}"
    )
    for name, gap in found["largest_gap"].items():
        print(f"{found['exports']} models as .{name}: probabilities differ by at most {gap:.1e}")


def measure(run: Path, tasks: int, k_query: int, exports: int, data_dir: Path | None) -> Report:
    """Return the mean accuracy over folders, and the run's own with its 95 % half-width.

    Args:
        exports: of so many folders the adapted model is exported, too: `largest_gap` is how far
            any probability of a query is from what was told, by kind of file.

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
    made = Made(_originals(locate("omniglot105_bits.npz", data_dir)), config.task.k_shot)
    preparation = Preparation.of(config.task, source)
    rows: list[float] = []
    gaps: list[dict[str, float]] = []
    for task in range(tasks):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write(folder, source, chosen, task, made)
            said = _adapted(run, folder, data_dir)
            rows.append(said["accuracy"])
            if task < exports:
                x = preparation.read([Path(one["file"]) for one in said["queries"]])
                gaps.append(_gaps(run, folder, x, said, data_dir))
        say(f"task {task}: {rows[-1]:.2f} {gaps[task] if task < exports else ''}")
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
        "exports": exports,
        "largest_gap": {name: max(one[name] for one in gaps) for name in (gaps[0] if gaps else {})},
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


def _write(folder: Path, source: ImageSource, chosen: Draw, task: int, made: Made) -> None:
    """Write one task's pictures below `support` and `query`, a folder for each class."""
    for label, number in enumerate(chosen.classes[task]):
        base = int(source.roster.base(number))
        turns = int(source.roster.turns(number))
        for place, example in enumerate(chosen.examples[task, label]):
            part = "support" if place < made.k_shot else "query"
            ink = np.rot90(made.originals[base * DRAWERS + int(example)], turns)
            file = folder / part / f"{label}" / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(~ink).save(file)


def _adapted(run: Path, folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """Return what `dmaml adapt` tells of one task's folders."""
    support, query = str(folder / "support"), str(folder / "query")
    return _said(["adapt", str(run), "--support", support, "--query", query], data_dir)


def _said(words: list[str], data_dir: Path | None) -> dict[str, Any]:
    words = [*words, "--json", *([] if data_dir is None else ["--data-dir", str(data_dir)])]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run_cli(words)
    if code:
        raise SystemExit(code)
    said: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
    return said


def _gaps(
    run: Path, folder: Path, x: NDArray[np.float32], said: Report, data_dir: Path | None
) -> dict[str, float]:
    """Return how far the probabilities of exported models are from those that adapt told.

    The state_dict is loaded into the module that its own metadata describe, the graph is run by
    ONNX's reference: neither uses dmaml.

    Args:
        x: the queries, float32 `[N, *input_shape]`.
        said: what adapt told.
    """
    wanted = np.array([one["probabilities"] for one in said["queries"]])
    found = {}
    for ending, gives in (("safetensors", _by_torch), ("onnx", _by_onnx)):
        file = folder / f"model.{ending}"
        support = str(folder / "support")
        _said(["export", str(run), "--support", support, "--out", str(file)], data_dir)
        found[ending] = float(np.abs(gives(file, x) - wanted).max())
    return found


def _by_torch(file: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with safe_open(file, "pt") as opened:
        source = opened.metadata()["module"]
    module = eval(source, {"nn": nn, "OrderedDict": OrderedDict})  # written a moment ago, by us
    module.load_state_dict(load_file(file))
    with torch.no_grad():
        outputs: NDArray[np.float32] = module.eval()(torch.from_numpy(x)).numpy()
    return outputs


def _by_onnx(file: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    from onnx.reference import ReferenceEvaluator

    (outputs,) = ReferenceEvaluator(str(file)).run(None, {"examples": x})
    return np.asarray(outputs)


if __name__ == "__main__":
    main(sys.argv[1:])
