"""Quorum, async and speculation: events in a chosen order, what became of them."""

from __future__ import annotations

from typing import Any

import pytest

from dmaml.common.errors import ConfigError
from dmaml.common.items import ItemKind, Outcome, RunState
from dmaml.server.core.actions import Grant
from tests.unit.driven_core import DrivenCore, config_of

FIVE = {"slots": 5}


def started(
    num_actors: int, topology: dict[str, int] | None = None, **sections: Any
) -> tuple[DrivenCore, list[str]]:
    """Return a run after INIT and its actors."""
    run = DrivenCore(config_of(topology=topology or FIVE, **sections))
    actors = [run.initialise("actor-0")]
    return run, actors + [run.join(f"actor-{n}") for n in range(1, num_actors)]


def quorum(num_actors: int = 5, **sync: Any) -> tuple[DrivenCore, list[str], list[Grant]]:
    """Return a run of 5 slots, 3 of which suffice, whose actors have an item each."""
    keys = {"mode": "quorum", "quorum": 3, **sync}
    run, actors = started(num_actors, sync=keys, run={"rounds": 9})
    return run, actors, [run.lease(actor) for actor in actors]


def windowed(num_actors: int = 2, **sync: Any) -> tuple[DrivenCore, list[str]]:
    """Return an async run of 2 slots and a window of 2 rounds."""
    keys = {"mode": "async", "window": 2, **sync}
    return started(num_actors, {"slots": 2}, sync=keys, run={"rounds": 9})


def busy(run: DrivenCore, actor: str) -> bool:
    """Tell whether the server believes that an actor computes."""
    return run.core.leasing.pace.num_in_hand(actor) > 0


# -- quorum ----------------------------------------------------------------------------------------


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
        topology=FIVE, run={"rounds": 1}, sync={"mode": "quorum", "quorum": 3, "late": "merge"}
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


# -- async -----------------------------------------------------------------------------------------


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


# -- speculation -----------------------------------------------------------------------------------


def speculative(is_on: bool = True) -> tuple[DrivenCore, list[str]]:
    """Return a run of 3 slots whose items took 1 s each in the first round."""
    run, actors = started(3, {"slots": 3}, run={"rounds": 9}, server={"speculation": is_on})
    grants = [run.lease(actor) for actor in actors]
    run.now += 1.0
    run.renew(*actors)
    for grant in grants:
        run.push(grant)
    return run, actors


def test_item_that_takes_long_is_done_twice_and_the_first_answer_wins():
    run, (a, b, c) = speculative()
    slow, *others = [run.lease(actor) for actor in (a, b, c)]
    run.now += 1.0
    for grant in others:
        run.push(grant)
    run.ask(b, "idle")

    run.tick(0.5)
    assert (b, "idle") not in run.answers
    run.tick(0.01)
    second = run.answers[b, "idle"]

    assert second.lease.item == slow.lease.item
    assert run.push(second).outcome is Outcome.BUFFERED
    assert run.push(slow).outcome is Outcome.DUPLICATE
    assert run.core.progress.version == 2
    assert len(run.events("speculated")) == 1


def test_first_holder_may_win_as_well():
    run, (a, b, c) = speculative()
    slow, *others = [run.lease(actor) for actor in (a, b, c)]
    run.now += 1.0
    for grant in others:
        run.push(grant)
    run.ask(b, "idle")
    run.tick(0.6)

    assert run.push(slow).outcome is Outcome.BUFFERED
    assert busy(run, b)
    assert run.push(run.answers[b, "idle"]).outcome is Outcome.DUPLICATE
    assert not busy(run, b)


def test_item_gets_no_third_lease():
    run, (a, b, c) = speculative()
    _, *others = [run.lease(actor) for actor in (a, b, c)]
    run.now += 1.0
    for grant in others:
        run.push(grant)
    run.ask(b, "idle")
    run.ask(c, "idle")

    run.tick(0.6)

    assert isinstance(run.answers.get((b, "idle")), Grant)
    assert (c, "idle") not in run.answers


def test_known_slow_actor_is_doubled_at_once_and_doubles_nobody():
    run, (a, b, c) = speculative()
    slow, *others = [run.lease(actor) for actor in (a, b, c)]
    run.now += 1.0
    for grant in others:
        run.push(grant)
    run.now += 2.0
    run.renew(a, b, c)
    run.push(slow)  # a took 3 s
    slow, *others = [run.lease(actor) for actor in (a, b, c)]
    run.now += 1.0
    run.push(others[0])

    second = run.lease(b)

    assert second.lease.item == slow.lease.item
    run.push(second)
    run.push(slow)
    assert run.ask(a, "slow and idle") is None


def test_no_second_lease_where_speculation_is_off():
    run, (a, b, c) = speculative(is_on=False)
    _, *others = [run.lease(actor) for actor in (a, b, c)]
    for grant in others:
        run.push(grant)
    run.ask(b, "idle")

    run.tick(4.0)

    assert (b, "idle") not in run.answers


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"topology": {"slots": 2, "parts": 2}, "sync": {"mode": "async"}}, "parts to 1"),
        ({"sync": {"mode": "quorum", "quorum": 3}}, "sync.quorum 3 exceeds topology.slots 2"),
        ({"sync": {"quorum": 1}}, "or set sync.mode to quorum"),
        ({"sync": {"mode": "async", "window": 1, "async_batch": 3}}, "exceeds the 2 items"),
        ({"server": {"speculation": True}, "run": {"hardware": "mixed"}}, "Turn one of them off"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(sections, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config_of(**sections)
