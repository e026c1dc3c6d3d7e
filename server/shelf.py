"""Where the gradients of a round wait for its commit: in memory, or in a mapped file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dmaml.common.config import RunConfig, most_pipelines
from dmaml.common.errors import ConfigError
from dmaml.common.items import WorkItem
from dmaml.common.layout import Flat


class Shelf:
    """One place per answer that may wait; its bytes are reserved before a lease is granted.

    Args:
        config: topology and `server.max_inflight_bytes`, `server.spool`.
        folder: where the mapped file goes; it has no name and vanishes with the process.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._map: np.memmap[tuple[int, int], np.dtype[np.float32]] | None = None
        self._flats: dict[WorkItem, Flat] = {}
        self._rows: dict[WorkItem, int] = {}
        self._free: list[int] = []

    @staticmethod
    def check(config: RunConfig, num_elements: int) -> int:
        """Return the bytes that the gradients in flight need.

        Raises:
            ConfigError: they exceed `server.max_inflight_bytes` and `server.spool` is off.
        """
        needed = num_rows(config) * num_elements * 4
        limit = config.server.max_inflight_bytes
        if needed > limit and not config.server.spool:
            raise ConfigError(
                f"the gradients in flight need {needed} bytes, server.max_inflight_bytes is "
                f"{limit}. Raise it, set server.spool, or lower topology.slots or parts, or "
                "sync.window."
            )
        return needed

    def open(self, num_elements: int) -> None:
        """Reserve the places for a model of `num_elements` float32 values; see `check`."""
        needed = self.check(self._config, num_elements)
        if needed <= self._config.server.max_inflight_bytes:
            return
        rows = num_rows(self._config)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            file.truncate(needed)
            self._map = np.memmap(file, dtype="<f4", mode="r+", shape=(rows, num_elements))
        self._free = list(range(rows))

    def put(self, item: WorkItem, flat: Flat) -> None:
        """Keep a gradient, float32 `[d]`."""
        if self._map is None:
            self._flats[item] = flat
            return
        if item not in self._rows:
            self._rows[item] = self._free.pop()
        row = self._map[self._rows[item]]
        row[:] = flat
        self._flats[item] = row

    def keep(self, item: WorkItem, flat: Flat) -> None:
        """Keep initial parameters, always in memory."""
        self._flats[item] = flat

    def get(self, item: WorkItem) -> Flat:
        """Return what was kept for an item."""
        return self._flats[item]

    def forget(self, items: Iterable[WorkItem]) -> None:
        """Give the places of answers back."""
        for item in items:
            self._flats.pop(item, None)
            row = self._rows.pop(item, None)
            if row is not None:
                self._free.append(row)


def num_rows(config: RunConfig) -> int:
    """Return the most gradients that wait at a time, as so many rounds' worth.

    Where late answers are merged: those of the round, the late ones that are committed with it, and
    those that come meanwhile.
    """
    sync = config.sync
    rounds = {"sync": 1, "quorum": 3 if sync.late == "merge" else 1, "async": sync.window}
    slots = config.topology.slots * config.topology.parts
    return slots * most_pipelines(config) * rounds[sync.mode]
