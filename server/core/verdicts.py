"""What an answer or an actor is judged by: pure functions of what it says and where the run is."""

from __future__ import annotations

import math
from typing import NamedTuple

from dmaml.common.config import RunConfig
from dmaml.common.errors import FingerprintMismatchError
from dmaml.common.items import OVER, ItemKind, Outcome, RunState, train_tasks
from dmaml.server.core.actions import Head, Verdict
from dmaml.server.core.late import Late
from dmaml.server.core.membership import Hello, Session
from dmaml.server.core.memory import Memory
from dmaml.server.core.round import Census, OpenItem


def require_same_numerics(config: RunConfig, memory: Memory, hello: Hello) -> None:
    """Raise unless an actor gives the same bits as the one that did INIT.

    Raises:
        FingerprintMismatchError: other data, or other numerics and `run.hardware` is same.
    """
    if not memory.data_digest:
        return
    if hello.data_digest != memory.data_digest:
        raise FingerprintMismatchError(
            f"refused: the actor's data have digest {hello.data_digest[:12]!r}, the run's "
            f"{memory.data_digest[:12]!r}. Give every machine the same data files."
        )
    ours, theirs = memory.fingerprint, hello.fingerprint
    names = [n for n in sorted({*ours, *theirs}) if ours.get(n) != theirs.get(n)]
    if names and config.run.hardware == "same":
        found = "; ".join(f"{n}: {theirs.get(n)!r}, not {ours.get(n)!r}" for n in names)
        raise FingerprintMismatchError(
            f"refused: the actor's numerics differ from the run's ({found}). Use like "
            "machines and versions, or set run.hardware to mixed and give up reproducibility."
        )


class Standing(NamedTuple):
    """Where the run is when an answer comes.

    Attributes:
        epoch: of the server.
        state: of the run.
        round: the first that is not closed.
        durable_round: rounds that are in a durable checkpoint.
        version: TRAIN commits, those that are being made included.
        num_elements: size of the run's flat buffer.
        may_sit_out: whether a TRAIN answer may hold nothing, for γ leaves too few units.
    """

    epoch: int
    state: RunState
    round: int
    durable_round: int
    version: int
    num_elements: int
    may_sit_out: bool


def judge(
    config: RunConfig,
    standing: Standing,
    head: Head,
    entry: OpenItem | None,
    session: Session | None,
    late: Late,
) -> Verdict | None:
    """Return the refusal (or first outcome) that an answer's header alone decides, or None.

    Args:
        entry: of its item, where it is open or late.
        session: of its actor, where there is one.
        late: the items that rounds closed without.
    """
    item = head.item
    if head.token.epoch != standing.epoch:
        return Verdict(
            Outcome.STALE_EPOCH,
            f"push refused: lease of epoch {head.token.epoch}, the server is at {standing.epoch}: "
            "it restarted. Join again and push again.",
        )
    last = session.last if session is not None else None
    if last is not None and last.item == item:
        outcome = last.outcome
        is_durable = item.round < standing.durable_round and not last.is_merged
        if outcome is Outcome.BUFFERED and is_durable:
            outcome = Outcome.COMMITTED
        return Verdict(outcome, f"{item}: answered before by the same actor.")
    is_closed = entry is None and item.round < standing.round
    if is_closed or (entry is not None and entry.outcome is not None):
        return Verdict(Outcome.DUPLICATE, f"{item}: answered before. Nothing to do.")
    if standing.state in OVER:
        return Verdict(Outcome.PAUSED, f"push refused: the run is {standing.state.name}.")
    lease = entry.leases.get(head.token.counter) if entry is not None else None
    if session is None or (lease is not None and lease.worker_id != head.worker_id):
        lease = None
    if (too_late := late.judge(item, lease, standing.version)) is not None:
        return too_late
    if lease is None:
        return Verdict(
            Outcome.STALE_LEASE,
            f"push refused: lease {head.token.counter} on {item} ended or never was. "
            "Ask for a new one.",
        )
    if head.base_digest != lease.base_digest and item.kind is not ItemKind.INIT:
        return Verdict(
            Outcome.STALE_BASE,
            f"push refused: computed from parameters {head.base_digest[:12]!r}, {item} asks "
            f"for version {lease.item.base_version} with {lease.base_digest[:12]!r}. Pull and "
            "recompute.",
        )
    if item.gamma_version != lease.item.gamma_version:
        return Verdict(
            Outcome.STALE_BASE,
            f"push refused: computed by γ version {item.gamma_version}, {item} asks for "
            f"{lease.item.gamma_version}. Ask for a new lease.",
        )
    return judge_sizes(config, standing.num_elements, head, standing.may_sit_out)


def judge_sizes(
    config: RunConfig, num_elements: int, head: Head, may_sit_out: bool = False
) -> Verdict | None:
    """Return the refusal of an answer whose sizes are not the run's, or None.

    Args:
        num_elements: size of the run's flat buffer.
        may_sit_out: whether a TRAIN answer may hold nothing, for γ leaves too few units.
    """
    kind, limits = head.item.kind, config.server
    if kind is ItemKind.INIT:
        needed = 4 * head.num_elements
        if needed > limits.max_model_bytes:
            return Verdict(
                Outcome.QUOTA,
                f"push refused: the model has {needed} bytes, server.max_model_bytes is "
                f"{limits.max_model_bytes}. Raise it or take a smaller model.",
            )
        return None
    if kind is ItemKind.PROBE:
        return _judge_observation(config, head)
    if may_sit_out and kind is ItemKind.TRAIN and head.num_tasks == head.num_elements == 0:
        return None
    if kind in (ItemKind.TRAIN, ItemKind.EVALUATE) and head.num_tasks < 1:
        return Verdict(
            Outcome.SHAPE,
            f"push refused: num_tasks {head.num_tasks} for {head.item}, required 1 or more.",
        )
    expected = num_elements if kind is ItemKind.TRAIN else 0
    if head.num_elements != expected:
        return Verdict(
            Outcome.SHAPE,
            f"push refused: {head.num_elements} values for {head.item}, required {expected}. "
            "The model differs from the run's.",
        )
    return None


def _judge_observation(config: RunConfig, head: Head) -> Verdict | None:
    """Return the refusal of an observation that is beyond its share of the memory, or None."""
    num_items = config.topology.slots * config.topology.parts
    needed, limit = 4 * head.num_elements, config.server.max_inflight_bytes // num_items
    if needed <= limit:
        return None
    return Verdict(
        Outcome.QUOTA,
        f"push refused: the observation of {head.item} has {needed} bytes, its share of "
        f"server.max_inflight_bytes is {limit}. Raise that, or ask for fewer "
        "samples, episodes (split_visits) or dims.",
    )


def outcome_of(config: RunConfig, head: Head, is_finite: bool) -> Outcome:
    """Return BUFFERED, or why the answer is void: NaN, infinity, or a norm beyond the limit."""
    if head.item.kind not in (ItemKind.TRAIN, ItemKind.INIT):
        return Outcome.BUFFERED
    if not (is_finite and math.isfinite(head.loss) and math.isfinite(head.norm)):
        return Outcome.NON_FINITE
    if head.item.kind is ItemKind.INIT:
        return Outcome.BUFFERED
    limit = config.aggregation.max_norm
    return Outcome.NORM if limit is not None and head.norm > limit else Outcome.BUFFERED


def void_sentence(config: RunConfig, head: Head, outcome: Outcome) -> str:
    """Say why a TRAIN answer is void, and with which tasks."""
    tasks = train_tasks(config, head.item)
    if outcome is Outcome.NORM:
        cause = f"its norm {head.norm:g} exceeds {config.aggregation.max_norm:g}"
    else:
        cause = "it holds NaN or infinity"
    return f"{head.item} is void: {cause} (tasks {tasks.start} to {tasks.stop - 1})."


def void_round_sentence(
    config: RunConfig, number: int, pipeline: int, census: Census, needed: int
) -> str:
    """Say why a round pauses the run, and what can be done.

    Args:
        needed: contributions that the aggregation rule needs beside the void ones.
    """
    if census.alive == 0:
        cause = (
            f"every contribution to pipeline {pipeline} was void when the round was to close (NaN, "
            "infinity or too large)"
        )
        others = ""
    else:
        cause = (
            f"{census.void} of {census.alive + census.void} contributions to pipeline {pipeline} "
            f"were void when it was to close (NaN, infinity or too large); beside them "
            f"aggregation.name {config.aggregation.name!r} needs {needed}, found {census.alive}"
        )
        others = ", or take another aggregation rule,"
    return (
        f"round {number}: {cause}. Lower algorithm.inner_lr or outer.lr{others} and start a new "
        "run, or resume to compute the round once more."
    )
