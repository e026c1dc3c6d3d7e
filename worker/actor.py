"""The Ray actor: lifecycle only."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from dmaml.common.errors import DmamlError, RunFailedError, ServerUnreachableError
from dmaml.common.notices import ENDED, FAILED, LEAVE_VARIABLE, STARTING, WORKING, Notifier
from dmaml.worker.connection import Address, Retry

log = logging.getLogger("dmaml.worker")


@dataclass(frozen=True)
class End:
    """How an actor's work ended.

    Attributes:
        num_answers: answers that the server took.
        is_done: the run is over; otherwise the actor was asked to leave, or failed.
        error: what it failed with, or None.
    """

    num_answers: int = 0
    is_done: bool = False
    error: DmamlError | None = None


class MetaWorker:
    """Works on one server's run, from its making on; made into a Ray actor by `deploy`.

    The work has a thread of its own, so that whoever supervises may come and go: `wait` is a long
    poll. An actor whose end nobody asks for within `orphan_s` ends its process by itself.

    Args:
        address: the meta-model server.
        orphan_s: give up after so long without the server, seconds.
        data_dir: where data files are looked for first.
        log_file: for the log, or None.
        name: on its node, for people.
    """

    def __init__(
        self,
        address: Address,
        orphan_s: float,
        data_dir: Path | None,
        log_file: Path | None,
        name: str = "actor",
    ) -> None:
        self._address = address
        self._orphan_s = orphan_s
        self._data_dir = data_dir
        self._stopped = threading.Event()
        self._over = threading.Event()
        self._heard = threading.Event()
        self._end = End()
        self._leave_file = os.environ.get(LEAVE_VARIABLE, "")
        self._notifier = Notifier(name)
        self._state = ("starts", STARTING)
        _log_to(self._notifier, log_file)
        threading.Thread(target=self._live, name="work", daemon=True).start()

    def wait(self, timeout_s: float) -> End | None:
        """Return how the work ended, or None when it did not within `timeout_s`."""
        if not self._over.wait(timeout_s):
            self._notifier.tell(*self._state)  # again: a node that was busy may have missed it
            return None
        self._heard.set()
        return self._end

    def stop(self) -> None:
        """Ask the loop to leave after the item in hand."""
        self._stopped.set()

    def _live(self) -> None:
        self._enter(*self._state)
        self._end, words = self._outcome()
        self._enter(words, ENDED if self._end.error is None else FAILED)
        self._over.set()
        if not self._heard.wait(self._orphan_s):
            os._exit(0)  # nobody supervises: only the process is left to end

    def _outcome(self) -> tuple[End, str]:
        """Work; return how that ended, and the same in words."""
        try:
            end = self._work()
        except DmamlError as error:
            if isinstance(error, ServerUnreachableError) and self._is_leaving():
                return End(), "left without the server"
            return End(error=error), str(error)
        except BaseException as error:
            log.exception("an actor failed")
            sentence = f"an actor failed with {type(error).__name__}: {error}"
            return End(error=RunFailedError(sentence)), sentence
        return end, "the run is done" if end.is_done else "left"

    def _work(self) -> End:
        # imported here: a supervisor names this class and needs no torch
        import torch

        from dmaml.worker.answers import Answerer
        from dmaml.worker.client import Client
        from dmaml.worker.loop import Loop

        client = Client(self._address, Retry(self._orphan_s, is_leaving=self._is_leaving))
        try:
            config = client.config()
            torch.set_num_threads(config.run.threads)
            answerer = Answerer(config, self._data_dir)
            loop = Loop(config, client, answerer, self._is_leaving, self._joined)
            num_answers = loop.run()
            return End(num_answers, loop.is_done)
        finally:
            client.close()

    def _joined(self, worker_id: str) -> None:
        self._enter(f"joined as worker {worker_id}", WORKING)

    def _enter(self, text: str, state: str) -> None:
        self._state = (text, state)
        self._notifier.tell(text, state)

    def _is_leaving(self) -> bool:
        return self._stopped.is_set() or bool(self._leave_file and os.path.exists(self._leave_file))


def _log_to(notifier: Notifier, log_file: Path | None) -> None:
    logger = logging.getLogger("dmaml")
    logger.handlers = [notifier.handler()]
    if log_file is not None:
        handler = logging.FileHandler(log_file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.handlers.append(handler)
    logger.setLevel(logging.INFO)
