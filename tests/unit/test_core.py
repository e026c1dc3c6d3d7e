"""The core: rounds, leases, evaluations, hints, numerics."""

from __future__ import annotations

import pytest

from dmaml.common.errors import FingerprintMismatchError
from dmaml.common.items import ItemKind, Outcome, RunState
from dmaml.server.core.actions import Done, Grant, Wait
from dmaml.server.core.membership import Lease, Session
from dmaml.server.core.memory import Memory
from dmaml.server.core.progress import Progress
from tests.unit.driven_core import NUM_ELEMENTS, DrivenCore, config_of, head_of, running


def second_lease(run: DrivenCore, session: Session, grant: Grant, valid_s: float) -> Lease:
    """Return a lease on the same item for another actor."""
    first = grant.lease
    return run.core.members.lease(
        run.now, session, first.item, "speculation", valid_s, first.base_digest
    )


# -- a round ---------------------------------------------------------------------------------------


def test_first_actor_of_an_empty_run_is_asked_for_the_parameters():
    run = DrivenCore()
    assert run.core.state is RunState.EMPTY

    grant = run.lease(run.join())

    assert run.core.state is RunState.INIT
    assert grant.lease.item.kind is ItemKind.INIT


def test_init_fixes_the_size_and_opens_the_first_round():
    run = DrivenCore()

    run.initialise()

    assert run.core.state is RunState.RUNNING
    assert run.core.memory.num_elements == NUM_ELEMENTS
    assert [i.kind for i in run.core.round.items] == [ItemKind.TRAIN] * 2


def test_round_commits_in_slot_order_whatever_the_order_of_arrival():
    run, a, b = running()
    first, second = run.lease(a), run.lease(b)

    run.push(second)
    run.push(first)

    assert [head.item.slot for head in run.commits[-1].heads] == [0, 1]
    assert run.core.progress.version == 1


def test_part_order_follows_slot_order():
    run = DrivenCore(config_of(topology={"slots": 2, "parts": 2}))
    a = run.initialise()
    grants = [run.lease(a) for _ in range(4)]

    for grant in reversed(grants):
        run.push(grant)

    places = [(head.item.slot, head.item.part) for head in run.commits[-1].heads]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_run_ends_after_its_rounds():
    run, a, _ = running()

    for _ in range(3 * 2):
        run.work(a)

    assert run.core.state is RunState.FINISHED
    assert run.core.progress == Progress(4, 3, 0, -1, 3 * 2 * 8, trained=3, commits=4)
    assert isinstance(run.ask(a), Done)


def test_waiting_actor_gets_the_first_item_of_the_next_round():
    run, a, b = running(config=config_of(topology={"slots": 1}))
    grant = run.lease(a)
    assert run.ask(b, "b-waits") is None

    run.push(grant)

    assert run.answers[b, "b-waits"].lease.item.base_version == 1


def test_waiting_call_is_answered_at_its_end():
    run, a, b = running(config=config_of(topology={"slots": 1}))
    run.lease(a)
    run.ask(b, "b-waits", wait_s=3.0)

    run.tick(2.9)
    assert (b, "b-waits") not in run.answers
    run.tick(0.1)

    assert run.answers[b, "b-waits"] == Wait(b, "b-waits")


def test_withdrawn_call_parks_no_item():
    run, a, b = running(config=config_of(topology={"slots": 1}))
    grant = run.lease(a)
    run.ask(b, "b-hangs-up")

    run.core.withdraw(b, "b-hangs-up")
    run.push(grant)

    assert (b, "b-hangs-up") not in run.answers
    assert run.lease(a).lease.item.base_version == 1


# -- leases ----------------------------------------------------------------------------------------


def test_repeated_lease_call_repeats_lease_and_token():
    run, a, _ = running(config=config_of(topology={"slots": 4}))
    first = run.lease(a, request_id="lost reply")

    again = run.lease(a, request_id="lost reply")

    assert again == first
    assert run.lease(a).lease.item != first.lease.item


def test_new_call_of_an_actor_answers_its_older_one():
    run, a, b = running(config=config_of(topology={"slots": 1}))
    run.lease(a)
    run.ask(b, "older")

    run.ask(b, "newer")

    assert run.answers[b, "older"] == Wait(b, "older")
    assert (b, "newer") not in run.answers


def test_expired_lease_gives_the_item_to_another_actor_with_a_new_token():
    run, a, b = running()
    old = run.lease(a)

    run.pass_time(20.1, a, b)
    new = run.lease(b)

    assert new.lease.item == old.lease.item
    assert new.lease.token.counter > old.lease.token.counter
    assert [note.worker_id for note in run.events("lease_expired")] == [a]


def test_lease_is_good_until_its_end():
    run, a, b = running()
    old = run.lease(a)

    run.pass_time(20.0, a, b)

    assert run.push(old).outcome is Outcome.BUFFERED


def test_old_token_is_refused_and_counted():
    run, a, b = running()
    old = run.lease(a)
    run.pass_time(20.1, a, b)

    verdict = run.push(old)

    assert verdict.outcome is Outcome.STALE_LEASE
    assert [note.outcome for note in run.events("refused")] == [Outcome.STALE_LEASE]
    assert run.push(run.lease(b)).outcome is Outcome.BUFFERED


def test_token_of_another_actor_is_refused():
    run, a, b = running()
    grant = run.lease(a)

    verdict = run.push(grant, worker_id=b)

    assert verdict.outcome is Outcome.STALE_LEASE


def test_renewing_does_not_extend_a_lease_and_a_second_attempt_has_twice_the_time():
    run, a, b = running()
    first = run.lease(a)
    run.pass_time(20.1, a, b)

    second = run.lease(b)

    assert first.lease.ends_at == pytest.approx(100.0 + 20.0)
    assert second.lease.ends_at == pytest.approx(run.now + 40.0)


def test_several_live_tokens_of_one_item_are_all_good_until_the_first_answer():
    run, a, b = running()
    grant = run.lease(a)
    session = run.core.members.find(b, 1)
    other = second_lease(run, session, grant, 20.0)
    run.core.round.items[grant.lease.item].leases[other.token.counter] = other
    second = grant._replace(lease=other)

    assert run.core.judge(head_of(grant)) is None
    assert run.core.judge(head_of(second)) is None

    assert run.push(second).outcome is Outcome.BUFFERED
    assert run.push(grant).outcome is Outcome.DUPLICATE
    assert not session.leases
    assert not run.core.members.find(a, 1).leases


def test_end_of_one_of_two_leases_does_not_give_the_item_away():
    run, a, b = running(config=config_of(topology={"slots": 1}))
    grant = run.lease(a)
    session = run.core.members.find(b, 1)
    other = second_lease(run, session, grant, 90.0)
    run.core.round.items[grant.lease.item].leases[other.token.counter] = other

    run.do("leave", a, 1, "")

    c = run.join("actor-c")
    assert run.ask(c) is None


def test_actor_with_an_item_in_hand_waits_while_there_is_not_one_for_everybody():
    run, a, b = running()
    first = run.lease(a)

    assert run.ask(a, "ahead of time") is None
    run.work(b)
    run.push(first)

    assert run.answers[a, "ahead of time"].lease.item.base_version == 1


def test_fifth_unanswered_lease_of_an_actor_is_refused():
    run = DrivenCore(config_of(topology={"slots": 6}))
    a = run.initialise()
    for _ in range(4):
        run.lease(a)

    answer = run.ask(a)

    assert isinstance(answer, Wait)
    assert "4 unanswered leases" in run.events("refused")[-1].message
    assert isinstance(run.ask(run.join("actor-b")), Grant)


# -- evaluation ------------------------------------------------------------------------------------


def kinds(run: DrivenCore) -> list[str]:
    return [f"{c.kind.name[0]}{c.version}" for c in run.commits]


def test_evaluation_comes_after_every_few_versions_and_at_the_end():
    run = DrivenCore(config_of(run={"rounds": 5}, evaluation={"every": 2, "tasks": 10}))
    a = run.initialise()

    while run.core.state is RunState.RUNNING:
        run.work(a)

    assert kinds(run) == ["I0", "T0", "T1", "E2", "T2", "T3", "E4", "T4", "E5"]


def test_no_evaluation_when_every_is_zero():
    run, a, _ = running()

    while run.core.state is RunState.RUNNING:
        run.work(a)

    assert kinds(run) == ["I0", "T0", "T1", "T2"]


def test_evaluation_has_no_items_without_tasks():
    config = config_of(topology={"slots": 5}, evaluation={"every": 1, "tasks": 2})
    run = DrivenCore(config)
    a = run.initialise()
    for _ in range(5):
        run.work(a)

    items = list(run.core.round.items)

    assert {item.kind for item in items} == {ItemKind.EVALUATE}
    assert len(items) == 2


def test_evaluation_may_grow_with_the_run_on_resume():
    done = Memory(Progress(4, 3, 0, 3, 48, trained=3, commits=4), NUM_ELEMENTS, {0: "theta"})

    same = DrivenCore(config_of(evaluation={"every": 2}), done)
    longer = DrivenCore(config_of(run={"rounds": 4}, evaluation={"every": 2}), done)

    assert same.core.state is RunState.FINISHED
    assert {item.kind for item in longer.core.round.items} == {ItemKind.TRAIN}
    assert {item.index for item in longer.core.round.items} == {3}


# -- hints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_actors", [1, 2, 3, 4, 5])
def test_hint_is_the_next_item_of_actors_in_lockstep(num_actors):
    run = DrivenCore(config_of(run={"rounds": 60}, topology={"slots": 5}))
    workers = [run.initialise("actor-0")]
    workers += [run.join(f"actor-{n}") for n in range(1, num_actors)]
    hints, hits, misses = {}, 0, 0

    for turn in range(400):
        grants = []
        for worker in workers:
            answer = run.ask(worker, f"{worker} asks {turn}")
            if isinstance(answer, Grant):
                grants.append(answer)
        for grant in grants:
            worker, item = grant.lease.worker_id, grant.lease.item
            hits += hints.get(worker) == item
            misses += hints.get(worker) not in (None, item)
            hints[worker] = grant.hint
            run.push(grant)
        for (worker, request_id), answer in list(run.answers.items()):
            is_late = isinstance(answer, Grant) and answer not in grants
            if is_late and run.core.judge(head_of(answer)) is None:
                run.push(answer)
                hits += hints.get(worker) == answer.lease.item
                misses += hints.get(worker) not in (None, answer.lease.item)
                hints[worker] = answer.hint
            del run.answers[worker, request_id]
        if run.core.state is RunState.FINISHED:
            break

    assert hits >= 0.9 * (hits + misses), (hits, misses)


# -- numerics --------------------------------------------------------------------------------------


def test_numerics_of_the_actor_that_did_init_are_kept_though_it_is_gone():
    run = DrivenCore(is_committing=False)
    a = run.join(fingerprint={"torch": "2.13"})
    run.push(run.lease(a))
    run.do("leave", a, 1, "crashed")

    run.settle()

    assert run.core.memory.fingerprint == {"torch": "2.13"}
    assert run.core.memory.data_digest == "data"


def test_actor_that_joined_before_init_with_other_numerics_is_refused_at_its_next_call():
    run = DrivenCore()
    a = run.join("actor-a", fingerprint={"torch": "2.13"})
    b = run.join("actor-b", fingerprint={"torch": "2.12"})
    run.push(run.lease(a))

    with pytest.raises(FingerprintMismatchError, match=r"torch: '2\.12', not '2\.13'"):
        run.ask(b)


def test_initial_parameters_with_nan_fail_the_run_with_a_sentence():
    run = DrivenCore()
    a = run.join("actor-a")
    grant = run.lease(a)

    verdict = run.push(grant, is_finite=False)

    assert verdict.outcome is Outcome.NON_FINITE
    assert run.core.state is RunState.FAILED
    assert "init" in run.core.message
