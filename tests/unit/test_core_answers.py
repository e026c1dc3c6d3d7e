"""Answers to the run's state machine: which are good, refused, repeated or void."""

from __future__ import annotations

import pytest

from dmaml.common.items import Outcome, RunState
from dmaml.server.aggregation import after_voids, build
from tests.unit.driven_core import NUM_ELEMENTS, DrivenCore, config_of, head_of, running

# -- answers ---------------------------------------------------------------------------------------


def test_retry_of_the_same_actor_gets_the_first_outcome_again():
    run, a, _ = running()
    grant = run.lease(a)
    run.push(grant)

    assert run.push(grant).outcome is Outcome.BUFFERED
    assert len(run.commits) == 1


def test_retry_is_committed_once_the_round_is_durable():
    run, a, _ = running(is_saving=False)
    run.settle()
    run.work(a)
    last = run.lease(a)
    run.push(last)

    before = run.push(last).outcome
    run.settle()

    assert before is Outcome.BUFFERED
    assert run.push(last).outcome is Outcome.COMMITTED


def test_late_answer_of_another_actor_is_a_duplicate():
    run, a, b = running()
    slow = run.lease(a)
    run.pass_time(20.1, a, b)
    run.push(run.lease(b))

    assert run.push(slow).outcome is Outcome.DUPLICATE


def test_answer_to_a_round_of_the_past_is_a_duplicate():
    run, a, b = running()
    slow = run.lease(a)
    run.pass_time(20.1, a, b)
    for _ in range(4):
        run.work(b)

    assert run.push(slow).outcome is Outcome.DUPLICATE
    assert run.core.progress.version == 2
    assert not run.events("refused")


def test_answer_from_other_parameters_is_refused():
    run, a, _ = running()
    grant = run.lease(a)

    verdict = run.push(grant, base_digest="theta of another version")

    assert verdict.outcome is Outcome.STALE_BASE
    assert run.push(grant).outcome is Outcome.BUFFERED


def test_token_of_another_epoch_is_refused():
    run, a, _ = running()
    old = run.lease(a)
    restarted = DrivenCore(memory=run.core.memory, epoch=2)

    verdict = restarted.push(old)

    assert verdict.outcome is Outcome.STALE_EPOCH
    assert restarted.events("refused")[-1].outcome is Outcome.STALE_EPOCH


def test_answer_of_an_ended_session_is_refused():
    run, a, _ = running()
    grant = run.lease(a)

    run.do("leave", a, 1, "bored")

    assert run.push(grant).outcome is Outcome.STALE_LEASE


@pytest.mark.parametrize("num_elements", [0, NUM_ELEMENTS - 1, NUM_ELEMENTS + 1])
def test_gradient_of_another_size_is_refused(num_elements):
    run, a, _ = running()

    verdict = run.push(run.lease(a), num_elements=num_elements)

    assert verdict.outcome is Outcome.SHAPE


def test_answer_from_no_tasks_is_refused():
    run, a, _ = running()

    verdict = run.push(run.lease(a), num_tasks=0)

    assert verdict.outcome is Outcome.SHAPE


def test_too_large_model_is_refused():
    run = DrivenCore(config_of(server={"max_model_bytes": 4 * NUM_ELEMENTS}))
    grant = run.lease(run.join())

    verdict = run.push(grant, num_elements=NUM_ELEMENTS + 1)

    assert verdict.outcome is Outcome.QUOTA
    assert "server.max_model_bytes" in verdict.message
    assert run.push(grant).outcome is Outcome.BUFFERED


def test_judging_changes_nothing():
    run, a, _ = running()
    head = head_of(run.lease(a))

    assert [run.core.judge(head) for _ in range(2)] == [None, None]
    assert run.core.take_actions() == []


# -- void items ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "is_finite"),
    [({}, False), ({"loss": float("nan")}, True), ({"norm": float("inf")}, True)],
)
def test_non_finite_answer_closes_its_item_as_void(fields, is_finite):
    run, a, b = running()
    bad = run.lease(a)

    verdict = run.push(bad, is_finite, **fields)
    run.work(b)

    assert verdict.outcome is Outcome.NON_FINITE
    assert run.push(bad).outcome is Outcome.NON_FINITE
    assert run.commits[-1].voids == {bad.lease.item}
    assert len(run.commits[-1].heads) == 2
    assert run.core.progress.version == 1


def test_void_sentence_names_the_tasks():
    run, a, b = running()
    run.lease(a)

    verdict = run.push(run.lease(b), is_finite=False)

    assert "tasks 8 to 15" in verdict.message
    assert run.events("void")[-1].is_warning


@pytest.mark.parametrize(("norm", "outcome"), [(2.0, Outcome.BUFFERED), (2.0001, Outcome.NORM)])
def test_answer_beyond_max_norm_is_void(norm, outcome):
    run, a, _ = running(config=config_of(aggregation={"max_norm": 2.0}))

    assert run.push(run.lease(a), norm=norm).outcome is outcome


def test_round_of_voids_pauses_the_run_with_a_sentence():
    run, a, b = running()

    for worker in (a, b):
        run.push(run.lease(worker), is_finite=False)

    assert run.core.state is RunState.PAUSED
    assert "every contribution to pipeline 0 was void" in run.core.message
    assert run.core.has_diverged
    assert run.core.progress.version == 0
    assert run.ask(a) is None


def test_resume_computes_a_round_of_voids_once_more():
    run, a, b = running()
    for worker in (a, b):
        run.push(run.lease(worker), is_finite=False)

    run.do("resume")
    outcomes = [run.work(worker).outcome for worker in (a, b)]

    assert outcomes == [Outcome.BUFFERED] * 2
    assert run.core.state is RunState.RUNNING
    assert (run.core.message, run.core.progress.version) == ("", 1)
    assert not run.core.has_diverged


@pytest.mark.parametrize(("num_voids", "state"), [(2, RunState.RUNNING), (3, RunState.PAUSED)])
def test_round_with_too_few_contributions_for_its_rule_pauses_the_run(num_voids, state):
    config = config_of(topology={"slots": 5}, aggregation={"name": "krum"})
    rule = build(config.aggregation)
    run = DrivenCore(config, num_required=lambda num: after_voids(rule, num).num_required)
    a = run.initialise()

    for slot in range(5):
        run.push(run.lease(a), is_finite=slot >= num_voids)

    assert run.core.state is state
    if state is RunState.PAUSED:
        assert "3 of 5 contributions" in run.core.message
        assert "'krum' needs 3, found 2. Lower" in run.core.message
        run.do("resume")
        assert [run.work(a).outcome for _ in range(5)] == [Outcome.BUFFERED] * 5
    assert run.core.progress.version == 1


def test_slot_with_a_void_part_counts_as_void():
    run = DrivenCore(config_of(topology={"slots": 2, "parts": 2}))
    a = run.initialise()
    grants = [run.lease(a) for _ in range(4)]

    for grant in grants:
        run.push(grant, is_finite=grant.lease.item.part == 1)

    assert run.core.state is RunState.PAUSED
