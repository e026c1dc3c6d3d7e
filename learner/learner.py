"""A trained meta-model, ready to be evaluated and to adapt."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmaml.common import checkpoint as checkpoints
from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig, evaluation_shape
from dmaml.common.errors import ConfigError, RunDirectoryError
from dmaml.common.intervals import interval, main_metric
from dmaml.common.rundir import read_config
from dmaml.common.seeds import Kind
from dmaml.learner import exports
from dmaml.learner.adapted import Adapted
from dmaml.learner.inputs import Given, Inputs
from dmaml.learner.overrides import paced, reshaped
from dmaml.learner.router import Router, Routes, joined, origins_of, summary
from dmaml.learner.task import Task, drawn_task
from dmaml.worker import routing
from dmaml.worker.algorithms.adapted import plain
from dmaml.worker.algorithms.maml_rl import MamlRl
from dmaml.worker.answers import Answerer
from dmaml.worker.models.base import Params, params_of
from dmaml.worker.tasks.base import SPLITS, SplitName, Units
from dmaml.worker.tasks.episodes import require_episode

CHUNK = 20  # tasks evaluated at once: bounds the memory
Which = Literal["latest", "best"]


@dataclass(frozen=True)
class Paths:
    """What a policy did in one control task.

    Attributes:
        parameters: the task, float32 `[P]`.
        observations: by adaptation step, then trajectory, float32 `[length, observation size]`.
    """

    parameters: NDArray[np.float32]
    observations: list[list[NDArray[np.float32]]]


@final
class Learner:
    """A run at one version: its meta-model, or those of its pipelines.

    Attributes:
        config: the run's configuration.
        pipelines: named tensors, float32, by pipeline.
        params: those of the first pipeline.
        version: TRAIN commits that they have seen.
        rounds: TRAIN rounds, the same but in mode async.
        tasks_seen: training tasks.
        theta_sha256: digest of the parameters of all pipelines.
    """

    def __init__(self, config: RunConfig, checkpoint: Checkpoint, data_dir: Path | None) -> None:
        thetas = checkpoints.thetas_of(checkpoint)
        self.config = config
        self.version = int(checkpoint.meta["progress"]["version"])
        self.rounds = int(checkpoint.meta["progress"]["trained"])
        self.tasks_seen = int(checkpoint.meta["progress"]["tasks_seen"])
        self.theta_sha256 = checkpoints.theta_sha256(thetas)
        layout = checkpoints.layout_of(checkpoint)
        self.pipelines: dict[int, Params] = {
            pipeline: params_of(layout, np.array(thetas[pipeline], dtype="<f4"))
            for pipeline in sorted(thetas)
        }
        self._answerer = Answerer(config, data_dir)
        any_way = getattr(self._answerer.algorithm, "any_way", False)
        self._inputs = Inputs(config, self._answerer.source, any_way)
        self._router = Router(config, checkpoint, self._answerer.source)

    @property
    def params(self) -> Params:
        """The parameters of the first pipeline."""
        return self.pipelines[min(self.pipelines)]

    @property
    def kind(self) -> Literal["classification", "regression", "control"]:
        """What the run's tasks are."""
        return self._answerer.source.kind

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self._answerer.source.input_shape)

    def adapt(
        self,
        support_x: Given,
        support_y: Any = None,
        steps: int | None = None,
        pipeline: int | None = None,
    ) -> Adapted:
        """Return the meta-model adapted to a support set.

        Args:
            support_x: examples as the run's source gives them: an array or tensor
                `[N, *input_shape]`, float (pictures from 0 to 1) or uint8 (0 to 255); or a folder
                with one folder of pictures per class, of any size and mode.
            support_y: N labels, any hashable values, or targets `[N, outputs]` of a regression;
                left out with a folder, whose folders are the labels.
            steps: adaptation steps; None: `evaluation.steps`, those of the run's last figure.
            pipeline: of which meta-model; None: of that which the support set is routed to
                (`Router`: the likeliest by its features, or the least support loss).

        Raises:
            DataError: examples or labels that do not suit, one class only, no pictures, a damaged
                or too large one.
            ConfigError: an algorithm that cannot adapt to examples (maml_rl, oracle), or not to so
                many classes; no such pipeline; a number out of range.
        """
        algorithm = self.config.algorithm.name
        if self._answerer.source.kind == "control":
            raise ConfigError(
                f"algorithm {algorithm!r} adapts by acting in its environment, and a support set "
                "has no environment. Use dmaml evaluate, or Learner.trajectories."
            )
        steps = self.config.evaluation.steps if steps is None else steps
        _require(1, steps, "test", None)
        self._require_known(pipeline)
        support, classes = self._inputs.support(support_x, support_y)
        torch.set_num_threads(self.config.run.threads)
        found: dict[int, Adapted] = {}

        def adapted(number: int) -> Adapted:
            if number not in found:
                params = self._answerer.calibrated(self.pipelines[number])
                found[number] = Adapted(
                    self._answerer.algorithm, params, support, steps, classes, number,
                    self._inputs.queries, self._facts(),
                )  # fmt: skip
            return found[number]

        def losses() -> NDArray[np.float64]:
            return np.array([[adapted(number).support_loss for number in sorted(self.pipelines)]])

        x, y = support.x[None].numpy(), support.y[None].numpy()
        chosen, posterior = self._router.route(x, y, losses).first()
        made = adapted(chosen if pipeline is None else pipeline)
        made.posterior = posterior
        return made

    def task(self, number: int = 0, most_queries: int | None = None) -> Task:
        """Return one of the run's test tasks of pictures: those that `evaluate` counts from 0.

        Args:
            number: >= 0; the same number gives the same classes and support set.
            most_queries: query examples per class, fewer where the classes have fewer; None:
                `evaluation.k_query`.

        Raises:
            ConfigError: the run's tasks are no pictures with classes.
            DataError: too few classes or examples.
        """
        return drawn_task(self._answerer, self.config, number, most_queries)

    def clone(self) -> Learner:
        """Return an independent copy: its parameters may be changed (tasks go as before)."""
        twin = copy.copy(self)
        twin.pipelines = {
            pipeline: {name: value.clone() for name, value in params.items()}
            for pipeline, params in self.pipelines.items()
        }
        return twin

    def module(self, pipeline: int | None = None, like: Tensor | None = None) -> nn.Module:
        """Return the network before any adaptation as a plain torch module.

        Metric-based algorithms give the embedding, `pretrain` a last layer of zeros.

        Args:
            pipeline: of which meta-model; None: of the first.
            like: examples `[N, *input_shape]`, N >= n_way: its batch norms have their statistics;
                None: each takes those of its batch, always.

        Raises:
            ConfigError: no such pipeline, or the algorithm or model has no plain form.
        """
        self._require_known(pipeline)
        pipeline = min(self.pipelines) if pipeline is None else pipeline
        source, n_way = self._answerer.source, self.config.task.n_way
        classifies = source.kind == "classification"
        blank = torch.zeros(n_way if classifies else 1, *source.input_shape)
        x = blank if like is None else like
        labels = torch.arange(len(x)) % n_way  # of no effect: there are no steps
        y = labels if classifies else torch.zeros(len(x), source.num_outputs(1))
        adapt = getattr(self._answerer.algorithm, "adapt", None)
        made = None if adapt is None else adapt(self.pipelines[pipeline], x, y, 0)
        if made is None:
            raise ConfigError(
                f"algorithm {self.config.algorithm.name!r} has no plain form: its network works "
                "on examples and labels together. Keep the run and use dmaml.learner."
            )
        return plain(made.model, made.params, None if like is None else made.statistics)

    def save(self, file: str | Path, pipeline: int | None = None) -> Path:
        """Write `module()` as a state_dict (`.safetensors`) or a graph (`.onnx`), and return it.

        Raises:
            ConfigError: another ending; no such pipeline; no plain form; `.onnx` of a model with
                batch norm; it cannot be written.
            HostError: `.onnx` without the packages that it needs.
            RunTimeError: the copy gives something else.
        """
        path = exports.checked_path(file)
        module = self.module(pipeline)
        has_norm = any("BatchNorm" in type(layer).__name__ for layer in module.modules())
        if path.suffix == exports.ONNX and has_norm:
            raise ConfigError(
                f"{str(path)!r}: before adaptation the batch norms of this model have no "
                "statistics, and an ONNX graph needs them. Give a support set, or write a "
                ".safetensors file."
            )
        shape = self._answerer.source.input_shape
        x = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0))
        facts = self._facts() | {"gives": "outputs", "classes": [], "steps": 0}
        with torch.no_grad():
            exports.save(module, facts, x, module(x), path)
        return path

    def _require_known(self, pipeline: int | None) -> None:
        if pipeline is not None and pipeline not in self.pipelines:
            raise ConfigError(
                f"pipeline {pipeline!r} is unknown. Known: {', '.join(map(str, self.pipelines))}."
            )

    def _facts(self) -> dict[str, Any]:
        """Return what is told of the run in an exported file."""
        return {
            "run": self.config.run.name,
            "version": self.version,
            "theta_sha256": self.theta_sha256,
            "algorithm": self.config.algorithm.name,
            "model": self.config.model.name,
            "input_shape": list(self._answerer.source.input_shape),
        }

    def evaluate(
        self,
        tasks: int = 600,
        steps: int = 3,
        split: SplitName = "test",
        k_query: int | None = None,
    ) -> dict[str, Any]:
        """Return mean and 95 % half-width of every metric after 0 .. steps adaptation steps.

        The tasks are fixed by the run's seed: the same number gives the same tasks. Where there
        are several pipelines, each task goes to one by its support set (`Router`).

        Args:
            tasks: how many, >= 1.
            steps: adaptation steps, >= 0.
            split: whose classes.
            k_query: query examples per class; None: `evaluation.k_query`.

        Returns:
            `tasks`, `steps`, `split`, `n_way`, `k_shot`, `k_query`; for classification `accuracy`
            and `ci95` (lists by step, batch norm over the query set), `loss`, and `inductive` with
            `accuracy` and `ci95` (batch norm by the support set); for regression `mse` and `ci95`;
            for control `return` and `ci95`, and `adaptation_delta`. With several pipelines
            `routing`: `by` (`centres`, `features` or `support_loss`) and what `router.summary`
            tells.

        Raises:
            ConfigError: a number out of range.
            DataError: too few classes or examples.
        """
        _require(tasks, steps, split, k_query)
        found, routing = self._tables(tasks, steps, split, k_query)
        metrics = {name: interval(table) for name, table in found.items()}
        n_way, k_shot = evaluation_shape(self.config)
        out: dict[str, Any] = {
            "tasks": tasks,
            "steps": steps,
            "split": split,
            "n_way": n_way,
            "k_shot": k_shot,
            "k_query": k_query or self.config.evaluation.k_query,
        }
        main = main_metric(metrics)
        for name, values in metrics.items():
            if name.endswith("_inductive"):
                inductive = out.setdefault("inductive", {})
                inductive[name.removesuffix("_inductive")] = values["mean"]
                if name == f"{main}_inductive":
                    inductive["ci95"] = values["ci95"]
            else:
                out[name] = values["mean"]
        out["ci95"] = metrics[main]["ci95"]
        return out | routing

    def trajectories(
        self, tasks: int = 4, steps: int = 3, split: SplitName = "test", k_query: int | None = None
    ) -> list[Paths]:
        """Return what the policy does after 0 .. steps adaptation steps, of control tasks.

        Args:
            tasks: how many, >= 1.
            steps: adaptation steps, >= 0.
            split: whose tasks.
            k_query: trajectories per task and step; None: `evaluation.k_query`.

        Raises:
            ConfigError: a number out of range, or the tasks are not control.
        """
        _require(tasks, steps, split, k_query)
        algorithm = self._answerer.algorithm
        if not isinstance(algorithm, MamlRl):
            raise ConfigError(
                f"algorithm {self.config.algorithm.name!r} has no trajectories. "
                "They are for maml_rl without local steps."
            )
        torch.set_num_threads(self.config.run.threads)
        kind = Kind.TEST if split == "test" else Kind.EVALUATE
        batch = self._answerer.evaluation_tasks(kind, split, range(tasks), k_query)
        assert batch.parameters is not None
        found = list(algorithm.trajectories(self.params, batch, steps))
        lengths = [one.mask.sum(2).long() for one in found]
        return [
            Paths(
                batch.parameters[task],
                [
                    [
                        row[:length].numpy()
                        for row, length in zip(one.observations[task], own[task], strict=True)
                    ]
                    for one, own in zip(found, lengths, strict=True)
                ],
            )
            for task in range(tasks)
        ]

    def _tables(
        self, tasks: int, steps: int, split: SplitName, k_query: int | None
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
        """Return every task's figures by metric, and `routing` of several pipelines."""
        k = k_query or self.config.evaluation.k_query
        require_episode(self._answerer.source, split, *evaluation_shape(self.config), k)
        kind = Kind.TEST if split == "test" else Kind.EVALUATE
        parts: dict[str, list[NDArray[np.float64]]] = {}
        torch.set_num_threads(self.config.run.threads)
        thetas = [self._answerer.calibrated(self.pipelines[one]) for one in sorted(self.pipelines)]
        algorithm, source = self._answerer.algorithm, self._answerer.source
        routes: list[Routes] = []
        units: list[Units] = []
        for start in range(0, tasks, CHUNK):
            numbers = range(start, min(start + CHUNK, tasks))
            batch = self._answerer.evaluation_tasks(kind, split, numbers, k)
            losses = partial(routing.support_losses, algorithm, thetas, batch, steps)
            routed = self._router.route(batch.support_x, batch.support_y, losses)
            found = routing.evaluate_under(algorithm, thetas, batch, steps, routed.chosen)
            for name, table in found.metrics.items():
                parts.setdefault(name, []).append(table)
            routes.append(routed)
            units.append(batch.units)
        tables = {name: np.concatenate(rows) for name, rows in parts.items()}
        if len(thetas) == 1:
            return tables, {}
        told = summary(joined(routes), origins_of(source, np.concatenate(units)))
        return tables, {"routing": {"by": self._router.by, **told}}


def load(
    run_dir: str | Path,
    which: Which = "latest",
    data_dir: str | Path | None = None,
    n_way: int | None = None,
    k_shot: int | None = None,
    inner_lr: float | None = None,
) -> Learner:
    """Return the trained meta-model of a run directory.

    Args:
        run_dir: what `dmaml train` printed.
        which: the latest state, or the one with the best validation.
        data_dir: where data files are looked for first.
        n_way: classes per task in evaluation; None: the run's.
        k_shot: support examples per class in evaluation; None: the run's.
        inner_lr: the rate of adaptation; None: the run's.

    Raises:
        RunDirectoryError: no run, or no whole checkpoint.
        ConfigError: another `which`; another n_way, and the algorithm's outputs are tied to that
            of training; a rate that is not > 0, or for a run that learned its rates.
        DataError: the run's data were not found, or have too few classes or examples.
    """
    folder = Path(run_dir).expanduser()
    if which not in get_args(Which):
        raise ConfigError(f"which {which!r} is unknown. Known: {', '.join(get_args(Which))}.")
    config = paced(reshaped(read_config(folder), n_way, k_shot), inner_lr)
    if which == "best":
        if not (folder / checkpoints.BEST).exists():
            raise RunDirectoryError(
                f"run directory {str(folder)!r} has no best checkpoint: it was not validated yet. "
                "Take the latest one."
            )
        checkpoint: Checkpoint | None = checkpoints.read(folder / checkpoints.BEST)
    else:
        checkpoint, _ = checkpoints.load_latest(folder)
    if checkpoint is None:
        raise RunDirectoryError(
            f"run directory {str(folder)!r} has no checkpoint yet. Train first: "
            f"dmaml train {folder / 'config.yaml'} --run-dir {folder}"
        )
    return Learner(config, checkpoint, None if data_dir is None else Path(data_dir))


def _require(tasks: int, steps: int, split: str, k_query: int | None) -> None:
    if tasks < 1:
        raise ConfigError(f"tasks {tasks}: required at least 1.")
    if not isinstance(steps, Integral) or not 0 <= steps <= 1000:
        raise ConfigError(f"steps {steps!r}: required a whole number, 0 to 1000.")
    if k_query is not None and k_query < 1:
        raise ConfigError(f"k_query {k_query}: required at least 1.")
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown. Known: {', '.join(SPLITS)}.")
