"""Quorum and async where they end, stop or go on otherwise: restarts, drains, voids, slow disks."""

from __future__ import annotations

from typing import Any

import pytest

from dmaml.common import config as configuration
from dmaml.common.items import ItemKind, Outcome, RunState
from dmaml.server.core.actions import Grant, Save
from tests.unit.driven_core import DrivenCore, config_of, quorum, started, windowed

TWO = {"slots": 2}


def applied(run: DrivenCore) -> list[tuple[int, int]]:
    """Return (index, slot) of every answer in a TRAIN commit."""
    trains = [c for c in run.commits if c.kind is ItemKind.TRAIN]
    return [(head.item.index, head.item.slot) for c in trains for head in c.heads]


def finish(run: DrivenCore) -> DrivenCore:
    """Let one actor do everything that is left."""
    actor = run.join("actor-z")
    while run.core.state is RunState.RUNNING:
        run.work(actor)
    return run


def half_done(**sync: Any) -> DrivenCore:
    """Return an async run of 2 slots with five items applied and the very first one open."""
    keys = {"mode": "async", "window": 3, **sync}
    run, (slow, fast) = started(2, TWO, sync=keys, run={"rounds": 9})
    run.lease(slow)
    for _ in range(5):
        run.work(fast)
    return run


def test_resume_with_another_validation_schedule_applies_nothing_twice():
    run = half_done()
    config = config_of(
        topology=TWO, run={"rounds": 9}, sync={"mode": "async", "window": 3},
        evaluation={"every": 1, "tasks": 2},
    )  # fmt: skip
    assert configuration.identity(config) == configuration.identity(run.config)

    again = finish(DrivenCore(config, run.core.remember(), epoch=2))

    done = applied(run) + applied(again)
    assert len(done) == len(set(done)) == 9 * 2


def test_run_that_was_shorter_for_a_while_applies_nothing_twice():
    run = half_done()
    done, memory = applied(run), run.core.remember()

    for epoch, rounds in ((2, 1), (3, 9)):
        config = config_of(
            topology=TWO, run={"rounds": rounds}, sync={"mode": "async", "window": 3}
        )
        again = finish(DrivenCore(config, memory, epoch=epoch))
        done, memory = done + applied(again), again.core.remember()

    assert len(done) == len(set(done)) == 9 * 2


@pytest.mark.parametrize("window", [1, 2])
def test_restart_of_a_run_that_paused_for_voids_pauses_again(window):
    run, actors = windowed(window=window)
    for actor in actors:
        run.push(run.lease(actor), is_finite=False)

    again = DrivenCore(run.config, run.core.remember(), epoch=2)

    assert again.core.state is RunState.PAUSED
    again.do("resume")
    assert finish(again).core.progress.version == 18


def test_resume_while_another_answer_is_committed_computes_the_voids_once_more():
    run, (a, b) = windowed()
    first, second = run.lease(a), run.lease(b)
    run.push(first, is_finite=False)
    other = run.lease(a)
    run.push(second, is_finite=False)
    run.is_committing = False
    run.push(other)

    run.do("resume")
    run.settle()
    run.is_committing = True

    assert finish(run).core.progress.version == 18


def test_drain_without_actors_remembers_what_is_applied():
    run, (slow, fast) = windowed()
    run.lease(slow)
    run.is_saving = False
    run.work(fast)
    run.work(fast)
    for worker in (slow, fast):
        run.do("leave", worker, 1, "")
    run.do("drain", "")
    run.tick(0.1)

    while run.unsettled:
        action = run.unsettled.pop(0)
        assert isinstance(action, Save)
        run.core.saved(run.now, action.progress)
        run._settle()

    assert run.core.state is RunState.FINISHED
    assert len(run.core.remember().applied) == 2


def test_drain_of_a_void_quorum_finishes():
    run, _, grants = quorum()
    run.now += 2.0
    for grant in grants[:3]:
        run.push(grant, is_finite=False)
    run.tick(1.0)

    run.do("drain", "")
    run.tick(0.1)

    assert run.core.state is RunState.FINISHED


def test_late_answers_that_a_drain_leaves_are_told():
    run, actors, grants = quorum(late="merge")
    for grant in grants[:3]:
        run.push(grant)
    run.tick(1.0)
    run.push(grants[4])
    for actor in actors:
        run.do("leave", actor, 1, "")

    run.do("drain", "")
    run.tick(0.1)

    assert run.core.state is RunState.FINISHED
    assert run.events("refused")[-1].outcome is Outcome.LATE


def test_max_staleness_holds_at_the_commit():
    keys = {"mode": "async", "window": 2, "max_staleness": 0}
    run, actors = started(4, {"slots": 4}, sync=keys, run={"rounds": 9})
    grants = [run.lease(actor) for actor in actors]
    run.is_committing = False

    outcomes = [run.push(grant).outcome for grant in grants]
    run.settle()

    assert outcomes == [Outcome.BUFFERED, Outcome.LATE, Outcome.LATE, Outcome.LATE]
    assert {age for commit in run.commits for age in commit.staleness} == {0}


def test_stale_item_waits_for_a_version_that_is_fresh_enough():
    run, (slow, fast) = windowed(max_staleness=1)
    old = run.lease(slow)
    run.is_saving = False
    for _ in range(2):
        run.work(fast)
    assert run.push(old).outcome is Outcome.LATE

    assert run.ask(slow, "waits") is None
    run.is_saving = True
    run.settle()

    again = run.answers[slow, "waits"]
    assert again.lease.item == old.lease.item
    assert again.lease.valid_s == old.lease.valid_s
    assert run.push(again).outcome is Outcome.BUFFERED


def test_commits_wait_for_a_disk_that_is_a_window_behind():
    keys = {"mode": "async", "window": 2}
    run, actors = started(3, {"slots": 3}, sync=keys, run={"rounds": 60})
    run.is_saving = False
    grants = {actor: run.lease(actor) for actor in actors}
    for turn in range(99):
        actor = actors[turn % 3]
        run.push(grants[actor])
        answer = run.ask(actor)
        if not isinstance(answer, Grant):
            break
        grants[actor] = answer

    assert run.core.progress.commits - run.core.durable.commits == 2 * 3
    run.is_saving = True
    run.settle()
    assert run.core.durable.commits > 2 * 3


def test_round_that_is_computed_once_more_counts_its_leases_right():
    run, _, grants = quorum()
    for grant in grants[:3]:
        run.push(grant, is_finite=False)
    run.tick(1.0)

    run.do("resume")

    current = run.core.round
    assert current.num_leased == sum(bool(entry.leases) for entry in current.items.values())


def test_item_whose_first_holder_left_is_doubled_again():
    server = {"speculation": True, "item_timeout_s": 1000.0}
    run, (a, b, c) = started(3, {"slots": 3}, run={"rounds": 9}, server=server)
    for _ in range(2):
        grants = [run.lease(actor) for actor in (a, b, c)]
        run.now += 1.0
        run.renew(a, b, c)
        for grant in grants[1:]:
            run.push(grant)
        if not run.core.progress.version:
            run.push(grants[0])
    run.ask(b, "idle")
    run.tick(0.6)
    assert isinstance(run.answers[b, "idle"], Grant)
    run.do("leave", a, 1, "")
    run.ask(c, "idle", wait_s=1000.0)

    run.pass_time(20.0, b, c)

    assert isinstance(run.answers[c, "idle"], Grant)
