"""Which answers a commit combines, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dmaml.common.items import VOID, ItemKind, Outcome
from dmaml.server.core.actions import Commit, Head, in_slot_order
from dmaml.server.core.modes import Batch
from dmaml.server.core.progress import Progress
from dmaml.server.core.round import Round


def commit_of(
    batch: Batch,
    rounds: Mapping[int, Round],
    merged: Sequence[tuple[Head, Outcome]],
    progress: Progress,
    is_of_one_round: bool,
) -> Commit:
    """Return the commit of a batch's answers.

    Args:
        rounds: those in progress, by their numbers.
        merged: late answers of earlier rounds that go with it (TRAIN only).
        progress: before it.
        is_of_one_round: the batch has a single round's items, which are in order as they are.
    """
    entries = [rounds[item.round].items[item] for item in batch.items]
    heads = [entry.head for entry in entries if entry.head is not None]
    voids = {head.item for head, one in zip(heads, entries, strict=True) if one.outcome in VOID}
    voids |= {head.item for head, outcome in merged if outcome in VOID}
    if batch.kind is ItemKind.TRAIN and (merged or not is_of_one_round):
        heads = in_slot_order(heads + [head for head, _ in merged])
    answered = [entry.answered_at for entry in entries]
    return Commit(
        number=progress.commits,
        kind=batch.kind,
        index=batch.items[0].index,
        version=progress.version,
        heads=tuple(heads),
        voids=frozenset(voids),
        staleness=tuple(progress.version - head.item.base_version for head in heads),
        opened_at=batch.opened_at,
        first_answer_at=min(answered),
        last_answer_at=max(answered),
        gamma_version=batch.items[0].gamma_version,
    )
