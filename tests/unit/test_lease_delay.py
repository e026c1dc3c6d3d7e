"""When an item could be had, for the delay that a lease's answer shows: the core's own dates."""

from __future__ import annotations

import pytest

from dmaml.common.items import ItemKind
from dmaml.server.core.actions import Grant
from tests.unit.driven_core import DrivenCore, config_of


def granted(run: DrivenCore, worker_id: str, request_id: str) -> Grant:
    """Return the grant that a waiting call was answered with."""
    answer = run.answers[worker_id, request_id]
    assert isinstance(answer, Grant)
    return answer


def both_busy() -> tuple[DrivenCore, str, str, list[Grant]]:
    """Return a TRAIN round of two items whose two actors wait for their next ones."""
    run = DrivenCore()
    a = run.initialise()
    b = run.join("actor-b")
    grants = [run.lease(a), run.lease(b)]
    assert run.ask(a, "a-next") is None
    assert run.ask(b, "b-next") is None
    return run, a, b, grants


def test_an_item_that_was_pending_is_available_from_the_call_on():
    run = DrivenCore()
    a = run.initialise()

    run.now += 7.0

    assert run.lease(a).available_at == run.now


def test_the_first_item_of_all_is_available_from_the_first_call_on():
    run = DrivenCore()
    a = run.join()

    run.now += 2.0

    grant = run.lease(a)
    assert grant.lease.item.kind is ItemKind.INIT
    assert grant.available_at == run.now


def test_items_of_a_new_round_are_available_from_the_commit_on():
    run, a, b, grants = both_busy()
    run.is_committing = False
    for grant in grants:
        run.now += 3.0
        run.push(grant)
    asked_at = run.now

    run.now += 5.0
    run.settle()

    for worker, request in ((a, "a-next"), (b, "b-next")):
        assert granted(run, worker, request).available_at == run.now == asked_at + 5.0


def test_an_item_of_an_actor_that_left_is_available_from_then_on():
    run, a, b, _ = both_busy()

    run.now += 4.0
    run.do("leave", b, run.core.epoch, "gone")

    assert granted(run, a, "a-next").available_at == run.now


def test_an_item_whose_lease_expired_is_available_from_the_tick_on_that_noticed_it():
    run, a, b, grants = both_busy()
    run.push(grants[0])

    run.pass_time(20.5, a, b)

    assert len(run.events("lease_expired")) == 1
    grant = granted(run, a, "a-next")
    assert grant.lease.item == grants[1].lease.item
    assert grant.available_at == run.now


def test_a_pause_is_no_delay():
    run = DrivenCore()
    a = run.initialise()
    run.do("pause", "lunch")
    assert run.ask(a, "a-waits") is None

    run.now += 3600.0
    run.renew(a)
    run.do("resume")

    assert granted(run, a, "a-waits").available_at == run.now


def test_an_item_that_was_kept_for_another_actor_is_available_once_it_is_not():
    run = DrivenCore(config_of(topology={"slots": 3}))
    a = run.initialise()
    b, c = run.join("actor-b"), run.join("actor-c")
    mine = run.lease(a)
    run.lease(b)
    assert run.ask(a, "a-next") is None  # the third item is pending, for c has none yet

    run.now += 6.0
    run.push(mine)

    assert granted(run, a, "a-next").available_at == run.now
    assert run.ask(c) is None


def test_a_round_of_voids_is_available_again_from_the_resumption_on():
    run = DrivenCore()
    a = run.initialise()
    for _ in range(2):
        run.push(run.lease(a), is_finite=False)
    assert run.ask(a, "a-waits") is None

    run.now += 60.0
    run.renew(a)
    run.do("resume")

    assert granted(run, a, "a-waits").available_at == run.now


@pytest.mark.parametrize("late_s", [0.0, 2.5])
def test_a_core_that_serves_late_shows_it(late_s: float, monkeypatch: pytest.MonkeyPatch):
    run, a, _, grants = both_busy()
    run.is_committing = False
    for grant in grants:
        run.push(grant)
    serve = run.core._serve
    monkeypatch.setattr(run.core, "_serve", lambda now: None)
    run.settle()
    opened_at = run.now

    run.now += late_s
    serve(run.now)
    run.tick()

    assert granted(run, a, "a-next").available_at == opened_at


# -- the round's own dates -------------------------------------------------------------------------


def test_a_commit_knows_when_its_first_and_its_last_answer_came():
    run, _, _, grants = both_busy()
    run.is_committing = False
    opened_at = run.now
    run.now += 3.0
    run.push(grants[1])
    run.now += 4.0
    run.push(grants[0])

    found = run.commits[-1]

    times = (found.opened_at, found.first_answer_at, found.last_answer_at)
    assert times == (opened_at, opened_at + 3.0, opened_at + 7.0)


def test_answers_of_a_round_that_was_computed_once_more_are_dated_anew():
    run = DrivenCore()
    a = run.initialise()
    for _ in range(2):
        run.push(run.lease(a), is_finite=False)
    run.now += 60.0
    run.do("resume")
    for _ in range(2):
        run.now += 1.0
        run.push(run.lease(a))

    found = run.commits[1]

    assert (found.first_answer_at, found.last_answer_at) == (run.now - 1.0, run.now)


# -- what actors do --------------------------------------------------------------------------------


def test_an_actor_computes_waits_or_is_silent():
    run = DrivenCore()
    a = run.initialise()
    b = run.join("actor-b")
    run.join("actor-c")
    run.lease(a)

    assert run.core.members.census(run.now) == {"computing": 1, "waiting": 2, "silent": 0}
    run.now += 5.0
    assert run.core.members.census(run.now) == {"computing": 1, "waiting": 2, "silent": 0}
    run.now += 0.5
    run.renew(b)
    assert run.core.members.census(run.now) == {"computing": 0, "waiting": 1, "silent": 2}
    run.tick(6.0)
    assert run.core.members.census(run.now) == {"computing": 0, "waiting": 0, "silent": 1}
