"""PROBE rounds, γ and its pipelines, as the core sees them."""

from __future__ import annotations

import pytest

from dmaml.common.gamma import digest_of_all
from dmaml.common.items import ItemKind, Outcome
from dmaml.server.core.actions import Commit
from dmaml.server.core.progress import Progress
from dmaml.server.core.sequence import Routes
from tests.unit.driven_core import NUM_ELEMENTS, DrivenCore, config_of

DIGESTS = {0: "theta 0", 1: "theta 1"}


def first_then_train(progress: Progress) -> ItemKind:
    return ItemKind.TRAIN if progress.probes else ItemKind.PROBE


def probing(**options) -> tuple[DrivenCore, str]:
    """Return a run whose first round is a PROBE, and its actor, INIT done."""
    config = config_of(clustering={"name": "a.b:C", "pipelines": 2})
    run = DrivenCore(config, plan=first_then_train, **options)
    return run, run.initialise()


def commit_probe(run: DrivenCore, worker_id: str, routes: Routes) -> Commit:
    """Answer a PROBE round and tell the core what it came to."""
    run.is_committing = False
    while not run.unsettled:
        run.work(worker_id)
    commit = run.unsettled.pop()
    assert isinstance(commit, Commit)
    digests = {p: DIGESTS.get(p, f"theta {p}") for p in routes.pipelines}
    run.core.committed(run.now, commit.number, digests, 0, None, routes)
    run.is_committing = True
    run.settle()
    run._settle()
    return commit


def test_a_probe_round_has_one_item_for_each_slot_and_moves_no_parameters():
    run, a = probing()

    grants = [run.lease(a), run.lease(a)]

    assert [g.lease.item.kind for g in grants] == [ItemKind.PROBE] * 2
    assert [g.lease.item.slot for g in grants] == [0, 1]
    for grant in grants:
        run.push(grant)
    assert (run.core.progress.probes, run.core.progress.version) == (1, 0)
    assert run.lease(a).lease.item.kind is ItemKind.TRAIN


def test_items_after_a_probe_carry_the_new_gamma_and_are_of_its_pipelines():
    run, a = probing()

    commit = commit_probe(run, a, Routes(1, (0, 1)))
    items = [run.lease(a).lease.item for _ in range(4)]

    assert commit.kind is ItemKind.PROBE
    assert commit.gamma_version == 0
    assert [(i.kind, i.pipeline, i.slot, i.gamma_version) for i in items] == [
        (ItemKind.TRAIN, p, slot, 1) for p in (0, 1) for slot in (0, 1)
    ]


def test_a_hint_never_names_an_item_of_the_gamma_before():
    run, a = probing()
    grant = run.lease(a)
    before = grant.hint
    run.push(grant)

    commit_probe(run, a, Routes(1, (0, 1)))
    after = run.lease(a).hint

    assert before is not None
    assert before.gamma_version == 0
    assert after is not None
    assert after.gamma_version == 1


def test_an_evaluation_is_computed_from_the_parameters_of_every_pipeline():
    config = config_of(
        clustering={"name": "a.b:C", "pipelines": 2}, evaluation={"every": 1, "tasks": 2}
    )
    run = DrivenCore(config, plan=first_then_train)
    a = run.initialise()
    commit_probe(run, a, Routes(1, (0, 1)))

    item = run.lease(a).lease
    assert item.base_digest == "theta 0"
    run.core._published.digests = DIGESTS
    evaluated = item.item.based_on(0).__class__(9, ItemKind.EVALUATE, 0, 0, 0, 0, 0)
    assert run.core._published.digest_of(evaluated) == digest_of_all(DIGESTS)
    assert digest_of_all(DIGESTS) not in DIGESTS.values()


def test_an_answer_by_another_gamma_is_refused():
    run, a = probing()
    commit_probe(run, a, Routes(1, (0, 1)))
    grant = run.lease(a)
    item = grant.lease.item
    other = type(item)(
        item.round, item.kind, item.pipeline, item.slot, item.part, item.index, item.base_version
    )

    verdict = run.push(grant, item=other)

    assert verdict.outcome is Outcome.STALE_BASE
    assert "γ version 0" in verdict.message
    assert run.push(grant).outcome is Outcome.BUFFERED


def test_a_pipeline_may_sit_out_and_does_not_move_the_version_alone():
    run, a = probing()
    commit_probe(run, a, Routes(1, (0, 1)))

    for _ in range(4):
        grant = run.lease(a)
        empty = {"num_tasks": 0, "num_elements": 0} if grant.lease.item.pipeline else {}
        assert run.push(grant, **empty).outcome is Outcome.BUFFERED

    assert run.core.progress.version == 1
    assert run.commits[-1].kind is ItemKind.TRAIN


def test_a_round_that_everybody_sits_out_moves_nothing():
    run, a = probing()
    commit_probe(run, a, Routes(1, (0, 1)))

    for _ in range(4):
        run.push(run.lease(a), num_tasks=0, num_elements=0)

    assert (run.core.progress.version, run.core.progress.trained) == (0, 1)


def test_the_only_pipeline_cannot_sit_out():
    run = DrivenCore()
    a = run.initialise()

    verdict = run.push(run.lease(a), num_tasks=0, num_elements=0)

    assert verdict.outcome is Outcome.SHAPE


@pytest.mark.parametrize("num_elements", [0, 1, 16])
def test_an_observation_may_have_any_size_within_its_share(num_elements):
    run, a = probing()
    run.core.config = config_of(server={"max_inflight_bytes": 2 * 4 * 16})

    assert run.push(run.lease(a), num_elements=num_elements).outcome is Outcome.BUFFERED


def test_an_observation_beyond_its_share_is_refused():
    run, a = probing()
    run.core.config = config_of(server={"max_inflight_bytes": 2 * 4 * 16})

    verdict = run.push(run.lease(a), num_elements=17)

    assert verdict.outcome is Outcome.QUOTA
    assert "server.max_inflight_bytes is 64" in verdict.message


def test_a_run_that_is_resumed_in_a_probe_asks_again():
    run, a = probing()
    run.work(a)

    again = DrivenCore(
        run.config, run.core.remember(), epoch=2, plan=first_then_train, routes=run.core.routes
    )
    b = again.join()
    items = [again.lease(b).lease.item for _ in range(2)]

    assert [(i.kind, i.round, i.index, i.slot) for i in items] == [
        (ItemKind.PROBE, 1, 0, 0), (ItemKind.PROBE, 1, 0, 1)
    ]  # fmt: skip
    assert again.core.memory.num_elements == NUM_ELEMENTS
