"""The Ray actor: lifecycle only."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import torch

from dmaml.worker.answers import Answerer
from dmaml.worker.client import Client
from dmaml.worker.connection import Address, Retry
from dmaml.worker.loop import Loop


class MetaWorker:
    """Works on one server's run; made into a Ray actor by `deploy`.

    `run` blocks until the run is done, so the actor needs a second concurrency slot for `stop`.
    """

    def __init__(
        self, address: Address, orphan_s: float, data_dir: Path | None, log_file: Path | None
    ) -> None:
        self._address = address
        self._orphan_s = orphan_s
        self._data_dir = data_dir
        self._stopped = threading.Event()
        if log_file is not None:
            handler = logging.FileHandler(log_file)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logger = logging.getLogger("dmaml")
            logger.handlers = [handler]
            logger.setLevel(logging.INFO)

    def run(self) -> int:
        """Work until the run is done and return the number of answers that were taken."""
        client = Client(self._address, Retry(self._orphan_s))
        try:
            config = client.config()
            torch.set_num_threads(config.run.threads)
            return Loop(
                config, client, Answerer(config, self._data_dir), self._stopped.is_set
            ).run()
        finally:
            client.close()

    def stop(self) -> None:
        """Ask the loop to leave after the item in hand."""
        self._stopped.set()
