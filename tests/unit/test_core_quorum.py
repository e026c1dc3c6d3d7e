"""Rounds that close without their last answers, and what becomes of late ones."""

from __future__ import annotations

import pytest

from dmaml.common.items import ItemKind, Outcome, RunState
from dmaml.server.core.actions import Grant
from tests.unit.driven_core import DrivenCore, config_of, quorum, started


def test_quorum_closes_the_round_after_a_grace_of_a_quarter_of_its_time():
    run, _, grants = quorum()
    run.now += 2.0
    for grant in grants[:3]:
        run.push(grant)
    assert len(run.commits) == 1  # INIT
    assert run.wakes == [run.now + 0.5]

    run.tick(0.49)
    assert len(run.commits) == 1
    run.tick(0.01)

    assert [head.item.slot for head in run.commits[-1].heads] == [0, 1, 2]
    assert run.core.progress.version == 1


def test_grace_is_at_most_grace_s():
    run, _, grants = quorum(grace_s=0.1)
    run.now += 2.0
    for grant in grants[:3]:
        run.push(grant)

    assert run.wakes == [run.now + 0.1]


def test_who_answers_within_the_grace_counts():
    run, _, grants = quorum()
    run.now += 2.0
    for grant in grants[:3]:
        run.push(grant)
    run.tick(0.4)

    run.push(grants[4])
    run.tick(0.1)

    assert [head.item.slot for head in run.commits[-1].heads] == [0, 1, 2, 4]


def test_quorum_closes_at_once_where_nobody_has_another_item():
    run, _, grants = quorum(num_actors=3)

    for grant in grants:
        run.push(grant)

    assert [head.item.slot for head in run.commits[-1].heads] == [0, 1, 2]


def test_items_that_are_left_out_are_handed_out_no_more():
    run, actors, grants = quorum(num_actors=4)
    run.now += 2.0
    for grant in grants[:3]:
        run.push(grant)

    assert run.ask(actors[0], "next") is None
    run.tick(0.5)

    assert run.answers[actors[0], "next"].lease.item.index == 1


def test_slots_take_turns_at_being_the_last():
    run, actors, _ = quorum(num_actors=1)
    first = []
    for _ in range(4):
        first.append([run.core.round.index, None])
        while run.core.round.index == first[-1][0]:
            grant = run.answers.get((actors[0], "kept")) or run.lease(actors[0])
            first[-1][1] = grant.lease.item.slot if first[-1][1] is None else first[-1][1]
            run.push(grant)

    assert [slot for _, slot in first[1:]] == [1, 2, 3]


def test_late_answer_is_refused_counted_and_refused_again():
    run, _, grants = quorum()
    for grant in grants[:3]:
        run.push(grant)
    run.tick(1.0)

    verdicts = [run.push(grants[4]) for _ in range(2)]

    assert [v.outcome for v in verdicts] == [Outcome.LATE] * 2
    assert "sync.late: merge" in verdicts[0].message
    assert run.events("refused")[0].outcome is Outcome.LATE
    assert run.core.progress.version == 1


def test_late_answer_is_merged_into_the_next_commit_with_its_staleness():
    run, actors, grants = quorum(late="merge")
    for grant in grants[:3]:
        run.push(grant)
    run.tick(1.0)

    assert run.push(grants[4]).outcome is Outcome.BUFFERED
    for actor in actors[:3]:
        run.work(actor)
    run.tick(1.0)

    commit = run.commits[-1]
    assert [(h.item.index, h.item.slot) for h in commit.heads] == [(1, 1), (1, 2), (1, 3), (0, 4)]
    assert commit.staleness == (0, 0, 0, 1)
    assert run.push(grants[4]).outcome is Outcome.BUFFERED  # not known to be durable


def test_answers_of_a_commit_are_in_slot_order_and_of_a_slot_the_older_round_is_first():
    run, actors, grants = quorum(late="merge")
    for slot in (0, 3, 4):
        run.push(grants[slot])
    run.tick(1.0)
    for slot in (2, 1):
        run.push(grants[slot])
    for actor in actors[:3]:
        run.work(actor)
    run.tick(1.0)

    commit = run.commits[-1]
    assert [(h.item.slot, h.item.index) for h in commit.heads] == [
        (1, 0), (1, 1), (2, 0), (2, 1), (3, 1),
    ]  # fmt: skip
    assert commit.staleness == (1, 0, 1, 0, 0)


def test_late_answer_beyond_max_staleness_is_refused():
    run, actors, grants = quorum(late="merge", max_staleness=1)
    for grant in grants[:3]:
        run.push(grant)
    run.tick(1.0)
    for actor in actors[:3]:
        run.work(actor)
    run.tick(1.0)

    verdict = run.push(grants[4])

    assert verdict.outcome is Outcome.LATE
    assert "2 versions old, sync.max_staleness is 1" in verdict.message


def lapsed(late: str) -> tuple[DrivenCore, list[str], Grant]:
    """Return a run whose first round was closed without slot 0, whose lease had ended before."""
    keys = {"mode": "quorum", "quorum": 3, "late": late}
    run, actors = started(5, sync=keys, run={"rounds": 12})
    slow = run.lease(actors[4])
    run.pass_time(15.0, *actors)
    grants = [run.lease(actor) for actor in actors[:4]]
    run.pass_time(6.0, *actors)
    for grant in grants:
        run.push(grant)
    assert run.core.progress.version == 1
    assert slow.lease.item not in {head.item for head in run.commits[-1].heads}
    return run, actors, slow


@pytest.mark.parametrize("late", ["refuse", "merge"])
def test_answer_whose_lease_ended_before_its_round_closed_without_it_is_late(late):
    run, actors, slow = lapsed(late)

    verdicts = [run.push(slow) for _ in range(2)]
    for actor in actors[:4]:
        run.work(actor)

    assert [v.outcome for v in verdicts] == [Outcome.LATE] * 2
    assert {note.outcome for note in run.events("refused")} == {Outcome.LATE}
    assert slow.lease.item not in {head.item for c in run.commits for head in c.heads}


def test_lease_that_expires_says_whether_its_item_goes_to_another_actor():
    run, actors, _ = lapsed("refuse")
    late = run.lease(actors[4])
    for actor in actors[:3]:
        run.work(actor)
    run.tick(1.0)
    run.pass_time(21.0, *actors)

    first, second = run.events("lease_expired")

    assert "the item goes to another actor" in first.message
    assert str(late.lease.item) in second.message
    assert "its round does without it" in second.message


def test_late_answer_of_an_actor_that_was_lost_is_late():
    run, actors, grants = quorum()
    run.pass_time(11.0, *actors[:4])  # item 4 waits again
    for grant in grants[:4]:
        run.push(grant)

    assert run.push(grants[4]).outcome is Outcome.LATE


def test_items_left_out_are_remembered_for_as_many_as_there_may_be_actors():
    run, actors, slow = lapsed("refuse")
    run.do("leave", actors[4], 1, "")
    for number in range(run.config.server.max_workers):
        assert run.push(slow).outcome is Outcome.LATE
        lost = run.lease(run.join(f"lost-{number}"))
        for actor in actors[:3]:
            run.work(actor)
        run.do("leave", lost.lease.worker_id, 1, "")

    assert run.push(slow).outcome is Outcome.DUPLICATE
    assert run.push(lost).outcome is Outcome.LATE


def test_late_answer_after_the_end_is_no_duplicate():
    run, actors, slow = lapsed("refuse")
    run.do("drain", "")
    for actor in actors[:4]:
        run.do("leave", actor, 1, "")
    run.do("leave", actors[4], 1, "")
    run.tick(0.1)

    assert run.core.state is RunState.FINISHED
    assert run.push(slow).outcome is Outcome.PAUSED


def test_late_void_counts_nothing():
    run, actors, grants = quorum(late="merge")
    for grant in grants[:3]:
        run.push(grant)
    run.tick(1.0)

    assert run.push(grants[4], is_finite=False).outcome is Outcome.NON_FINITE
    for actor in actors[:3]:
        run.work(actor)
    run.tick(1.0)

    assert run.commits[-1].voids == {grants[4].lease.item}
    assert run.core.progress.version == 2


def test_late_answers_after_the_last_round_are_told():
    config = config_of(
        topology={"slots": 5},
        run={"rounds": 1},
        sync={"mode": "quorum", "quorum": 3, "late": "merge"},
    )
    run = DrivenCore(config, is_saving=False)
    actors = [run.join(f"actor-{n}") for n in range(5)]
    run.push(run.lease(actors[0]))
    run.settle()
    grants = [run.lease(actor) for actor in actors]
    for grant in grants[:3]:
        run.push(grant)
    run.tick(1.0)
    run.push(grants[4])

    run.settle()

    assert run.core.state is RunState.FINISHED
    assert "after the last round" in run.events("refused")[-1].message


def test_validation_needs_every_item():
    keys = {"mode": "quorum", "quorum": 3}
    run, actors = started(5, sync=keys, evaluation={"every": 1, "tasks": 5})
    for actor in actors[:3]:
        run.work(actor)
    assert run.core.round.kind is ItemKind.EVALUATE
    grants = [run.lease(actor) for actor in actors]

    for grant in grants[:4]:
        run.push(grant)
    run.tick(5.0)
    assert run.core.round.kind is ItemKind.EVALUATE
    run.push(grants[4])

    assert run.core.round.kind is ItemKind.TRAIN


def test_next_round_of_a_quorum_begins_only_when_this_one_is_durable():
    run, _, grants = quorum(num_actors=3)
    run.is_saving = False

    for grant in grants:
        run.push(grant)
    assert run.core.round is None
    run.settle()

    assert run.core.round.index == 1


def test_quorum_of_voids_pauses_the_run_and_is_computed_once_more():
    run, actors, grants = quorum()
    run.now += 2.0
    for grant in grants[:3]:
        run.push(grant, is_finite=False)
    assert run.core.state is RunState.RUNNING
    run.tick(1.0)
    assert run.core.state is RunState.PAUSED

    run.do("resume")
    for actor in actors[:3]:
        run.work(actor)
    run.tick(1.0)

    assert run.core.state is RunState.RUNNING
    assert run.core.progress.version == 1


def test_actor_that_computes_what_nobody_needs_any_more_is_not_given_the_next_item():
    run, actors, grants = quorum()
    slow = actors[4]
    run.ask(slow, "ahead of time")
    for actor in actors[:4]:
        run.ask(actor, "next")
    for grant in grants[:3]:
        run.push(grant)
    run.tick(1.0)

    assert (slow, "ahead of time") not in run.answers
    run.push(grants[4])

    assert run.answers[slow, "ahead of time"].lease.item.index == 1
