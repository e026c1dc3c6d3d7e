"""What the core asks of the world around it.

What goes with every answer is a named tuple: that is made in a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from dmaml.common.items import ItemKind, Outcome, Token, WorkItem
from dmaml.server.core.membership import Lease
from dmaml.server.core.progress import Progress

NONE: Final[Mapping[str, float]] = MappingProxyType({})


class Head(NamedTuple):
    """What an actor says about its answer before, or without, the payload.

    Attributes:
        loss: mean query loss after adaptation.
        norm: Euclidean norm of the gradient, float64.
        metrics: means over the item's tasks.
        num_elements: values in the payload.
        num_bytes: bytes of the payload as it travels.
        schema_hash: of the layout (INIT only).
    """

    worker_id: str
    item: WorkItem
    token: Token
    base_digest: str = ""
    loss: float = 0.0
    norm: float = 0.0
    num_tasks: int = 0
    num_elements: int = 0
    num_bytes: int = 0
    schema_hash: str = ""
    metrics: Mapping[str, float] = NONE
    timings: Mapping[str, float] = NONE


class Verdict(NamedTuple):
    """An outcome and the sentence that goes with it."""

    outcome: Outcome
    message: str = ""


class Grant(NamedTuple):
    """Answer a waiting Lease call with a lease.

    Attributes:
        available_at: when this call could first have had the item, on the core's clock: the later
            of the call and the item's becoming free for this actor.
    """

    lease: Lease
    hint: WorkItem | None
    available_at: float


@dataclass(frozen=True)
class Wait:
    """Answer a waiting Lease call: nothing yet."""

    worker_id: str
    request_id: str


@dataclass(frozen=True)
class Done:
    """Answer a waiting Lease call: the run is over."""

    worker_id: str
    request_id: str


@dataclass(frozen=True)
class Commit:
    """Combine answers, in the order given, and come back with `Core.committed`.

    Attributes:
        number: commits of every kind before it.
        kind: of its items.
        index: number of its round among those of its kind; the first one's where it has several.
        version: TRAIN commits before it.
        heads: the answers in pipeline, slot, round, part order: a slot may be there once for each
            round, in quorum mode where late answers are merged and in async mode.
        voids: the items among them that count nothing.
        staleness: TRAIN commits since the parameters that each was computed from, `[heads]`.
        opened_at, first_answer_at, last_answer_at: on the core's clock.
        gamma_version: of the γ that its items were routed by.
    """

    number: int
    kind: ItemKind
    index: int
    version: int
    heads: tuple[Head, ...]
    voids: frozenset[WorkItem]
    staleness: tuple[int, ...]
    opened_at: float
    first_answer_at: float
    last_answer_at: float
    gamma_version: int = 0

    @property
    def has_moved(self) -> bool:
        """Whether it moves the parameters: a TRAIN answer counts."""
        return self.kind is ItemKind.TRAIN and any(
            head.num_tasks and head.item not in self.voids for head in self.heads
        )


class Save(NamedTuple):
    """Write a checkpoint of the state of now and come back with `Core.saved`.

    Attributes:
        progress: of that state.
        must: the run waits for it; otherwise it may be skipped in favour of a later one.
    """

    progress: Progress
    must: bool


@dataclass(frozen=True)
class Wake:
    """Come back with `Core.tick` at a time, on the core's clock."""

    at: float


@dataclass(frozen=True)
class Note:
    """Write a line of the log and count it.

    Attributes:
        event: a word of a closed set (`joined`, `left`, `lost`, `lease_expired`, `refused`, ...).
        is_warning: whether a person should look.
        worker_id: whom it is about, or "".
    """

    event: str
    message: str
    is_warning: bool = False
    worker_id: str = ""
    outcome: Outcome | None = None


def in_slot_order(heads: Iterable[Head]) -> list[Head]:
    """Return answers in pipeline, slot, round, part order."""
    return sorted(heads, key=_place)


def _place(head: Head) -> tuple[int, int, int, int]:
    item = head.item
    return item.pipeline, item.slot, item.round, item.part


Action = Grant | Wait | Done | Commit | Save | Wake | Note
