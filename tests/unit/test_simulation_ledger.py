"""The ledger of a simulation: what it refuses, and that it finds a core that loses answers."""

from __future__ import annotations

from typing import Any

import pytest

from dmaml.common.errors import RunFailedError
from dmaml.common.items import ItemKind, WorkItem
from dmaml.server.core.actions import Commit
from dmaml.server.core.rounds import Core
from dmaml.server.simulation import world
from dmaml.server.simulation.ledger import Ledger
from tests.unit.simulated_world import config_of, run


def item(index: int = 0, slot: int = 0) -> WorkItem:
    return WorkItem(index + 1, ItemKind.TRAIN, 0, slot, 0, index, index)


def ledger(rounds: int = 2, slots: int = 2) -> Ledger:
    return Ledger(config_of("sync", slots, rounds))


def test_ledger_refuses_a_second_acknowledgement_but_for_its_repetition():
    book = ledger()
    book.take(item(), last=None)

    book.take(item(), last=item())

    with pytest.raises(RunFailedError, match="two answers to TRAIN round 1"):
        book.take(item(), last=item(slot=1))


def test_ledger_refuses_what_was_never_taken_and_what_was_applied_before():
    book = ledger()
    book.take(item(), last=None)
    book.apply([item()])

    with pytest.raises(RunFailedError, match="applied twice"):
        book.apply([item()])
    with pytest.raises(RunFailedError, match="without an answer"):
        book.apply([item(slot=1)])


def test_ledger_refuses_a_gap_between_versions():
    book = ledger()
    book.publish(1)

    with pytest.raises(RunFailedError, match="version 3 follows version 1"):
        book.publish(3)


def test_ledger_misses_items_at_the_end():
    book = ledger(rounds=1)
    book.take(item(), last=None)

    with pytest.raises(RunFailedError, match="1 acknowledged answers were never applied"):
        book.close(must_be_whole=True)
    book.apply([item()])
    with pytest.raises(RunFailedError, match="1 of 2 items"):
        book.close(must_be_whole=True)
    assert book.close(must_be_whole=False) == 1


class Forgetful(Core):
    """A core that loses an answer of every commit."""

    def take_actions(self) -> list[Any]:
        actions = super().take_actions()
        for action in actions:
            if isinstance(action, Commit) and action.kind is ItemKind.TRAIN:
                object.__setattr__(action, "heads", action.heads[1:])
                object.__setattr__(action, "staleness", action.staleness[1:])
        return actions


def test_a_core_that_loses_answers_is_found_out(monkeypatch):
    monkeypatch.setattr(world, "Core", Forgetful)

    with pytest.raises(RunFailedError, match="acknowledged answers were never applied"):
        run()
