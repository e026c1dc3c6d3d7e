"""Commits of single answers within a window of rounds."""

from __future__ import annotations

from dmaml.common.items import ItemKind, Outcome, RunState
from dmaml.server.core.actions import Grant
from tests.unit.driven_core import DrivenCore, started, windowed


def test_every_answer_is_a_commit_in_async_mode():
    run, (a, b) = windowed()
    first, second = run.lease(a), run.lease(b)

    run.push(second)
    run.push(first)

    trains = run.commits[1:]
    assert [[head.item.slot for head in c.heads] for c in trains] == [[1], [0]]
    assert [(c.version, c.staleness) for c in trains] == [(0, (0,)), (1, (1,))]
    assert (run.core.progress.version, run.core.progress.trained) == (2, 1)


def test_window_bounds_the_rounds_in_flight():
    run, (slow, fast) = windowed()
    first = run.lease(slow)
    for _ in range(3):
        run.work(fast)

    assert run.ask(fast, "beyond the window") is None
    run.push(first)

    assert run.answers[fast, "beyond the window"].lease.item.index == 2


def test_actor_gets_its_next_item_only_after_its_answer():
    run, (a, _) = windowed()
    grant = run.lease(a)
    assert run.ask(a, "next") is None

    run.push(grant)

    assert isinstance(run.answers[a, "next"], Grant)


def test_unpublished_version_is_given_to_nobody():
    run, (a, b) = windowed()
    run.is_saving = False

    run.work(a)
    before = run.lease(b).lease
    run.settle()
    after = run.lease(a).lease

    assert (before.item.base_version, after.item.base_version) == (0, 1)
    assert before.base_digest != after.base_digest


def test_checkpoints_do_not_hold_up_commits():
    run, (a, _) = windowed()
    run.is_saving = False

    for _ in range(4):
        run.work(a)

    assert run.core.progress.version == 4
    assert len(run.unsettled) == 1
    run.settle()
    assert run.core.durable.version == 4


def test_too_stale_answer_is_refused_and_its_item_handed_out_again():
    run, (slow, fast) = windowed(max_staleness=1)
    old = run.lease(slow)
    for _ in range(2):
        run.work(fast)

    verdict = run.push(old)
    again = run.lease(slow)

    assert verdict.outcome is Outcome.LATE
    assert "2 versions old, sync.max_staleness is 1. It is handed out again." in verdict.message
    assert again.lease.item == old.lease.item
    assert again.lease.item.base_version == 2
    assert run.push(again).outcome is Outcome.BUFFERED


def test_batch_of_answers_is_one_commit_and_the_rest_is_flushed_at_the_end():
    run, (a,) = windowed(num_actors=1, async_batch=3)
    for _ in range(18):
        run.work(a)

    sizes = [len(c.heads) for c in run.commits[1:]]

    assert run.core.state is RunState.FINISHED
    assert sum(sizes) == 18
    assert max(sizes) == 3


def test_batch_of_two_rounds_is_in_slot_order():
    run, (slow, fast) = windowed(async_batch=3)
    run.work(fast)
    last = run.lease(slow)
    run.work(fast)
    run.push(last)

    found = [(head.item.slot, head.item.index) for head in run.commits[-1].heads]
    assert found == [(0, 0), (0, 1), (1, 0)]


def test_validation_drains_the_window():
    run, (a, b) = started(
        2, {"slots": 2}, sync={"mode": "async", "window": 3}, run={"rounds": 4},
        evaluation={"every": 2, "tasks": 2},
    )  # fmt: skip
    slow = run.lease(a)
    for _ in range(3):
        run.work(b)
    assert run.ask(b, "waits") is None

    run.push(slow)

    grant = run.answers[b, "waits"]
    assert grant.lease.item.kind is ItemKind.EVALUATE
    assert grant.lease.item.base_version == 4


def test_void_answer_moves_no_version_and_closes_its_item():
    run, (a, b) = windowed()
    bad = run.lease(a)

    run.push(bad, is_finite=False)
    run.work(b)

    assert run.commits[1].voids == {bad.lease.item}
    assert (run.core.progress.version, run.core.progress.trained) == (1, 1)


def test_async_round_of_voids_pauses_the_run_and_is_computed_once_more():
    run, (a, b) = windowed()
    for actor in (a, b):
        run.push(run.lease(actor), is_finite=False)
    assert run.core.state is RunState.PAUSED
    assert "round 1" in run.core.message

    run.do("resume")
    for actor in (a, b, a, b):
        run.work(actor)

    done = [(head.item.index, head.item.slot) for c in run.commits[3:] for head in c.heads]
    assert sorted(done) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert run.core.progress.version == 4


def test_restart_goes_on_with_the_items_that_are_not_applied():
    run, (a, b) = windowed()
    for _ in range(2):
        run.work(a)
    held = run.lease(b)
    run.work(a)

    again = DrivenCore(run.config, run.core.remember(), epoch=2)
    c = again.join("actor-c")
    done = []
    while again.core.state is RunState.RUNNING:
        grant = again.lease(c)
        done.append((grant.lease.item.index, grant.lease.item.slot))
        again.push(grant)

    assert done[0] == (held.lease.item.index, held.lease.item.slot)
    assert len(done) == len(set(done)) == 18 - 3
