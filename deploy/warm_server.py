"""The servers of a sweep's lane: one process, one run after another."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import BadInputError, DmamlError, RunFailedError

COMMAND: Final = (sys.executable, "-m", "dmaml.deploy.warm_serve")
START_S: Final = 180.0
LOOK_EVERY_S: Final = 0.2
_ENDED: Final[dict[str, Any]] = {}  # what a process that is no more says


@final
class WarmServer:
    """A server process that stays for the next run; what `ServerProcess` is for a single one.

    Args:
        log_file: for what the process says outside of any run.
        is_stopped: asked often while a run is begun; once it is true, that ends by
            KeyboardInterrupt.
        start_s: a process that does not serve within so long is ended, seconds.
    """

    def __init__(
        self,
        log_file: Path,
        is_stopped: Callable[[], bool] = lambda: False,
        start_s: float = START_S,
    ) -> None:
        self._log_file = log_file
        self._is_stopped = is_stopped
        self._start_s = start_s
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._order: dict[str, str] = {}
        self._end: dict[str, Any] | None = None
        self.target = ""
        self.http = ""

    def begin(self, config: RunConfig, run_dir: Path, log_file: Path) -> None:
        """Serve a run; return once the server answers.

        Raises:
            BadInputError: it refused the configuration or the directory.
            RunFailedError: it ended before it served, or did not serve within `start_s`.
            KeyboardInterrupt: the sweep is to stop.
        """
        self._order = {
            "run_dir": str(run_dir),
            "config": configuration.to_text(config),
            "log": str(log_file),
        }
        self._give_order()

    def poll(self) -> int | None:
        """Return how the run ended, negative for a signal, or None while it goes on."""
        if self._end is None:
            with contextlib.suppress(queue.Empty):
                self._end = self._answers.get_nowait()
        if self._end is None:
            return None
        if self._end is _ENDED:
            assert self._process is not None
            return self._process.wait()
        return int(self._end.get("exit_code", self._end.get("state") == "FAILED"))

    def check(self) -> None:
        """Raise what the run ended with, unless it ended well."""
        if self.poll() not in (None, 0):
            raise self._failure()

    def restart(self) -> None:
        """Serve the same run again, from its last checkpoint, in a new process."""
        self.stop()
        self._give_order()

    def stop(self, patience_s: float = 30.0) -> None:
        """Ask the process to write a checkpoint and end; kill it when it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()

    def _give_order(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = self._spawn()
        self._end = None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone: there will be no answer
            self._process.stdin.write(json.dumps(self._order) + "\n")
            self._process.stdin.flush()
        answer = self._first_answer()
        if "grpc" not in answer:
            self._end = answer
            raise self._failure()
        self.target, self.http = answer["grpc"], answer["http"]

    def _first_answer(self) -> dict[str, Any]:
        # counts looks and not seconds: while this process is suspended, so may be the other
        for _ in range(max(1, round(self._start_s / LOOK_EVERY_S))):
            if self._is_stopped():
                raise KeyboardInterrupt
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=LOOK_EVERY_S)
        self.stop(patience_s=1.0)
        raise RunFailedError(
            f"the server did not serve within {self._start_s:g} s and was ended "
            f"({self._log_file}, {self._order['log']}). Is the machine overloaded or its disk "
            "slow? The same command goes on."
        )

    def _spawn(self) -> subprocess.Popen[str]:
        with self._log_file.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is the parent's business
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        self._answers = queue.Queue()
        arguments = (process, self._answers)
        threading.Thread(target=_listen, args=arguments, name="server", daemon=True).start()
        return process

    def _failure(self) -> DmamlError:
        end = self._end or _ENDED
        if "error" in end:
            is_bad_input = end["exit_code"] == BadInputError.exit_code
            return (BadInputError if is_bad_input else RunFailedError)(end["error"])
        if "message" in end:
            return RunFailedError(end["message"])
        lines = [line for line in self._log_file.read_text().splitlines() if line.strip()]
        return RunFailedError(
            f"the server's process ended: {lines[-1] if lines else 'it said nothing'} "
            f"({self._log_file})"
        )


def _listen(process: subprocess.Popen[str], answers: queue.Queue[dict[str, Any]]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            answers.put(json.loads(line))
    process.wait()
    answers.put(_ENDED)
