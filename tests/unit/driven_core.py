"""The core with a hand on its clock: tests feed events, the world's answers are immediate."""

from __future__ import annotations

import itertools
from typing import Any

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem
from dmaml.server.core.actions import (
    Action,
    Commit,
    Done,
    Grant,
    Head,
    Note,
    Save,
    Verdict,
    Wait,
    Wake,
)
from dmaml.server.core.membership import Hello
from dmaml.server.core.memory import Memory
from dmaml.server.core.rounds import Core

NUM_ELEMENTS = 3
Answered = Grant | Wait | Done


def config_of(**sections: dict[str, Any]) -> RunConfig:
    """Return a small configuration: two slots, three rounds, no validation."""
    values: dict[str, dict[str, Any]] = {
        "run": {"rounds": 3},
        "topology": {"slots": 2},
        "evaluation": {"every": 0},
        "server": {"session_s": 10.0, "item_timeout_s": 20.0, "max_workers": 8},
    }
    for name, keys in sections.items():
        values[name] = values.get(name, {}) | keys
    return configuration.from_mapping(values)


class DrivenCore:
    """A `Core` whose commits and checkpoints tests may hold back.

    Args:
        is_committing, is_saving: whether commits and checkpoints succeed at once.
        plug_ins: what else the core takes, such as `num_required`.
    """

    def __init__(
        self,
        config: RunConfig | None = None,
        memory: Memory | None = None,
        epoch: int = 1,
        is_committing: bool = True,
        is_saving: bool = True,
        tag: str = "",
        **plug_ins: Any,
    ) -> None:
        self.config = config or config_of()
        self.core = Core(self.config, epoch, memory, tag=tag, **plug_ins)
        self.now = 100.0
        self.is_committing = is_committing
        self.is_saving = is_saving
        self.answers: dict[tuple[str, str], Answered] = {}
        self.commits: list[Commit] = []
        self.saves: list[Save] = []
        self.notes: list[Note] = []
        self.wakes: list[float] = []
        self.unsettled: list[Commit | Save] = []
        self._request_ids = itertools.count(1)
        self.core.start(self.now)
        self._settle()

    # -- events --------------------------------------------------------------------------------

    def hello(self, name: str = "actor-a", **fields: Any) -> Hello:
        """Return what an actor of this run says of itself."""
        values = {"identity": self.core.identity, "data_digest": "data", **fields}
        return Hello(name, **values)

    def join(self, name: str = "actor-a", **fields: Any) -> str:
        """Return the worker id of an actor that joins."""
        session = self.core.join(self.now, self.hello(name, **fields))
        self._settle()
        return session.worker_id

    def ask(
        self,
        worker_id: str,
        request_id: str | None = None,
        held: tuple[WorkItem, ...] = (),
        wait_s: float = 30.0,
    ) -> Answered | None:
        """Return the answer to a Lease call, or None while it waits."""
        request_id = request_id or f"request-{next(self._request_ids)}"
        self.answers.pop((worker_id, request_id), None)
        self.core.ask(self.now, worker_id, self.core.epoch, request_id, wait_s, held)
        self._settle()
        return self.answers.get((worker_id, request_id))

    def lease(self, worker_id: str, **fields: Any) -> Grant:
        """Return the lease that an actor is granted at once."""
        answer = self.ask(worker_id, **fields)
        assert isinstance(answer, Grant), answer
        return answer

    def push(self, grant: Grant, is_finite: bool = True, **fields: Any) -> Verdict:
        """Return what becomes of the answer to a lease."""
        verdict = self.core.deliver(self.now, head_of(grant, **fields), is_finite)
        self._settle()
        return verdict

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass."""
        self.now += seconds
        self.core.tick(self.now)
        self._settle()

    def renew(self, *worker_ids: str) -> None:
        """Keep actors alive."""
        for worker_id in worker_ids:
            self.core.renew(self.now, worker_id, self.core.epoch)

    def pass_time(self, seconds: float, *alive: str) -> None:
        """Let time pass in steps that are shorter than a session, some actors renewing."""
        for _ in range(int(seconds // 5)):
            self.tick(5.0)
            self.renew(*alive)
        self.tick(seconds % 5)

    def do(self, event: str, *arguments: Any) -> None:
        """Feed an operator's event: pause, resume, drain, fail, leave."""
        getattr(self.core, event)(self.now, *arguments)
        self._settle()

    def settle(self) -> None:
        """Let everything that was held back succeed."""
        while self.unsettled:
            action = self.unsettled.pop(0)
            if isinstance(action, Commit):
                self.finish(action)
            else:
                self.core.saved(self.now, action.progress)
            self._settle()

    def finish(self, commit: Commit) -> None:
        """Tell the core that a commit is done."""
        num_tasks = sum(h.num_tasks for h in commit.heads if h.item not in commit.voids)
        size = NUM_ELEMENTS if commit.kind is ItemKind.INIT else None
        digests = {0: f"theta after commit {commit.number}"}
        self.core.committed(self.now, commit.number, digests, num_tasks, size)

    # -- courses -------------------------------------------------------------------------------

    def initialise(self, name: str = "actor-a", **fields: Any) -> str:
        """Return the worker id of the actor that did INIT."""
        worker_id = self.join(name, **fields)
        grant = self.lease(worker_id)
        assert grant.lease.item.kind is ItemKind.INIT
        self.push(grant)
        return worker_id

    def work(self, worker_id: str) -> Verdict:
        """Do one item as it should be done."""
        return self.push(self.lease(worker_id))

    def events(self, name: str) -> list[Note]:
        """Return the notes of one event."""
        return [note for note in self.notes if note.event == name]

    def _settle(self) -> None:
        actions: list[Action] = self.core.take_actions()
        for action in actions:
            match action:
                case Grant():
                    self.answers[action.lease.worker_id, action.lease.request_id] = action
                case Wait() | Done():
                    self.answers[action.worker_id, action.request_id] = action
                case Note():
                    self.notes.append(action)
                case Wake():
                    self.wakes.append(action.at)
                case Commit():
                    self.commits.append(action)
                    if self.is_committing:
                        self.finish(action)
                    else:
                        self.unsettled.append(action)
                case Save():
                    self.saves.append(action)
                    if self.is_saving:
                        self.core.saved(self.now, action.progress)
                    else:
                        self.unsettled.append(action)
        if actions:
            self._settle()


def head_of(grant: Grant, **fields: Any) -> Head:
    """Return a good answer to a lease, with some fields changed."""
    lease, kind = grant.lease, grant.lease.item.kind
    num_elements = NUM_ELEMENTS if kind in (ItemKind.INIT, ItemKind.TRAIN) else 0
    head = Head(
        lease.worker_id,
        lease.item,
        lease.token,
        base_digest=lease.base_digest,
        loss=0.5,
        norm=1.0,
        num_tasks=0 if kind is ItemKind.INIT else 8,
        num_elements=num_elements,
    )
    return head._replace(**fields)


def running(**options: Any) -> tuple[DrivenCore, str, str]:
    """Return a run after INIT with two actors."""
    run = DrivenCore(**options)
    a = run.initialise()
    return run, a, run.join("actor-b")


def started(
    num_actors: int, topology: dict[str, int] | None = None, **sections: Any
) -> tuple[DrivenCore, list[str]]:
    """Return a run after INIT, of 5 slots where none are given, and its actors."""
    run = DrivenCore(config_of(topology=topology or {"slots": 5}, **sections))
    actors = [run.initialise("actor-0")]
    return run, actors + [run.join(f"actor-{n}") for n in range(1, num_actors)]


def quorum(num_actors: int = 5, **sync: Any) -> tuple[DrivenCore, list[str], list[Grant]]:
    """Return a run of 5 slots, 3 of which suffice, whose actors have an item each."""
    keys = {"mode": "quorum", "quorum": 3, **sync}
    run, actors = started(num_actors, sync=keys, run={"rounds": 9})
    return run, actors, [run.lease(actor) for actor in actors]


def windowed(num_actors: int = 2, **sync: Any) -> tuple[DrivenCore, list[str]]:
    """Return an async run of 2 slots and a window of 2 rounds."""
    keys = {"mode": "async", "window": 2, **sync}
    return started(num_actors, {"slots": 2}, sync=keys, run={"rounds": 9})
