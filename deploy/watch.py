"""`dmaml watch`: follows a run in a terminal, by its directory or by its server's address."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

from rich.console import Console
from rich.live import Live

from dmaml.common.errors import DmamlError, RunFailedError, ServerUnreachableError
from dmaml.common.rundir import ADDRESS, Row, ending, read_config, read_rows
from dmaml.deploy.view import View, screen, with_rows, with_status
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator

EVERY_S: Final = 0.5
PATIENCE_S: Final = 10.0  # without an answer: a server that is started again is back by then
WITHOUT: Final = "without a server"


@final
class RecordReader:
    """Reads what is new in a run directory's record.

    Raises:
        RunDirectoryError: no run.
    """

    def __init__(self, folder: Path) -> None:
        config = read_config(folder)
        self._folder = folder
        self._last = {"rounds": -1, "evaluations": -1, "worker_events": -1, "gamma": -1}
        self.first = View(name=config.run.name, rounds=config.run.rounds)

    def server(self) -> str | None:
        """Return where the run's server listens, or None where none is at work."""
        try:
            return str(json.loads((self._folder / ADDRESS).read_text())["grpc"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def read(self, view: View) -> View:
        """Return the view after the rows that were not there before."""
        rounds = self._new("rounds", "round")
        evaluations = self._new("evaluations", "round")
        gamma = self._new("gamma", "version")
        events = self._new("worker_events", "id")
        view = with_rows(view, rounds, evaluations, events)
        if gamma:
            view = replace(view, gamma=_gamma_words(gamma[-1]))
        return view

    def last_state(self) -> str:
        """Return how the run stands according to its record: finished, failed or neither."""
        rounds = read_rows(self._folder, "rounds", after=self._last["rounds"] - 1)
        return ending(rounds, read_rows(self._folder, "worker_events")) or WITHOUT

    def _new(self, table: str, key: str) -> list[Row]:
        rows = read_rows(self._folder, table, after=self._last[table])
        if rows:
            self._last[table] = rows[-1][key]
        return rows


def watch(target: str | None, address: Address) -> None:
    """Follow a run until it is over, on a terminal.

    Args:
        target: a run directory; None: the run of the server at `address`.
        address: of the server; of a run directory only its token and files are used.

    Raises:
        RunDirectoryError: no run.
        ServerUnreachableError: no answer for some seconds.
        RunFailedError: the run failed.
    """
    reader = None if target is None else RecordReader(Path(target))
    last = reader.first if reader else View()
    try:
        with Live(screen(last), console=Console(), refresh_per_second=4) as live:
            for view in views(reader, address):
                last = view
                live.update(screen(view), refresh=True)
    except KeyboardInterrupt:
        return
    if last.state == "failed":
        raise RunFailedError(last.message or "the run failed. Its log has more.")


def is_address(target: str) -> bool:
    """Tell whether what was given is HOST:PORT rather than a directory."""
    return not Path(target).exists() and bool(re.fullmatch(r"\[?[\w.:-]+\]?:\d{1,5}", target))


def last_view(reader: RecordReader) -> View:
    """Return how a run without a server stands."""
    return replace(reader.read(reader.first), state=reader.last_state())


def describe_view(view: View) -> str:
    """Return a view as a line."""
    parts = [f"run {view.name}: {view.state}, round {view.trained}/{view.rounds}"]
    if view.loss:
        parts.append(f"loss {view.loss[-1][1]:.3f}")
    if view.validation:
        parts.append(f"validation {view.metric} {view.validation[-1][1]:.3f}")
    return "  ".join(parts)


def views(reader: RecordReader | None, address: Address) -> Iterator[View]:
    """Yield the run twice a second until it is over or nobody works on it."""
    view = reader.first if reader else View()
    server = _Server(reader, address)
    try:
        while not view.is_over:
            if reader is not None:
                view = reader.read(view)
            try:
                status = server.status()
            except ServerUnreachableError:
                if reader is None:
                    raise
                yield replace(view, state=reader.last_state(), actors=())  # its server was killed
                return
            if status is not None:
                view = _seen(view, reader, server, status)
            elif reader is not None and not server.is_known:
                yield replace(view, state=reader.last_state(), actors=())
                return
            yield view
            if not view.is_over:
                time.sleep(EVERY_S)
    finally:
        server.close()


class _Server:
    """The run's server, wherever it listens now."""

    def __init__(self, reader: RecordReader | None, address: Address) -> None:
        self._reader = reader
        self._address = address if reader is None else replace(address, target="")
        self._operator: Operator | None = None
        self._heard_at = time.monotonic()

    @property
    def is_known(self) -> bool:
        """Whether somebody said where it listens."""
        return bool(self._address.target)

    def status(self) -> Any:
        """Return the run now, or None where there is no answer yet.

        Raises:
            ServerUnreachableError: there has been none for some seconds.
        """
        if (
            self._reader is not None
            and (now := self._reader.server() or "") != self._address.target
        ):
            self.close()
            self._address = replace(self._address, target=now)
        if not self.is_known:
            return None
        if self._operator is None:
            self._operator = Operator(self._address, Retry(0.0))
        try:
            found = self._operator.status()
        except ServerUnreachableError:
            if time.monotonic() - self._heard_at > PATIENCE_S:
                raise
            return None
        self._heard_at = time.monotonic()
        return found

    def gamma(self) -> str:
        """Return γ in words; "" without several pipelines."""
        assert self._operator is not None
        try:
            state = self._operator.clustering()
        except DmamlError:
            return ""
        active = [one for one in state.pipelines if one.active]
        if len(active) < 2:
            return ""
        return _pipeline_words([p.pipeline for p in active], [p.expected_units for p in active])

    def close(self) -> None:
        """Close the connection."""
        if self._operator is not None:
            self._operator.close()
        self._operator = None


def _seen(view: View, reader: RecordReader | None, server: _Server, status: Any) -> View:
    """Return the view after a status; of a directory the curves and events are the record's."""
    now = with_status(view, status, time.time())
    if reader is None:
        return replace(now, gamma=server.gamma())
    return replace(
        now, loss=view.loss, score=view.score, validation=view.validation, events=view.events
    )


def _gamma_words(row: Row) -> str:
    state = row["state"]
    if len(state["pipelines"]) < 2:
        return ""
    return _pipeline_words(state["pipelines"], state.get("expected_units") or [])


def _pipeline_words(pipelines: Any, sizes: Any) -> str:
    parts = (f"pipeline {p}: {n:.1f} units" for p, n in zip(pipelines, sizes, strict=False))
    return ", ".join(parts)


def watch_lines(target: str | None, address: Address, json_output: bool) -> None:
    """Follow a run where there is no terminal: a line per round, or one JSON object at the end."""
    from dmaml.deploy.control import run

    if target is None:
        run("watch", address, json_output)
        return
    reader = RecordReader(Path(target))
    if server := reader.server():
        try:
            run("watch", replace(address, target=server), json_output)
            return
        except ServerUnreachableError as error:  # it was killed: what it recorded is shown
            sys.stderr.write(f"{error}\n")
    view = last_view(reader)
    if json_output:
        values = {"name": view.name, "state": view.state.upper(), "trained": view.trained}
        sys.stdout.write(json.dumps(values | {"rounds": view.rounds}) + "\n")
    else:
        sys.stderr.write(describe_view(view) + "\n")
