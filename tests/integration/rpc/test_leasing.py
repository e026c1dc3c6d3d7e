"""Leasing items: in which order, once, or not yet."""

from __future__ import annotations

from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem
from dmaml.v1 import meta_model_pb2
from dmaml.worker.client import Client
from tests.integration.rpc.calls import CALL_S, Raw, leased


def test_items_are_handed_out_in_their_order(client: Client, config: RunConfig) -> None:
    assert leased(client).item == WorkItem(0, ItemKind.INIT, 0, 0, 0, 0, 0)


def test_a_lease_asked_for_twice_is_the_same_lease(raw: Raw, config: RunConfig) -> None:
    joined = raw.join(config)
    request = meta_model_pb2.LeaseRequest(
        worker_id=joined.worker_id, epoch=joined.epoch, request_id="once", wait_s=1
    )

    first, second = raw.meta.Lease(request), raw.meta.Lease(request)

    assert first.answer == meta_model_pb2.LEASE_ANSWER_WORK
    assert first.lease.token == second.lease.token


def test_an_actor_without_work_is_told_to_wait(raw: Raw, config: RunConfig) -> None:
    joined = raw.join(config)
    requests = [
        meta_model_pb2.LeaseRequest(
            worker_id=joined.worker_id, epoch=joined.epoch, request_id=name, wait_s=wait_s
        )
        for name, wait_s in (("takes", 1), ("waits", 0), ("counts", float("nan")))
    ]

    answers = [raw.meta.Lease(request, timeout=CALL_S).answer for request in requests]

    wait = meta_model_pb2.LEASE_ANSWER_WAIT
    assert answers == [meta_model_pb2.LEASE_ANSWER_WORK, wait, wait]
