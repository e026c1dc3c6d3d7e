"""The command `dmaml`: options in, one call, words out.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, final

MIN_PYTHON = (3, 10)
if sys.version_info < MIN_PYTHON:
    sys.stderr.write(
        f"error: Python {sys.version.split()[0]} is too old: dmaml needs 3.10 or newer "
        "(3.11 is the reference).\n"
    )
    raise SystemExit(2)

import typer  # noqa: E402
from typer.core import TyperGroup  # noqa: E402

from dmaml.common.errors import ConfigError, DmamlError  # noqa: E402
from dmaml.deploy.cli_data import data_app  # noqa: E402
from dmaml.deploy.cli_options import (  # noqa: E402
    DataDir,
    Json,
    Server,
    TlsCa,
    TlsCert,
    TlsKey,
    TokenFile,
)
from dmaml.deploy.cli_runs import adapt, cluster, evaluate, export, report  # noqa: E402
from dmaml.deploy.simulate import simulate  # noqa: E402


@final
class Commands(TyperGroup):
    """The commands; one that is interrupted and says nothing itself ends with a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="dmaml",
    cls=Commands,
    help="Distributed meta-learning: one meta-model server, many Ray actors, the same bits.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.command()(simulate)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; without it the embedded default.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value; may be repeated.", envvar="DMAML_SET"),
    ] = None,
    workers: Annotated[int, typer.Option(help="Actors on this machine.", min=1)] = 2,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Run directory; default runs/NAME.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with the run that is there.")
    ] = True,
    listen: Annotated[str, typer.Option(help="gRPC address; port 0: any.")] = "127.0.0.1:0",
    http: Annotated[str, typer.Option(help="HTTP address; port 0: any.")] = "127.0.0.1:0",
    data_dir: DataDir = None,
    json_output: Json = False,
) -> None:
    """Train on this machine: server, Ray and actors in one command."""
    from dmaml.deploy.train import train_here

    train_here(
        config, tuple(settings or ()), workers, run_dir, resume, listen, http, data_dir, json_output
    )


@app.command()
def server(
    config: Annotated[str, typer.Argument(help="YAML file.")],
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Run directory; default runs/NAME.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value; may be repeated.", envvar="DMAML_SET"),
    ] = None,
    listen: Annotated[str, typer.Option(help="gRPC address.")] = "127.0.0.1:50051",
    http: Annotated[str, typer.Option(help="HTTP address.")] = "127.0.0.1:9464",
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with the run that is there.")
    ] = True,
    token_file: TokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="PEM file: clients must show a certificate.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without a token.")
    ] = False,
    reflection: Annotated[
        bool, typer.Option("--reflection", help="Serve gRPC reflection.")
    ] = False,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="End when the run is finished.")
    ] = False,
    embedded: Annotated[bool, typer.Option("--embedded", hidden=True)] = False,
) -> None:
    """Serve one run until SIGTERM; actors come from `dmaml workers`."""
    from dmaml.deploy.host import MIB, SERVER_MIB, memory_bytes, require_memory

    remedy = "Raise the memory limit (compose: DMAML_SERVER_MEMORY)."
    require_memory(memory_bytes(), SERVER_MIB * MIB, "the server", remedy)
    from dmaml.deploy.serve import serve
    from dmaml.server.rpc.auth import Security

    security = Security(token_file, tls_cert, tls_key, tls_ca, insecure)
    serve(
        config, tuple(settings or ()), run_dir, listen, http, resume, security, reflection,
        exit_when_done, embedded,
    )  # fmt: skip


@app.command()
def workers(
    server: Server = "127.0.0.1:50051",
    ray_address: Annotated[
        str, typer.Option(help="auto, local, or an address of a Ray cluster.")
    ] = "local",
    count: Annotated[
        str,
        typer.Option(help="auto (one per meta_worker unit, else per CPU) or a number."),
    ] = "auto",
    per_node: Annotated[
        int | None, typer.Option("--actors-per-node", help="So many on every node.", min=1)
    ] = None,
    cpus: Annotated[
        float | None,
        typer.Option("--cpus-per-actor", help="CPUs that Ray reserves for each actor.", min=0.0),
    ] = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Wait for the server's next run when this one is done.")
    ] = False,
    orphan_s: Annotated[
        float, typer.Option(help="End after so long without the server, seconds.", min=1.0)
    ] = 60.0,
    data_dir: DataDir = None,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Start actors for a server and keep them alive until its run is done."""
    from dmaml.deploy.workers import WorkOptions, work
    from dmaml.worker.connection import Address

    address = Address.of_files(server, token_file, tls_ca, tls_cert, tls_key)
    work(address, WorkOptions(ray_address, count, per_node, cpus, orphan_s, stay, data_dir))


@app.command()
def node(
    server: Server = "127.0.0.1:50051",
    join: Annotated[
        str, typer.Option(help="HOST:PORT of the Ray head; without it this node is the head.")
    ] = "",
    actors: Annotated[int, typer.Option(help="Actors that this node offers.", min=1)] = 1,
    object_store: Annotated[
        int, typer.Option(help="Shared memory for Ray, MiB; dmaml uses none.", min=75)
    ] = 80,
    ray_port: Annotated[int, typer.Option(help="Port of the Ray head.")] = 6379,
    metrics_port: Annotated[int, typer.Option(help="Port of Ray's own metrics.")] = 8080,
    dashboard: Annotated[
        str, typer.Option(help="HOST:PORT of Ray's dashboard on the head; empty: none.")
    ] = "",
    drain_s: Annotated[
        float, typer.Option(help="How long actors may take to leave, seconds.", min=0.0)
    ] = 20.0,
    data_dir: DataDir = None,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Be a node of a Ray cluster: the head with the supervisor, or one that offers actors."""
    import os

    from dmaml.deploy.host import MIB
    from dmaml.deploy.node import NodeOptions, run_node
    from dmaml.worker.connection import Address

    for name, file in (("CA", tls_ca), ("CERT", tls_cert), ("KEY", tls_key)):
        if file is not None:
            os.environ[f"DMAML_TLS_{name}"] = str(file)  # for the supervisor
    options = NodeOptions(
        join, actors, object_store * MIB, ray_port, metrics_port, dashboard,
        drain_s=drain_s, token_file=token_file, data_dir=data_dir,
    )  # fmt: skip
    run_node(Address.of_files(server, token_file, tls_ca, tls_cert, tls_key), options)


_CONTROL: Final = {
    "status": "Show a server's run: state, progress, actors.",
    "pause": "Grant no further work; answers under way are still taken.",
    "resume": "Grant work again after a pause.",
    "checkpoint": "Write a checkpoint now and return when it is durable.",
    "drain": "End a server's run after the round in progress.",
}


def _add_control(verb: str, sentence: str) -> None:
    """Add a command that does one thing to a server's run."""

    @app.command(verb, help=sentence)
    def control(
        server: Server = "127.0.0.1:50051",
        token_file: TokenFile = None,
        tls_ca: TlsCa = None,
        tls_cert: TlsCert = None,
        tls_key: TlsKey = None,
        json_output: Json = False,
    ) -> None:
        from dmaml.deploy.control import run
        from dmaml.worker.connection import Address

        run(verb, Address.of_files(server, token_file, tls_ca, tls_cert, tls_key), json_output)


for _verb, _sentence in _CONTROL.items():
    _add_control(_verb, _sentence)


@app.command()
def watch(
    target: Annotated[
        str | None, typer.Argument(help="Run directory or HOST:PORT; without it --server.")
    ] = None,
    server: Server = "127.0.0.1:50051",
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    json_output: Json = False,
) -> None:
    """Follow a run until it is over: curves, actors, events; plain lines without a terminal."""
    from dmaml.deploy import watch as watching
    from dmaml.worker.connection import Address

    if target is not None and watching.is_address(target):
        server, target = target, None
    address = Address.of_files(server, token_file, tls_ca, tls_cert, tls_key)
    if json_output or not sys.stdout.isatty():
        watching.watch_lines(target, address, json_output)
    else:
        watching.watch(target, address)


for _command in (evaluate, adapt, export, report, cluster):
    app.command()(_command)


@app.command()
def repro(
    name: Annotated[
        str | None, typer.Argument(help="Name of an experiment; without it they are listed.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick/--full", help="Meant for at most ten minutes on two cores, or the whole."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder; default runs/repro/NAME[-quick].")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Experiments, for the 95 % intervals; default 3.", min=1)
    ] = None,
    lanes: Annotated[
        int | None, typer.Option(help="Runs at a time; default one per core.", min=1)
    ] = None,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Smooth curves by a polynomial of degree 10.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(help="Without NAME: write the scoreboard of what is in --out (runs/repro)."),
    ] = None,
    data_dir: DataDir = None,
    json_output: Json = False,
) -> None:
    """Run a published experiment; print measured beside published, draw the pictures."""
    from dmaml.deploy.experiments import known

    if page is not None:
        if name is not None:
            raise ConfigError(f"--page with {name!r}: it shows all that were run. Leave one out.")
        from dmaml.deploy.repro.command import write_page

        write_page(page, out)
        return
    if name is not None:
        name = known(name)  # before the imports of a run, which take seconds
    elif quick or smooth or (out, seeds, lanes, data_dir) != (None, None, None, None):
        raise ConfigError("dmaml repro: options without NAME. Name one; `dmaml repro` lists them.")

    from dmaml.deploy.repro.command import reproduce, show_list

    if name is None:
        show_list(json_output)
    else:
        reproduce(name, quick, out, seeds, lanes, smooth, data_dir, json_output)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name; without it a list.")] = "--help",
) -> int:
    """Measure this machine: scaling, stragglers, engine, ... (dmaml bench --help)."""
    from dmaml.deploy.bench import run_benchmark

    return run_benchmark(name, context.args)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run_cli(arguments))


def run_cli(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code; errors become one sentence on stderr."""
    where = str(Path.cwd())
    if where not in sys.path:
        sys.path.insert(0, where)  # the user's own package.module:Thing
    try:
        outcome: Any = app(args=arguments, prog_name="dmaml", standalone_mode=False)
    except DmamlError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except typer.Exit as done:
        return int(done.exit_code)
    except BrokenPipeError:
        return 1
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's usage errors
            sys.stderr.write(_usage_sentence(error.format_message()))
            return 2
        raise
    return outcome if isinstance(outcome, int) else 0


def _usage_sentence(message: str) -> str:
    if message.startswith("Usage:"):  # a command without arguments shows its help
        return message.rstrip() + "\n"
    return f"error: {message.rstrip().rstrip('.')}. See dmaml --help.\n"


if __name__ == "__main__":
    main()
