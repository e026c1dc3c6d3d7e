"""The seconds of training in a run's record: what counts, and what does not."""

from __future__ import annotations

import pytest

from dmaml.common.rundir import Row, training_seconds


def rounds(*spans: tuple[float, float]) -> list[Row]:
    """Return TRAIN rounds from (opening, commit)."""
    return [{"duration_s": end - begin, "at": end} for begin, end in spans]


def events(*found: tuple[float, str, int]) -> list[Row]:
    """Return worker events from (time, event, epoch)."""
    return [{"at": at, "event": event, "epoch": epoch} for at, event, epoch in found]


def test_a_run_without_a_round_has_none():
    assert training_seconds([], events((3, "paused", 1), (5, "resumed", 1))) == 0.0


def test_rounds_that_overlap_count_once_and_what_is_between_them_does_not():
    # rounds of a window, a validation, a restart
    assert training_seconds(rounds((0, 4), (1, 6), (2, 3), (10, 12), (100, 103)), []) == 6 + 2 + 3


@pytest.mark.parametrize(
    ("pauses", "expected"),
    [
        (((12, "paused", 1), (17, "resumed", 1)), 15),  # within a round
        (((12, "paused", 1), (13, "paused", 1), (17, "resumed", 1)), 15),  # the second changes none
        (((5, "paused", 1), (15, "resumed", 1)), 10),  # over two
        (((12, "paused", 1), (17, "draining", 1)), 15),  # its rounds go on
        (((2, "paused", 1), (3, "resumed", 1), (12, "paused", 1), (13, "resumed", 1)), 18),
        (((12, "joined", 1), (17, "resumed", 1)), 20),
        (((12, "paused", 1), (17, "resumed", 2)), 20),  # the server ended in the pause
        (((30, "paused", 1), (40, "resumed", 1)), 20),  # after the last round
    ],
)
def test_a_pause_does_not_count(pauses, expected):
    assert training_seconds(rounds((0, 10), (10, 20)), events(*pauses)) == expected


def test_what_is_later_than_a_moment_does_not_count():
    found = [training_seconds(rounds((0, 4), (1, 6), (8, 9)), [], until=t) for t in (0, 3, 5, 8.5)]

    assert found == [0, 3, 5, 6.5]
