"""The run's state machine in a pause, while it drains and at its end."""

from __future__ import annotations

import pytest

from dmaml.common.items import Outcome, RunState
from dmaml.server.core.actions import Done, Grant
from dmaml.server.core.memory import Memory
from dmaml.server.core.progress import Progress
from tests.unit.driven_core import NUM_ELEMENTS, DrivenCore, config_of, running


def test_pause_grants_nothing_and_takes_answers():
    run, a, b = running()
    grant = run.lease(a)

    run.do("pause", "lunch")

    assert run.ask(b, "b-waits") is None
    assert run.push(grant).outcome is Outcome.BUFFERED
    run.do("resume")
    assert isinstance(run.answers[b, "b-waits"], Grant)


def test_round_that_is_complete_in_a_pause_commits_and_the_next_one_waits():
    run, a, b = running()
    grants = [run.lease(a), run.lease(b)]
    run.do("pause", "")

    for grant in grants:
        run.push(grant)

    assert (run.core.state, run.core.progress.version) == (RunState.PAUSED, 1)
    assert run.ask(a) is None


def test_run_finishes_only_once_its_last_checkpoint_is_durable():
    run, a, b = running(config=config_of(run={"rounds": 1}), is_saving=False)
    run.work(a)
    run.ask(b, "b-waits")
    run.push(run.answers[b, "b-waits"])
    run.ask(a, "a-waits")

    assert run.core.state is RunState.RUNNING
    assert run.saves[-1].must
    assert (a, "a-waits") not in run.answers
    run.settle()

    assert run.core.state is RunState.FINISHED
    assert run.answers[a, "a-waits"] == Done(a, "a-waits")
    assert len(run.events("finished")) == 1


def test_earlier_checkpoint_does_not_finish_the_run():
    run, a, _ = running(config=config_of(run={"rounds": 1}), is_saving=False)
    run.work(a)
    run.work(a)

    run.core.saved(run.now, Progress(round=1, commits=1))

    assert run.core.state is RunState.RUNNING


def test_second_save_of_the_last_round_does_not_finish_twice():
    run, *_ = running(config=config_of(run={"rounds": 0}))
    assert run.core.state is RunState.FINISHED

    run.core.saved(run.now, Progress(round=1, commits=1))
    run.tick()

    assert len(run.events("finished")) == 1


def test_late_checkpoint_does_not_hide_a_failure():
    run, a, _ = running(config=config_of(run={"rounds": 1}), is_saving=False)
    run.work(a)
    run.work(a)
    run.do("fail", "disk full")

    run.settle()

    assert (run.core.state, run.core.message) == (RunState.FAILED, "disk full")


def test_failed_run_answers_waiting_calls():
    run, a, b = running(config=config_of(topology={"slots": 1}))
    grant = run.lease(a)
    run.ask(b, "b-waits")

    run.do("fail", "disk full")

    assert isinstance(run.answers[b, "b-waits"], Done)
    assert run.push(grant).outcome is Outcome.PAUSED


def test_drain_of_an_empty_run_finishes_at_once():
    run = DrivenCore()

    run.do("drain", "")

    assert run.core.state is RunState.FINISHED
    assert isinstance(run.ask(run.join()), Done)


def test_drain_in_init_finishes_after_it():
    run = DrivenCore()
    a = run.join()
    grant = run.lease(a)

    run.do("drain", "")
    assert run.core.state is RunState.DRAINING
    run.push(grant)

    assert run.core.state is RunState.FINISHED
    assert run.core.durable_round == 1


def test_drain_ends_after_the_round_in_progress():
    run, a, b = running()
    run.work(a)

    run.do("drain", "enough")
    assert run.core.state is RunState.DRAINING
    run.work(b)

    assert run.core.state is RunState.FINISHED
    assert (run.core.progress.version, run.core.durable_round) == (1, 2)


def test_drain_in_a_pause_ends_after_the_round_in_progress():
    run, a, _ = running()
    run.do("pause", "")

    run.do("drain", "")
    run.work(a)
    run.work(a)

    assert (run.core.state, run.core.progress.version) == (RunState.FINISHED, 1)


def test_drain_during_a_commit_keeps_it():
    run, a, _ = running()
    run.is_committing = False
    run.work(a)
    run.work(a)

    run.do("drain", "")
    run.tick()
    assert run.core.state is RunState.DRAINING
    run.settle()

    assert (run.core.state, run.core.progress.version) == (RunState.FINISHED, 1)


@pytest.mark.parametrize("has_leased", [False, True])
def test_drain_without_actors_finishes(has_leased):
    run, a, b = running()
    if has_leased:
        run.lease(a)
        run.work(b)

    run.do("drain", "")
    run.tick(10.1)

    assert (run.core.state, run.core.progress.version) == (RunState.FINISHED, 0)
    assert len(run.core.members) == 0


def test_drain_of_a_run_that_nobody_joined_after_a_restart_finishes_at_once():
    progress = Progress(round=2, version=1, trained=1, commits=2)
    run = DrivenCore(memory=Memory(progress, NUM_ELEMENTS, {0: "theta"}))

    run.do("drain", "")

    assert run.core.state is RunState.FINISHED


def test_drain_after_a_round_of_voids_finishes():
    run, a, b = running()
    for worker in (a, b):
        run.push(run.lease(worker), is_finite=False)

    run.do("drain", "")

    assert run.core.state is RunState.FINISHED


def test_round_of_voids_while_draining_finishes():
    run, a, b = running()
    grants = [run.lease(a), run.lease(b)]
    run.do("drain", "")

    for grant in grants:
        run.push(grant, is_finite=False)
    run.tick()

    assert (run.core.state, run.core.progress.version) == (RunState.FINISHED, 0)


def test_drain_waits_for_the_checkpoint_of_a_round_that_nobody_can_finish():
    run, a, _ = running(is_saving=False)
    run.work(a)
    run.work(a)

    run.do("drain", "")
    run.tick(10.1)
    assert run.core.state is RunState.DRAINING
    run.settle()

    assert run.core.state is RunState.FINISHED
    assert run.core.durable_round == run.core.progress.round == 2
