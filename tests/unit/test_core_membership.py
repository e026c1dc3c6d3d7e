"""Sessions: who may join, who is alive, what stays reserved, and that none of it grows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmaml.common.errors import (
    CapacityError,
    FingerprintMismatchError,
    IdentityMismatchError,
    SessionLostError,
)
from dmaml.common.items import ItemKind, RunState, WorkItem
from dmaml.server.core.actions import Grant
from dmaml.server.core.memory import Memory
from dmaml.server.core.progress import Progress
from tests.unit.driven_core import NUM_ELEMENTS, DrivenCore, config_of

RESUMED = Memory(
    Progress(round=3, version=2, tasks_seen=32, trained=2, commits=3),
    NUM_ELEMENTS,
    {0: "theta"},
    {"torch": "2.13", "cpu": "x"},
    "data",
)
NUMERICS = {"fingerprint": {"torch": "2.13", "cpu": "x"}}


def item_of(slot: int) -> WorkItem:
    return WorkItem(3, ItemKind.TRAIN, 0, slot, 0, 2, 2)


# -- joining ---------------------------------------------------------------------------------------


def test_repeated_join_of_one_incarnation_repeats_the_answer():
    run = DrivenCore()

    first, again, other = run.join("actor-a"), run.join("actor-a"), run.join("actor-b")

    assert first == again != other
    assert len(run.core.members) == 2
    assert len(run.events("joined")) == 2


def test_repeated_join_keeps_the_leases():
    run = DrivenCore()
    a = run.initialise()
    grant = run.lease(a, request_id="lost reply")

    run.join("actor-a")

    assert run.lease(a, request_id="lost reply") == grant


def test_an_actor_of_another_run_at_the_same_address_is_unknown():
    before, after = DrivenCore(tag="-a"), DrivenCore(tag="-b")
    stranger = before.join("actor-a")
    after.join("actor-b")

    with pytest.raises(SessionLostError, match="Join again"):
        after.renew(stranger)


def test_new_incarnation_is_a_new_actor():
    run = DrivenCore()
    a = run.join("actor-a")
    run.do("leave", a, 1, "")

    assert run.join("actor-a") != a


def test_actor_of_another_configuration_is_refused():
    run = DrivenCore()

    with pytest.raises(IdentityMismatchError, match="identity '0000"):
        run.join("actor-a", identity="0" * 64)
    assert run.core.state is RunState.EMPTY


def test_actor_with_other_data_is_refused_whatever_the_hardware_rule():
    for hardware in ("same", "mixed"):
        run = DrivenCore(config_of(run={"hardware": hardware}), RESUMED)

        with pytest.raises(FingerprintMismatchError, match="data have digest 'other'"):
            run.join("actor-a", data_digest="other", **NUMERICS)


@pytest.mark.parametrize("theirs", [{"torch": "2.13"}, {"torch": "2.13", "cpu": "y"}, {}])
def test_actor_with_other_numerics_is_refused_on_same_hardware(theirs):
    run = DrivenCore(memory=RESUMED)

    with pytest.raises(FingerprintMismatchError, match="cpu"):
        run.join("actor-a", fingerprint=theirs)


def test_actor_with_other_numerics_is_let_in_on_mixed_hardware():
    run = DrivenCore(config_of(run={"hardware": "mixed"}), RESUMED)

    assert isinstance(run.ask(run.join("actor-a", fingerprint={"cpu": "y"})), Grant)


def test_actor_with_the_same_numerics_is_let_in():
    run = DrivenCore(memory=RESUMED)

    assert isinstance(run.ask(run.join("actor-a", **NUMERICS)), Grant)


def test_one_actor_too_many_is_refused_until_another_leaves():
    run = DrivenCore(config_of(server={"max_workers": 2}))
    a = run.join("actor-a")
    run.join("actor-b")

    with pytest.raises(CapacityError, match=r"server\.max_workers is 2"):
        run.join("actor-c")
    assert run.join("actor-b")

    run.do("leave", a, 1, "")
    assert run.join("actor-c")


# -- silence ---------------------------------------------------------------------------------------


def test_silent_actor_is_lost_and_its_item_goes_to_another():
    run = DrivenCore()
    a = run.initialise()
    b = run.join("actor-b")
    grant = run.lease(a)

    run.tick(10.0)
    assert len(run.core.members) == 2
    run.renew(b)
    run.tick(0.1)

    assert [note.worker_id for note in run.events("lost")] == [a]
    assert run.lease(b).lease.item == grant.lease.item


def test_lost_actor_must_join_again():
    run = DrivenCore()
    a = run.initialise()
    run.tick(10.1)

    with pytest.raises(SessionLostError, match="Join again"):
        run.renew(a)
    with pytest.raises(SessionLostError, match="Join again"):
        run.ask(a)


def test_actor_of_an_older_epoch_must_join_again():
    run = DrivenCore(memory=RESUMED, epoch=2)
    a = run.join("actor-a", **NUMERICS)

    with pytest.raises(SessionLostError, match="it restarted"):
        run.core.renew(run.now, a, 1)
    with pytest.raises(SessionLostError, match="it restarted"):
        run.core.ask(run.now, a, 1, "request", 1.0)
    run.core.leave(run.now, a, 1, "")
    assert len(run.core.members) == 1


def test_asking_and_pushing_keep_an_actor_alive():
    run = DrivenCore(config_of(run={"rounds": 20}))
    a = run.initialise()

    for _ in range(5):
        run.tick(6.0)
        grant = run.lease(a)
        run.tick(6.0)
        run.push(grant)

    assert run.join("actor-a") == a


def test_waiting_call_of_a_lost_actor_is_answered():
    run = DrivenCore(config_of(topology={"slots": 1}))
    a = run.initialise()
    b = run.join("actor-b")
    run.lease(a)
    run.ask(b, "b-waits", wait_s=60.0)

    run.tick(9.0)
    run.renew(a)
    run.tick(1.5)

    assert type(run.answers[b, "b-waits"]).__name__ == "Wait"


# -- held items ------------------------------------------------------------------------------------


def test_items_that_an_actor_holds_after_a_restart_stay_reserved_for_it():
    run = DrivenCore(config_of(topology={"slots": 2}), RESUMED, epoch=2)
    a = run.join("actor-a", held=(item_of(0),), **NUMERICS)
    b = run.join("actor-b", **NUMERICS)

    first, second = run.lease(b), run.ask(b)

    assert first.lease.item == item_of(1)
    assert second is None
    assert run.lease(a, held=(item_of(0),)).lease.item == item_of(0)


def test_held_items_named_in_a_lease_call_are_reserved_too():
    run = DrivenCore(config_of(topology={"slots": 2}), RESUMED, epoch=2)
    a, b = (run.join(f"actor-{n}", **NUMERICS) for n in "ab")

    assert run.lease(a, held=(item_of(1), item_of(0))).lease.item == item_of(0)
    assert run.ask(b) is None


def test_held_items_of_an_actor_that_dies_go_to_others():
    run = DrivenCore(config_of(topology={"slots": 1}), RESUMED, epoch=2)
    run.join("actor-a", held=(item_of(0),), **NUMERICS)
    b = run.join("actor-b", **NUMERICS)
    run.ask(b, "b-waits")

    run.tick(6.0)
    run.renew(b)
    run.tick(6.0)

    assert run.answers[b, "b-waits"].lease.item == item_of(0)


def test_held_items_of_an_actor_that_only_renews_go_to_others_in_the_end():
    run = DrivenCore(config_of(topology={"slots": 1}), RESUMED, epoch=2)
    a = run.join("actor-a", held=(item_of(0),), **NUMERICS)
    b = run.join("actor-b", **NUMERICS)

    run.pass_time(20.0, a, b)
    assert run.ask(b, "b-waits") is None
    run.pass_time(0.1, a, b)

    assert run.answers[b, "b-waits"].lease.item == item_of(0)


def test_held_items_of_other_rounds_reserve_nothing():
    run = DrivenCore(config_of(topology={"slots": 1}), RESUMED, epoch=2)
    run.join("actor-a", held=(replace(item_of(0), round=2),), **NUMERICS)

    assert isinstance(run.ask(run.join("actor-b", **NUMERICS)), Grant)


# -- bounds ----------------------------------------------------------------------------------------


def test_memory_is_bounded_over_1000_rounds_with_actors_that_come_and_go():
    run = DrivenCore(config_of(run={"rounds": 1000}, topology={"slots": 3}))
    workers = [run.initialise("actor-0")]

    for turn in range(4000):
        if turn % 3 == 0:
            workers.append(run.join(f"actor-{turn}"))
            run.ask(workers[-1])
        if len(workers) > 4:
            run.do("leave", workers.pop(0), 1, "")
        if turn % 7 == 0:  # one dies in silence, perhaps with a lease; its connection breaks
            run.core.withdraw(workers[-1], f"{workers[-1]} asks")
            workers.pop()
        for worker in workers:
            run.ask(worker, f"{worker} asks")
        while grants := [a for a in run.answers.values() if is_of(a, workers)]:
            run.answers.clear()
            for grant in grants:
                run.push(grant)
        run.answers.clear()
        run.notes.clear()
        run.tick(1.0)
        require_small(run)
        if run.core.state is RunState.FINISHED:
            break

    assert run.core.progress.version == 1000


def is_of(answer: object, workers: list[str]) -> bool:
    return isinstance(answer, Grant) and answer.lease.worker_id in workers


def require_small(run: DrivenCore) -> None:
    """Assert that the core's tables hold the open items and the live sessions, no more."""
    core, members = run.core, run.core.members
    assert len(members) <= 8
    assert len(members._by_incarnation) == len(members)
    assert len(core.leasing.queue.idle) + len(core.leasing.queue.ahead) <= len(members)
    assert len(core.leasing.queue.pending) <= 3
    of_items = [
        n for entry in (core.round.items if core.round else {}).values() for n in entry.leases
    ]
    of_sessions = [number for session in members for number in session.leases]
    assert sorted(of_items) == sorted(of_sessions)
    assert len(of_items) <= 3
