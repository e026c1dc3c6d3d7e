"""Whether a node is well, from notices and a clock of the test."""

from __future__ import annotations

import pytest

from dmaml.common.notices import ENDED, FAILED, STARTING, WORKING, Notice
from dmaml.deploy.health import SILENT_S, SUPERVISOR, Health


class Clock:
    def __init__(self) -> None:
        self.now = 5.0  # soon after the machine started

    def __call__(self) -> float:
        return self.now


def worker(num_actors: int, *states: str) -> Health:
    """Return the health of a node that heard one state of each actor."""
    health = Health(num_actors)
    for index, state in enumerate(states):
        health.hear(actor(index, state))
    return health


def actor(index: int, state: str, text: str = "a text") -> Notice:
    return Notice(f"actor {index}", text, state)


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ((), "0 of 2 actors have joined the server"),
        ((STARTING, STARTING), "0 of 2 actors have joined the server"),
        ((WORKING, STARTING), "1 of 2 actors have joined the server"),
        ((WORKING, WORKING), "ok: 2 actors at work"),
        ((WORKING, ENDED), "ok: 1 actors at work"),
        ((ENDED, ENDED), "ok: 0 actors at work"),
        ((WORKING, FAILED), "actor 1: a text"),
        ((FAILED,), "actor 0: a text"),
    ],
)
def test_a_node_is_well_once_all_of_its_actors_joined(
    states: tuple[str, ...], verdict: str
) -> None:
    assert worker(2, *states).verdict() == verdict


def test_a_new_actor_takes_the_place_of_one_that_failed() -> None:
    health = worker(1, FAILED)

    health.hear(actor(0, STARTING))
    starting = health.verdict()
    health.hear(actor(0, WORKING))

    assert starting == "0 of 1 actors have joined the server"
    assert health.verdict() == "ok: 1 actors at work"


def test_actors_at_work_have_started_and_not_ended() -> None:
    assert worker(4, STARTING, WORKING, ENDED, FAILED).num_at_work == 2


def test_a_line_of_a_log_changes_nothing() -> None:
    health = worker(1, WORKING)

    health.hear(actor(0, "", "WARNING the server is away"))

    assert health.verdict() == "ok: 1 actors at work"


def test_a_supervisor_on_a_worker_is_no_actor() -> None:
    health = worker(1)

    health.hear(Notice(SUPERVISOR, "1 actors", WORKING))

    assert health.num_at_work == 0
    assert health.verdict() == "0 of 1 actors have joined the server"


def test_the_head_is_well_while_its_supervisor_speaks() -> None:
    clock = Clock()
    health = Health(None, clock)
    before = health.verdict()
    health.hear(Notice(SUPERVISOR, "3 actors", WORKING))

    clock.now += SILENT_S
    in_time = health.verdict()
    clock.now += 0.1
    too_late = health.verdict()
    health.hear(Notice(SUPERVISOR, "3 actors", WORKING))

    assert before == "the supervisor has not spoken yet, or is gone"
    assert in_time == "ok: 3 actors"
    assert too_late == before
    assert health.verdict() == in_time


def test_a_line_of_the_supervisors_log_is_no_sign_of_its_work() -> None:
    health = Health(None)

    health.hear(Notice(SUPERVISOR, "INFO actor 0 starts"))

    assert health.verdict() == "the supervisor has not spoken yet, or is gone"


@pytest.mark.parametrize("name", ["actor 0", SUPERVISOR])
def test_a_state_is_news_once_and_a_line_of_a_log_always(name: str) -> None:
    health = Health(1)

    is_news = [
        health.hear(notice)
        for notice in (
            Notice(name, "1 actors", WORKING),
            Notice(name, "1 actors", WORKING),
            Notice(name, "2 actors", WORKING),
            Notice(name, "a line"),
            Notice(name, "a line"),
        )
    ]

    assert is_news == [True, False, True, True, True]
