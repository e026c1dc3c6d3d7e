"""`dmaml status|watch|pause|resume|checkpoint|drain`."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.table import Column, Table

from dmaml.common.errors import RunFailedError
from dmaml.common.items import RunState
from dmaml.deploy.progress import describe
from dmaml.deploy.tables import show_table
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator

PATIENCE_S: Final = 5.0
_OVER: Final = (RunState.FINISHED, RunState.FAILED)


def run(verb: str, address: Address, json_output: bool) -> None:
    """Do one thing to a server's run and print how it is afterwards.

    Raises:
        ServerUnreachableError: no answer within a few seconds.
        AuthenticationError: the token is missing or wrong.
        RunFailedError: `watch` saw the run fail.
    """
    operator = Operator(address, Retry(PATIENCE_S))
    try:
        if verb == "watch":
            _watch(operator, json_output)
        elif verb == "checkpoint":
            _print(_plain(operator.checkpoint()), json_output)
        else:
            status = operator.status() if verb == "status" else operator.do(verb)
            if json_output:
                _print(_status(status), True)
            else:
                _show(status)
    finally:
        operator.close()


def _watch(operator: Operator, json_output: bool) -> None:
    status: Any = None
    last = -1
    for status in operator.watch():
        if status.round != last:
            last = status.round
            line = f"round {status.trained}/{status.rounds}  {describe(status)}"
            sys.stderr.write(line + "\n")
        if status.state in _OVER:
            break
    if status is None:
        return
    if json_output:
        _print(_status(status), True)
    if status.state == RunState.FAILED:
        raise RunFailedError(status.message)


def _show(status: Any) -> None:
    console = Console()
    state = RunState(status.state).name.lower()
    console.print(f"run {status.name!r}: {state} {status.message}".rstrip(), highlight=False)
    console.print(
        f"round {status.trained} of {status.rounds}, version {status.version}, "
        f"{status.round} rounds of every kind "
        f"(durable: {status.durable_round}), {status.tasks_seen} tasks seen, "
        f"epoch {status.epoch}, θ {status.theta_sha256[:16] or 'none yet'}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if status.trained:
        console.print(describe(status), highlight=False, soft_wrap=True)
    if status.workers:
        table = Table(Column("actor", no_wrap=True), "host", "leases", "answers", "silent s")
        for worker in status.workers:
            table.add_row(
                worker.worker_id, worker.host, str(worker.leases), str(worker.contributions),
                f"{worker.idle_s:.1f}",
            )  # fmt: skip
        show_table(console, table)


def _status(status: Any) -> dict[str, Any]:
    values = _plain(status)
    values["state"] = RunState(status.state).name
    return values


def _plain(message: Any) -> dict[str, Any]:
    """Return a message as plain values; 64-bit numbers as numbers, not as protobuf's strings."""
    values: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    integers = {f.name for f in message.DESCRIPTOR.fields if f.type in (f.TYPE_UINT64,)}
    for name in integers & set(values):
        values[name] = int(values[name])
    for worker in values.get("workers", []):
        worker["contributions"] = int(worker["contributions"])
    values.pop("config_json", None)
    return values


def _print(values: dict[str, Any], json_output: bool) -> None:
    if json_output:
        sys.stdout.write(json.dumps(values) + "\n")
        return
    for name, value in values.items():
        sys.stdout.write(f"{name}: {value}\n")
