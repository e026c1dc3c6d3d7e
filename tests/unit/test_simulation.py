"""The simulation: closed forms, determinism, what failures may not change."""

from __future__ import annotations

import json

import pytest

from dmaml.common import config as configuration
from dmaml.common.errors import RunFailedError
from dmaml.server import runner, writer
from dmaml.server.simulation import machinery, world
from dmaml.server.simulation.figures import staleness_of
from dmaml.server.simulation.machinery import Machinery
from dmaml.worker import client
from tests.unit.simulated_world import run, world_of

CONFIG = configuration.from_mapping({})
ROUGH = {
    "compute": "lognormal(1,0.3)", "latency": "pareto(0.001,1.5)", "service": "0.0005",
    "commit": "0.01", "combine": "0.001", "checkpoint": "exponential(0.05)",
    "mtbf": "exponential(60)", "repair": "5", "outage": "exponential(90)", "outage_for": "15",
    "leave": "exponential(120)", "join": "exponential(10)",
}  # fmt: skip


# -- closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "item_s"), [(1, 0.5), (4, 0.25), (7, 2.0)])
def test_as_many_equal_actors_as_slots_do_one_round_in_the_time_of_an_item(workers, item_s):
    figures = run(workers=workers, compute=str(item_s))

    assert figures.rounds_per_s == 1 / item_s
    assert figures.tasks_per_s == CONFIG.algorithm.tasks * workers / item_s
    assert figures.utilisation == 1.0
    assert figures.straggler_cost == 0.0
    assert figures.tail == 0.0
    assert figures.wasted == {}


def test_half_as_many_actors_as_slots_take_twice_as_long():
    figures = run(workers=3, slots=6)

    assert figures.rounds_per_s == 0.5
    assert figures.utilisation == 1.0


def test_a_sync_round_takes_as_long_as_its_slowest_actor():
    figures = run(slow="0.2:5")

    assert figures.rounds_per_s == 1 / 5
    assert figures.utilisation == pytest.approx((4 * 1 + 5) / (5 * 5))
    assert figures.straggler_cost == pytest.approx(1 - 5 / (5 * (4 + 1 / 5)))
    assert figures.tail == pytest.approx(4 / 5)


def test_latency_service_and_commit_lie_between_two_rounds():
    figures = run(workers=1, latency="0.125", service="0.0625", commit="0.5", combine="0.25")

    # a round: compute, answer travels, is served, combined; the waiting call's answer travels
    assert 1 / figures.rounds_per_s == pytest.approx(1 + 0.125 + 0.0625 + 0.75 + 0.125)


def test_an_evaluation_takes_the_time_of_its_tasks():
    tasks = 2 * CONFIG.algorithm.tasks  # of an item, with two slots
    without = run(workers=2, rounds=4)
    settings = ("evaluation.every=2", f"evaluation.tasks={2 * tasks}")
    figures = run(workers=2, rounds=4, settings=settings)

    assert figures.duration_s == without.duration_s + 2 * 2.0
    assert figures.utilisation == 1.0
    assert figures.straggler_cost == 0.0


@pytest.mark.parametrize(("parts", "rounds_per_s"), [(1, 0.2), (2, 0.4), (4, 0.8)])
def test_a_slow_actor_does_fewer_of_many_items(parts, rounds_per_s):
    settings = (f"topology.parts={parts}",)

    figures = run(rounds=100, compute=str(1 / parts), slow="0.2:5", settings=settings)

    # without items ahead of time for the slow one: a round lasts as long as one item of its own
    assert figures.rounds_per_s == pytest.approx(rounds_per_s, rel=0.05)


def test_sync_has_no_staleness():
    figures = run(slow="0.4:3")

    assert figures.staleness.counts == {0: 50}
    assert (figures.versions, figures.applied) == (10, 50)


def test_a_single_async_actor_with_a_window_of_one_is_never_stale():
    figures = run("async", workers=1, settings=("sync.window=1",))

    assert figures.rounds_per_s == 1.0
    assert figures.staleness.counts == {0: 10}


def test_modes_overcome_one_slow_actor_of_five():
    sync = run(slow="0.2:5", rounds=40)
    ratio = {
        mode: run(mode, slow="0.2:5", rounds=40).rounds_per_s / sync.rounds_per_s
        for mode in ("quorum", "async", "sync+speculation")
    }

    assert ratio["quorum"] >= 2.5
    assert ratio["async"] >= 2.0
    assert ratio["sync+speculation"] >= 2.0


def test_checkpoints_hold_a_version_back_in_quorum_mode_and_not_in_sync_mode():
    times = {"workers": 2, "rounds": 6, "checkpoint": "1"}

    sync, quorum = run("sync", **times), run("quorum", **times)

    assert sync.duration_s <= 6 * 1 + 1 + 1
    assert quorum.duration_s >= 6 * (1 + 1)


# -- chance and failures -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sync", "quorum", "async", "sync+speculation"])
def test_a_rough_run_is_the_same_twice_and_another_with_another_seed(mode):
    first = run(mode, workers=8, seed=3, **ROUGH).plain()

    assert run(mode, workers=8, seed=3, **ROUGH).plain() == first
    assert run(mode, workers=8, seed=4, **ROUGH).plain() != first
    assert first["deaths"] > 0


@pytest.mark.parametrize("mode", ["sync", "async", "sync+speculation", "async+speculation"])
def test_failures_do_not_change_the_set_of_applied_items(mode):
    smooth = world_of(mode, workers=8, rounds=20)
    rough = world_of(mode, workers=8, rounds=20, **ROUGH)

    smooth.run()
    figures = rough.run()

    assert figures.deaths > 0
    assert figures.sessions_lost > 0
    assert figures.sessions_left > 0
    assert rough.ledger.states() == smooth.ledger.states()
    assert figures.applied == 8 * 20


@pytest.mark.parametrize("late", ["refuse", "merge"])
def test_a_quorum_applies_at_least_its_slots_in_every_round(late):
    settings = (f"sync.late={late}", "sync.quorum=6")

    figures = run("quorum", workers=8, rounds=20, settings=settings, slow="0.25:4", **ROUGH)

    assert 6 * 20 <= figures.applied <= 8 * 20
    assert figures.versions == 20
    assert "late" in figures.refused  # with merge, those whose leases had ended
    assert any(age > 0 for age in figures.staleness.counts) == (late == "merge")


def test_the_same_draws_meet_every_mode():
    """Actor n's first items take the same time, and it dies at the same time, in every mode."""
    worlds = [world_of(mode, workers=3, rounds=1, **ROUGH) for mode in ("sync", "async")]

    for one in worlds:
        one._begin()
    lives = [[a.dies_at for a in one._actors.values()] for one in worlds]
    items = [[next(a.compute) for a in one._actors.values()] for one in worlds]

    assert lives[0] == lives[1]
    assert items[0] == items[1]
    assert len(set(lives[0])) == 3


def test_a_dead_actors_item_goes_to_its_successor_when_the_session_is_over():
    session_s = CONFIG.server.session_s

    figures = run(workers=1, rounds=8, mtbf="6.5", repair="1")

    # it dies at 6.5 in its 7th item; its successor has joined, but the item is free only later
    assert figures.deaths == 2
    assert figures.sessions_lost >= 1
    assert 6.5 + session_s / 2 < figures.duration_s


def test_an_answer_computed_before_a_network_outage_is_sent_after_it_and_not_computed_again():
    figures = run(workers=1, rounds=8, outage="5.5", outage_for="20")

    assert figures.sessions_lost == 1
    assert figures.refused == {"stale_lease": 1}
    assert figures.utilisation * figures.duration_s == pytest.approx(8.0)
    assert sum(figures.wasted.values()) == pytest.approx(0.0)
    assert figures.duration_s == pytest.approx(5 + 20.5 + 2, abs=0.1)


def test_an_actor_that_leaves_answers_first():
    figures = run(workers=2, rounds=6, leave="3.5", join="3")

    assert figures.wasted == {}
    assert figures.sessions_left >= 2
    assert figures.applied == 12


def test_a_run_without_actors_ends_with_a_sentence():
    with pytest.raises(RunFailedError, match=r"2 actors left \(--leave\)\. Nobody is left: let"):
        run(workers=2, leave="3.5")


def test_a_run_whose_last_actor_leaves_before_its_last_checkpoint_ends_well():
    figures = run(workers=1, rounds=2, leave="2.5", checkpoint="30")

    assert figures.applied == 2


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        ({"mtbf": "0.5", "repair": "0.1"}, r"actors died \(--mtbf\)\. Make the first of them"),
        ({"mtbf": "uniform(0.1,0.9)", "repair": "9"}, r"actors died \(--mtbf\)\. Make the first"),
    ],
)
def test_a_run_that_goes_nowhere_ends_with_its_cause(monkeypatch, keys, cause):
    monkeypatch.setattr(world, "LEAST_TRIES", 50)

    with pytest.raises(RunFailedError, match=cause):
        run(workers=1, rounds=2, **keys)


def test_times_that_the_clock_is_too_fine_for_end_with_a_sentence(monkeypatch):
    monkeypatch.setattr(world, "MOST_TICKS", 100)

    with pytest.raises(RunFailedError, match=r"101 ticks of the clock\. Shorten --compute"):
        run(workers=1, rounds=1, compute="3000")


def test_an_item_may_take_as_long_as_it_likes():
    settings = ("server.item_timeout_s=1000000",)

    figures = run(workers=2, slots=1, rounds=3, compute="20000", settings=settings)

    assert figures.rounds_per_s == 1 / 20000


def test_a_lease_that_takes_too_long_expires():
    figures = run(workers=2, rounds=3, slow="0.5:50", settings=("server.item_timeout_s=10",))

    assert figures.leases_expired > 0
    assert figures.applied == 6


# -- the server's threads, and what is said twice ------------------------------------------------


def test_checkpoints_are_written_while_they_cost_a_twentieth_of_the_time():
    seconds = [iter([value] * 9) for value in (0.0, 0.0, 1.0)]
    disk = Machinery(*seconds, "auto")

    assert disk.is_due(0.0, 1, must=False)
    assert disk.save(0.0, 1) == 1.0
    assert not disk.is_due(19.0, 2, must=False)
    assert disk.is_due(19.0, 2, must=True)
    assert disk.is_due(20.0, 2, must=False)


def test_checkpoints_every_three_commits_make_the_next_commit_wait():
    disk = Machinery(iter([1.0] * 9), iter([0.5] * 9), iter([4.0] * 9), 3)

    assert [disk.is_due(0.0, number, must=False) for number in (1, 2, 3)] == [False, False, True]
    assert disk.save(0.0, 3) == 4.0
    assert disk.commit(1.0, 2) == 4.0 + 1.0 + 2 * 0.5


def test_the_times_of_the_real_server_and_actors_are_repeated_exactly():
    assert machinery.AUTO_CHECKPOINT_SHARE == writer.AUTO_CHECKPOINT_SHARE
    assert world.TICK_S == runner.TICK_S
    assert world.LEASE_WAIT_S == client.LEASE_WAIT_S


def test_staleness_is_summed_up():
    found = staleness_of({0: 90, 1: 5, 7: 4, 30: 1})

    assert (found.mean, found.p95, found.max) == (0.63, 1, 30)
    assert staleness_of({}).counts == {}


def test_figures_are_plain_values():
    figures = run("quorum", slow="0.2:5")

    assert json.loads(json.dumps(figures.plain()))["mode"] == "quorum"
