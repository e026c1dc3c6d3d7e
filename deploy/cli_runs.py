"""Commands about runs that are there: evaluate, adapt, export, report, cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmaml.common.errors import ConfigError
from dmaml.deploy.cli_options import DataDir, Json

Steps = Annotated[
    int | None, typer.Option(help="Adaptation steps; default: evaluation.steps.", min=0)
]
Which = Annotated[str, typer.Option("--checkpoint", help="latest or best.")]
Pipeline = Annotated[
    int | None,
    typer.Option(help="Of a run with several; default: routed by the support set.", min=0),
]


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    tasks: Annotated[int, typer.Option(help="Number of tasks.", min=1)] = 600,
    steps: Annotated[int, typer.Option(help="Adaptation steps.", min=0)] = 3,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    n_way: Annotated[
        int | None,
        typer.Option(help="Classes per task, where the algorithm allows.", min=1),
    ] = None,
    k_shot: Annotated[
        int | None, typer.Option(help="Default: evaluation.k_shot, or task.k_shot.", min=1)
    ] = None,
    k_query: Annotated[
        int | None,
        typer.Option(help="Default: evaluation.k_query.", min=1),
    ] = None,
    which: Annotated[str, typer.Option("--checkpoint", help="latest or best.")] = "latest",
    data_dir: DataDir = None,
    json_output: Json = False,
) -> None:
    """Evaluate a trained run on unseen classes."""
    from dmaml.deploy.train import evaluate_run

    shape = (n_way, k_shot, k_query)
    evaluate_run(run, tasks, steps, split, shape, which, data_dir, json_output)


def adapt(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    support: Annotated[
        Path, typer.Option("--support", help="Examples: one folder of pictures per class.")
    ],
    query: Annotated[
        Path | None,
        typer.Option("--query", help="Pictures to classify: a folder, flat or one per class."),
    ] = None,
    steps: Steps = None,
    pipeline: Pipeline = None,
    which: Which = "latest",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the adapted model: FILE.safetensors or FILE.onnx."),
    ] = None,
    data_dir: DataDir = None,
    json_output: Json = False,
) -> None:
    """Adapt a trained run to a few pictures of your own, and classify others."""
    from dmaml.deploy.use import adapt_run

    adapt_run(run, support, query, steps, pipeline, which, out, data_dir, json_output)


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Option("--out", help="FILE.safetensors or FILE.onnx.")],
    support: Annotated[
        Path | None,
        typer.Option("--support", help="Adapt to it first: one folder of pictures per class."),
    ] = None,
    steps: Steps = None,
    pipeline: Pipeline = None,
    which: Which = "latest",
    data_dir: DataDir = None,
    json_output: Json = False,
) -> None:
    """Write a trained (and adapted) model for plain torch or for ONNX."""
    from dmaml.deploy.use import export_run

    export_run(run, support, out, steps, pipeline, which, data_dir, json_output)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directory; several: a comparison; features RUN: its features."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; default RUN/report, RUN/features or runs/comparison."),
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(help="Test tasks to try the model on; default 200 (features: 20).", min=1),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="features: the same network, trained otherwise.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="features: adaptation steps; default evaluation.steps.")
    ] = None,
    against_steps: Annotated[int | None, typer.Option(help="features: those of --against.")] = None,
    against_lr: Annotated[
        float | None, typer.Option(help="features: the rate of adaptation of --against.")
    ] = None,
    data_dir: DataDir = None,
    json_output: Json = False,
) -> None:
    """Write what a run learned as one HTML file with pictures, or compare several runs.

    dmaml report features RUN --against RUN shows what the layers of two networks look for, and what
    adaptation changes in them.
    """
    from dmaml.deploy.report import FEATURES, Asked, write_report, write_study

    asked = Asked(against, steps, against_steps, against_lr)
    if runs[0] == FEATURES:
        write_study(runs[1:], asked, out, tasks, data_dir, json_output)
        return
    if asked != Asked():
        raise ConfigError(
            "--against, --steps, --against-steps and --against-lr are for a feature study: dmaml "
            "report features RUN --against RUN. Add features, or leave them out."
        )
    write_report(runs, out, tasks, data_dir, json_output)


def cluster(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    similarity: Annotated[
        Path | None,
        typer.Option(
            "--similarity",
            help="FILE.csv or FILE.npy: how alike its training units are, by the tree.",
        ),
    ] = None,
    data_dir: DataDir = None,
    json_output: Json = False,
) -> None:
    """Show a run's clustering: pipelines, their tree, recovery of the true origins."""
    from dmaml.deploy.cluster import show

    show(run, data_dir, json_output, similarity)
