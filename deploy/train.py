"""`dmaml train` and `dmaml evaluate`: from options to a table."""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, DmamlError
from dmaml.common.intervals import main_metric
from dmaml.common.seeds import Kind, stream
from dmaml.deploy.default import load_config
from dmaml.deploy.interrupts import interrupt_on_sigterm
from dmaml.server.storage import check_directory
from dmaml.worker.answers import Answerer


def train_here(
    config_file: Path | None,
    settings: tuple[str, ...],
    workers: int,
    run_dir: Path | None,
    resume: bool,
    listen: str,
    http: str,
    data_dir: Path | None,
    json_output: bool,
) -> None:
    """Train in an embedded cluster, evaluate, and say what came out."""
    from dmaml.deploy.local import LocalOptions, train
    from dmaml.deploy.progress import Bar

    config = load_config(config_file, settings)
    folder = run_dir or Path("runs") / config.run.name
    check_directory(folder, config, resume)
    check_work(config, data_dir)
    check_free(listen, http)
    console = Console(stderr=True)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    interrupt_on_sigterm()
    console.print(
        f"run [bold]{config.run.name}[/] in {folder}: {config.algorithm.name} on "
        f"{config.task.source}, {config.run.rounds} rounds, {workers} actors",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    _warn_idle(console, config, workers)
    began = time.monotonic()
    bar = Bar(console, config.run.rounds)

    def announce(address: str) -> None:
        console.print(
            f"metrics http://{address}/metrics", style="dim", highlight=False, soft_wrap=True
        )

    try:
        options = LocalOptions(workers, listen, http, data_dir)
        with redirect_stdout(sys.stderr):  # Ray prints its warnings; standard output is the report
            train(config, folder, options, announce, bar.show)
    except KeyboardInterrupt:
        bar.stop()
        console.print(
            "interrupted: nothing committed is lost. The same command goes on.", style="yellow"
        )
        raise
    finally:
        bar.stop()
    report = _report(folder, time.monotonic() - began, data_dir)
    _finish(console, report, json_output)


def evaluate_run(
    run: Path,
    tasks: int,
    steps: int,
    split: str,
    shape: tuple[int | None, int | None, int | None],
    which: str,
    data_dir: Path | None,
    json_output: bool,
) -> None:
    """Evaluate a trained run and print the figures.

    Args:
        shape: n_way, k_shot and k_query of the tasks; None: the run's.
    """
    from dmaml.learner import load

    if which not in ("latest", "best"):
        raise ConfigError(f"--checkpoint {which!r} is unknown. Known: latest, best.")
    n_way, k_shot, k_query = shape
    learner = load(run, "best" if which == "best" else "latest", data_dir, n_way, k_shot)
    test = learner.evaluate(tasks, steps, split, k_query)  # type: ignore[arg-type]
    out = {
        "run_dir": str(run),
        "version": learner.version,
        "theta_sha256": learner.theta_sha256,
        "test": test,
    }
    if json_output:
        print(json.dumps(out))
        return
    for table in tables_of(test):
        Console().print(table)


def check_work(config: RunConfig, data_dir: Path | None) -> None:
    """Raise unless the tasks, the model and the server's plug-ins can be made."""
    from dmaml.server import aggregation, clustering, weights

    weights.build(config.weights)
    aggregation.check(config)
    clustering.build(config)
    answerer = Answerer(config, data_dir)
    try:
        _try_model(config, answerer)
    except DmamlError:
        raise
    except Exception as error:  # whatever the user's own model does
        raise ConfigError(
            f"model {config.model.name!r} cannot take the tasks of {config.task.source!r} "
            f"(examples of shape {answerer.source.input_shape}): {type(error).__name__}: {error}. "
            "Set another model.name, or mend it."
        ) from error


def _try_model(config: RunConfig, answerer: Answerer) -> None:
    """Answer one evaluation task with fresh parameters."""
    seed, source = config.run.seed, answerer.source
    params = answerer.algorithm.init(stream(seed, Kind.INIT))
    streams = [stream(seed, Kind.TRAIN)]
    task = config.task
    batch = source.sample(streams, source.split("train"), task.n_way, task.k_shot, task.k_query)
    answerer.algorithm.evaluate(params, batch, 1)


def check_free(listen: str, http: str) -> None:
    """Raise unless both addresses can be listened on."""
    from dmaml.server.web.app import bind

    for name, address in (("--listen", listen), ("--http", http)):
        bind(address, name).close()


def tables_of(test: dict[str, Any]) -> list[Table]:
    """Return the test figures as a table, and where the tasks went if there were several ways."""
    return [table_of(test), *([routing_of(test["routing"])] if "routing" in test else [])]


def routing_of(routing: dict[str, Any]) -> Table:
    """Return the share of tasks that went to each pipeline, and its mean posterior, by origin."""
    table = Table(title=f"routed by {routing['by'].replace('_', ' ')}: share of tasks (posterior)")
    table.add_column("origin")
    table.add_column("tasks", justify="right")
    for pipeline in routing["pipelines"]:
        table.add_column(f"pipeline {pipeline}", justify="right")
    total = {"origin": "all", "tasks": routing["tasks"]} | routing
    for row in [*routing.get("origins", []), total]:
        pairs = zip(row["shares"], row["posterior"], strict=True)
        cells = (f"{share:.3f} ({mean:.3f})" for share, mean in pairs)
        table.add_row(row["origin"], str(row["tasks"]), *cells)
    return table


def table_of(test: dict[str, Any]) -> Table:
    """Return the test figures as a table: a row per adaptation step."""
    metric = main_metric(test)
    table = Table(
        title=f"{test['tasks']} {test['split']} tasks, {test['n_way']}-way {test['k_shot']}-shot, "
        f"{test['k_query']} queries a class"
        if metric == "accuracy"
        else f"{test['tasks']} {test['split']} tasks"
    )
    table.add_column("steps", justify="right")
    table.add_column(f"{metric} ± 95 %", justify="right")
    inductive = test.get("inductive", {}).get(metric)
    if inductive:
        table.add_column("inductive ± 95 %", justify="right")
    delta = test.get("adaptation_delta")
    if delta:
        table.add_column("adaptation delta", justify="right")
    for step, value in enumerate(test[metric]):
        cells = [str(step), _figure(value, test["ci95"][step])]
        if inductive:
            cells.append(_figure(inductive[step], test["inductive"]["ci95"][step]))
        if delta:
            cells.append(f"{delta[step]:+.3f}")
        table.add_row(*cells)
    return table


def _report(folder: Path, wall_s: float, data_dir: Path | None) -> dict[str, Any]:
    from dmaml.common.rundir import read_config, read_rows, training_seconds
    from dmaml.learner import load
    from dmaml.report.curve import draw_curve

    config = read_config(folder)
    learner = load(folder, data_dir=data_dir)
    rounds = read_rows(folder, "rounds")
    busy_s = training_seconds(rounds, read_rows(folder, "worker_events"))
    out: dict[str, Any] = {
        "run_dir": str(folder),
        "rounds": learner.rounds,
        "tasks_seen": learner.tasks_seen,
        "tasks_per_s": round(learner.tasks_seen / busy_s, 3) if busy_s else 0.0,
        "wall_s": round(wall_s, 3),
        "theta_sha256": learner.theta_sha256,
    }
    if rounds:
        out["curve"] = str(draw_curve(folder))
    if config.evaluation.test_tasks:
        out["test"] = learner.evaluate(config.evaluation.test_tasks, config.evaluation.steps)
    return out


def _finish(console: Console, report: dict[str, Any], json_output: bool) -> None:
    if json_output:
        sys.stdout.write(json.dumps(report) + "\n")
        return
    out = Console()
    for table in tables_of(report["test"]) if "test" in report else []:
        out.print(table)
    lines = [
        f"{report['tasks_seen']} tasks in {report['wall_s']:.0f} s "
        f"({report['tasks_per_s']:.0f} tasks/s), θ {report['theta_sha256'][:16]}",
    ]
    if "curve" in report:
        lines.append(f"learning curve: {report['curve']}")
    program = Path(sys.argv[0]).name if shutil.which("dmaml") else sys.argv[0]
    lines.append(f"next: {program} evaluate {report['run_dir']} --tasks 2000 --k-query 15")
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)


def _warn_idle(console: Console, config: RunConfig, workers: int) -> None:
    items = config.topology.slots * config.topology.parts * config.clustering.pipelines
    if workers > items:
        console.print(
            f"warning: {workers} actors, {items} items a round: {workers - items} will idle. "
            f"Raise topology.parts or topology.slots, or say --workers {items}.",
            style="yellow", highlight=False, soft_wrap=True,
        )  # fmt: skip


def _figure(mean: float, half: float) -> str:
    return f"{mean:.3f} ± {half:.3f}" if math.isfinite(mean) else str(mean)
