"""The command `dmaml simulate`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DIST = "DIST"  # how the help names a distribution


def _times(help_text: str, name: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, metavar=DIST, help=help_text)
    return option


def simulate(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; without it the embedded default.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value; may be repeated.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Actors at the start; default: the slots.", min=1)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="TRAIN rounds; default run.rounds.", min=1)
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="Default: --workers, else topology.slots.", min=1)
    ] = None,
    modes: Annotated[
        str, typer.Option(help="Of sync, quorum and async, each also with +speculation.")
    ] = "sync,quorum,async,sync+speculation",
    compute: Annotated[
        str, _times("Seconds of one work item.", "--compute")
    ] = "lognormal(1.0,0.3)",
    slow: Annotated[
        str,
        typer.Option(metavar="FRACTION:FACTOR", help="So many machines take so much longer."),
    ] = "",
    latency: Annotated[str, _times("Seconds of one message, one way.", "--latency")] = "0.001",
    service: Annotated[
        str, _times("Seconds of the server over one message, one at a time.", "--service")
    ] = "0",
    commit: Annotated[str, _times("Seconds of one commit.", "--commit")] = "0.002",
    combine: Annotated[str, _times("Seconds that each answer adds to it.", "--combine")] = "0.0002",
    checkpoint: Annotated[
        str, _times("Seconds until a checkpoint is durable.", "--checkpoint")
    ] = "0.02",
    mtbf: Annotated[
        str, _times("Life of an actor until it dies; default: none dies.", "--mtbf")
    ] = "",
    repair: Annotated[str, _times("From a death to the successor's start.", "--repair")] = "10",
    outage: Annotated[
        str, _times("From one outage of a machine's network to the next.", "--outage")
    ] = "",
    outage_for: Annotated[str, _times("How long an outage lasts.", "--outage-for")] = "5",
    leave: Annotated[
        str, _times("How long an actor stays until it leaves; default: to the end.", "--leave")
    ] = "",
    join: Annotated[
        str, _times("From one further actor to the next; default: none comes.", "--join")
    ] = "",
    seed: Annotated[int | None, typer.Option(help="Default run.seed.", min=0)] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Modes simulated at a time; default: one per CPU.", min=1)
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on the last line.")
    ] = False,
) -> None:
    """Run the real core under virtual time: rounds/s, staleness, stragglers of each mode.

    DIST is a number of seconds, or constant(value), uniform(low,high), exponential(mean),
    lognormal(median,sigma), pareto(minimum,alpha) or weibull(scale,shape); docs/simulation.md.
    """
    from dmaml.deploy.simulation import Request, simulate_here

    times = {
        "compute": compute, "latency": latency, "service": service, "commit": commit,
        "combine": combine, "checkpoint": checkpoint, "mtbf": mtbf, "repair": repair,
        "outage": outage, "outage_for": outage_for, "leave": leave, "join": join,
    }  # fmt: skip
    request = Request(
        config, tuple(settings or ()), workers, rounds, slots, modes, slow, times, seed, jobs
    )
    simulate_here(request, json_output)
