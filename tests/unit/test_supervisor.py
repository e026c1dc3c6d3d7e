"""An actor at every place, whatever happens: the supervisor with hands and a clock of the test."""

from __future__ import annotations

import pytest

from dmaml.common.errors import CapacityError, RunFailedError, ServerUnreachableError
from dmaml.deploy.supervisor import (
    FIRST_PAUSE_S,
    LONG_LIFE_S,
    LONGEST_PAUSE_S,
    MAX_DEATHS,
    Ended,
    Place,
    Supervisor,
)
from dmaml.worker.actor import End

A, B = Place("node-a", 0, "10.0.0.1"), Place("node-b", 0, "10.0.0.2")
DONE, LEFT = End(7, is_done=True), End(3)


class Hands:
    """Hands that do nothing but note; `now` is the time."""

    def __init__(self, *places: Place) -> None:
        self.wanted = list(places)
        self.now = 1000.0
        self.started: list[Place] = []
        self.alive: set[Place] = set()
        self.adopted: set[Place] = set()  # places where an actor lives already
        self.is_stopped = False
        self._ended: list[Ended] = []

    def supervisor(self, is_patient: bool = False) -> Supervisor:
        return Supervisor(self, is_patient, lambda: self.now)

    def end(self, place: Place, end: End | None = None) -> None:
        """Let an actor end; without `end` its process died."""
        self.alive.remove(place)
        self._ended.append(Ended(place, end))

    def places(self) -> list[Place]:
        return self.wanted

    def start(self, place: Place) -> bool:
        assert place not in self.alive, "one actor is enough"
        self.started.append(place)
        self.alive.add(place)
        return place in self.adopted

    def ended(self, timeout_s: float) -> list[Ended]:
        found, self._ended = self._ended, []
        return found

    def stop(self) -> None:
        self.is_stopped = True


def pause_after_end(hands: Hands, supervisor: Supervisor, end: End | None = None) -> float:
    """Let the actor at A end at once; return how long its place stays empty."""
    hands.end(A, end)
    supervisor.watch(0.0)
    ended_at, num_started = hands.now, len(hands.started)
    while True:
        supervisor.watch(0.0)
        if len(hands.started) > num_started:
            return hands.now - ended_at
        hands.now += 0.25


def test_an_actor_is_started_at_every_place() -> None:
    hands = Hands(B, A)
    supervisor = hands.supervisor()

    is_over = supervisor.watch(0.0)

    assert hands.started == [A, B]
    assert supervisor.size == 2
    assert not is_over


def test_the_log_tells_an_adopted_actor_from_a_new_one(caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands(A, B)
    hands.adopted.add(B)

    with caplog.at_level("INFO", logger="dmaml.deploy"):
        hands.supervisor().watch(0.0)

    assert caplog.messages == [
        "actor 0 on 10.0.0.1 starts: 1 in all",
        "actor 0 on 10.0.0.2 is adopted: 2 in all",
    ]


def test_a_place_with_an_actor_is_left_alone() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor()

    for _ in range(3):
        supervisor.watch(0.0)

    assert hands.started == [A]


def test_a_new_place_gets_an_actor() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)

    hands.wanted.append(B)
    supervisor.watch(0.0)

    assert hands.started == [A, B]


def test_a_dead_actor_is_replaced_at_once() -> None:
    hands = Hands(A, B)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)

    hands.end(A)
    supervisor.watch(0.0)
    size_without = supervisor.size
    supervisor.watch(0.0)

    assert size_without == 1
    assert hands.started == [A, B, A]


def test_pauses_after_repeated_deaths_double_up_to_the_longest() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor(is_patient=True)
    supervisor.watch(0.0)

    pauses = [pause_after_end(hands, supervisor) for _ in range(10)]

    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_the_pause_does_not_overflow_after_days_of_deaths() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor(is_patient=True)

    for _ in range(2000):  # 2 ** 1024 is no float
        hands.now += LONGEST_PAUSE_S
        supervisor.watch(0.0)
        hands.end(A)
        supervisor.watch(0.0)

    assert len(hands.started) == 2000


def test_the_deaths_of_one_place_do_not_hold_up_another() -> None:
    hands = Hands(A, B)
    supervisor = hands.supervisor(is_patient=True)
    supervisor.watch(0.0)
    for _ in range(4):
        pause_after_end(hands, supervisor)

    hands.end(B)
    supervisor.watch(0.0)
    supervisor.watch(0.0)

    assert hands.started[-1] == B


def test_a_long_life_resets_the_pauses() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor(is_patient=True)
    supervisor.watch(0.0)
    for _ in range(6):
        pause_after_end(hands, supervisor)

    hands.now += LONG_LIFE_S
    pauses = [pause_after_end(hands, supervisor) for _ in range(2)]

    assert pauses == [0.0, FIRST_PAUSE_S]


def test_the_deaths_of_an_impatient_supervisors_place_end_it() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)
    for _ in range(MAX_DEATHS - 1):
        pause_after_end(hands, supervisor)

    hands.end(A)
    with pytest.raises(CapacityError, match=r"actor 0 on 10\.0\.0\.1 died 5 times.*memory"):
        supervisor.watch(0.0)


def test_the_error_of_an_actor_is_raised_where_nobody_is_patient() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)

    hands.end(A, End(error=ServerUnreachableError("no server")))

    with pytest.raises(ServerUnreachableError, match="no server"):
        supervisor.watch(0.0)


def test_a_patient_supervisor_pauses_after_every_error() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor(is_patient=True)
    supervisor.watch(0.0)
    end = End(error=RunFailedError("no data file"))

    pauses = [pause_after_end(hands, supervisor, end) for _ in range(3)]

    assert pauses == [FIRST_PAUSE_S, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S]


def test_a_place_whose_node_is_gone_is_forgotten_with_its_history() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor(is_patient=True)
    supervisor.watch(0.0)
    for _ in range(7):
        pause_after_end(hands, supervisor)
    hands.end(A)
    hands.wanted = []
    supervisor.watch(0.0)
    supervisor.watch(0.0)

    hands.wanted = [A]
    supervisor.watch(0.0)  # now, and not in half a minute

    assert hands.alive == {A}


def test_an_actor_on_a_node_that_is_gone_is_not_replaced() -> None:
    hands = Hands(A, B)
    supervisor = hands.supervisor(is_patient=True)
    supervisor.watch(0.0)

    hands.wanted = [B]
    hands.end(A)
    supervisor.watch(0.0)
    supervisor.watch(0.0)

    assert hands.started == [A, B]
    assert supervisor.size == 1


def test_an_actor_that_left_is_started_again_only_when_its_node_came_back() -> None:
    hands = Hands(A, B)
    supervisor = hands.supervisor(is_patient=True)
    supervisor.watch(0.0)

    hands.end(A, LEFT)
    for _ in range(3):
        supervisor.watch(0.0)
    while_there = list(hands.started)
    hands.wanted = [B]
    supervisor.watch(0.0)
    hands.wanted = [A, B]
    supervisor.watch(0.0)

    assert while_there == [A, B]
    assert hands.started == [A, B, A]


def test_the_run_is_over_once_it_is_done_and_every_actor_ended() -> None:
    hands = Hands(A, B)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)

    hands.end(A, DONE)
    after_one = supervisor.watch(0.0)
    hands.end(B, DONE)
    after_both = supervisor.watch(0.0)

    assert (after_one, after_both) == (False, True)
    assert supervisor.is_over
    assert hands.started == [A, B]


def test_actors_that_all_left_are_no_end_of_the_run() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)

    hands.end(A, LEFT)

    assert not supervisor.watch(0.0)


def test_another_run_gets_actors_again() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)
    hands.end(A, DONE)
    supervisor.watch(0.0)

    supervisor.again()

    assert not supervisor.watch(0.0)
    assert hands.started == [A, A]


def test_another_run_gets_actors_again_while_one_is_still_at_work() -> None:
    hands = Hands(A, B)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)
    hands.end(A, DONE)
    supervisor.watch(0.0)
    was_done = supervisor.is_done

    supervisor.again()
    supervisor.watch(0.0)

    assert was_done
    assert hands.started == [A, B, A]


def test_a_node_that_goes_gets_no_actor_for_another_run() -> None:
    hands = Hands(A, B)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)
    hands.end(A, LEFT)
    hands.end(B, DONE)
    supervisor.watch(0.0)

    supervisor.again()
    supervisor.watch(0.0)

    assert hands.started == [A, B, B]


def test_a_place_that_is_new_after_the_run_gets_one_actor_once() -> None:
    hands = Hands(A)
    supervisor = hands.supervisor(is_patient=True)
    supervisor.watch(0.0)
    hands.end(A, DONE)
    supervisor.watch(0.0)

    hands.wanted = [A, B]
    is_over_meanwhile = supervisor.watch(0.0)
    hands.end(B, DONE)
    is_over_then = supervisor.watch(0.0)
    supervisor.watch(0.0)

    assert (is_over_meanwhile, is_over_then) == (False, True)
    assert hands.started == [A, B]


def test_stop_ends_every_actor() -> None:
    hands = Hands(A, B)
    supervisor = hands.supervisor()
    supervisor.watch(0.0)

    supervisor.stop()

    assert hands.is_stopped
    assert supervisor.size == 0


def test_a_place_says_where_it_is() -> None:
    assert str(A) == "actor 0 on 10.0.0.1"
    assert str(Place("0123456789abcdef", 2)) == "actor 2 on 01234567"
    assert str(Place("", 1)) == "actor 1"
