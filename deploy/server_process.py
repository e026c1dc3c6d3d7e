"""The embedded server: a process of its own that ends with its parent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import BadInputError, RunFailedError

END_OF_CONFIG: Final = "..."  # YAML's own end-of-document marker


class ServerProcess:
    """`dmaml server --embedded`: it reads the configuration from its standard input, prints its
    addresses as one line of JSON, and ends when its standard input does.
    """

    def __init__(
        self, config: RunConfig, run_dir: Path, log_file: Path, listen: str, http: str
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._log_file = log_file
        self._listen = listen
        self._http = http
        self.target = ""
        self.http = ""
        self._process = self._spawn()

    def wait_until_serving(self) -> None:
        """Return once the server answers.

        Raises:
            BadInputError: it refused its configuration, directory or addresses.
            RunFailedError: it ended before it served.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise self._failure()
        addresses = json.loads(line)
        self.target, self.http = addresses["grpc"], addresses["http"]
        self._listen, self._http = self.target, self.http

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs."""
        return self._process.poll()

    def restart(self) -> None:
        """Start it again on the same addresses; it resumes from its last checkpoint."""
        self._close_pipes()
        self._process = self._spawn()
        self.wait_until_serving()

    def check(self) -> None:
        """Raise what it ended with, unless it ended well."""
        if self._process.poll() not in (None, 0):
            raise self._failure()

    def stop(self, patience_s: float = 30.0) -> None:
        """Ask it to write a checkpoint and end; kill it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _spawn(self) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "dmaml.deploy.cli", "server", "-", "--embedded",
            "--listen", self._listen, "--http", self._http, "--run-dir", str(self._run_dir),
        ]  # fmt: skip
        with self._log_file.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is the parent's business
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        assert process.stdin is not None
        process.stdin.write(configuration.to_text(self._config) + END_OF_CONFIG + "\n")
        process.stdin.flush()
        return process

    def _failure(self) -> Exception:
        code = self._process.returncode
        lines = [line for line in self._log_file.read_text().splitlines() if line.strip()]
        last = lines[-1].removeprefix("error: ") if lines else "it said nothing"
        if code == BadInputError.exit_code:
            return BadInputError(last)
        return RunFailedError(f"the server ended with status {code}: {last} ({self._log_file})")
