"""Items that take long are done twice."""

from __future__ import annotations

from dmaml.common.items import Outcome
from dmaml.server.core.actions import Grant
from tests.unit.driven_core import DrivenCore, started


def busy(run: DrivenCore, actor: str) -> bool:
    """Tell whether the server believes that an actor computes."""
    return run.core.leasing.pace.num_in_hand(actor) > 0


def speculative(is_on: bool = True) -> tuple[DrivenCore, list[str]]:
    """Return a run of 3 slots whose items took 1 s each in the first round."""
    run, actors = started(3, {"slots": 3}, run={"rounds": 9}, server={"speculation": is_on})
    grants = [run.lease(actor) for actor in actors]
    run.now += 1.0
    run.renew(*actors)
    for grant in grants:
        run.push(grant)
    return run, actors


def lagging(run: DrivenCore, actors: list[str], after_s: float = 1.0) -> Grant:
    """Return the item that the first of three actors is at when the others have answered theirs."""
    slow, *others = [run.lease(actor) for actor in actors]
    run.now += after_s
    for grant in others:
        run.push(grant)
    return slow


def test_item_that_takes_long_is_done_twice_and_the_first_answer_wins():
    run, (a, b, c) = speculative()
    slow = lagging(run, [a, b, c])
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
    slow = lagging(run, [a, b, c])
    run.ask(b, "idle")
    run.tick(0.6)

    assert run.push(slow).outcome is Outcome.BUFFERED
    assert busy(run, b)
    assert run.push(run.answers[b, "idle"]).outcome is Outcome.DUPLICATE
    assert not busy(run, b)


def test_item_gets_no_third_lease():
    run, (a, b, c) = speculative()
    lagging(run, [a, b, c])
    run.ask(b, "idle")
    run.ask(c, "idle")

    run.tick(0.6)

    assert isinstance(run.answers.get((b, "idle")), Grant)
    assert (c, "idle") not in run.answers


def test_known_slow_actor_is_doubled_at_once_and_doubles_nobody():
    run, (a, b, c) = speculative()
    slow = lagging(run, [a, b, c])
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
    lagging(run, [a, b, c], after_s=0.0)
    run.ask(b, "idle")

    run.tick(4.0)

    assert (b, "idle") not in run.answers
