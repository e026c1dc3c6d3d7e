"""Random schedules of crashes, slowness, lost replies and restarts, and a checker of the history.

The meta-model is a hash chain: θ after a commit is the hash of θ before it and of the answers in
the order of the commit. So two runs with equal θ applied the same answers in the same order.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

import pytest

from dmaml.common.errors import SessionLostError
from dmaml.common.items import TAKEN, ItemKind, Outcome, RunState, WorkItem
from dmaml.server.core.actions import Commit, Done, Grant, Head, Save
from dmaml.server.core.membership import Hello
from dmaml.server.core.memory import Memory
from dmaml.server.core.rounds import Core
from tests.unit.driven_core import NUM_ELEMENTS, config_of

CONFIG = config_of(
    run={"rounds": 8},
    topology={"slots": 3, "parts": 2},
    evaluation={"every": 3, "tasks": 4},
    server={"session_s": 4.0, "item_timeout_s": 3.0, "max_workers": 64},
)


def value_of(item: WorkItem, theta: str) -> str:
    """Return the answer to an item: a pure function of it and of the parameters."""
    return hashlib.sha256(f"{item} {item.index} {theta}".encode()).hexdigest()


@dataclass
class World:
    """A server that may be killed: what is on its disk, and what its clients were told."""

    rng: random.Random
    loss: float
    disk: tuple[Memory, str, list[WorkItem]] = field(default_factory=lambda: (Memory(), "", []))
    epoch: int = 0
    now: float = 0.0
    acknowledged: set[WorkItem] = field(default_factory=set)
    versions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start from the disk; what was not durable is lost."""
        self.epoch += 1
        memory, self.theta, applied = self.disk
        self.applied = list(applied)
        self.answers: dict[WorkItem, str] = {}
        self.queue: list[Commit | Save] = []
        self.granted: dict[str, Grant | Done] = {}
        self.states: dict[int, tuple[Memory, str, list[WorkItem]]] = {}
        self.core = Core(CONFIG, self.epoch, memory)
        self.core.start(self.now)
        self.collect()

    def collect(self) -> None:
        """Sort what the core asks for."""
        for action in self.core.take_actions():
            if isinstance(action, Commit):
                self.queue.append(action)
            elif isinstance(action, Save):
                self.states[action.round] = (self.core.memory, self.theta, list(self.applied))
                self.queue.append(action)
            elif isinstance(action, Grant):
                self.granted[action.lease.worker_id] = action
            elif isinstance(action, Done):
                self.granted[action.worker_id] = action

    def advance(self) -> None:
        """Finish the oldest commit or checkpoint; a checkpoint may be skipped if it may."""
        if not self.queue:
            return
        action = self.queue.pop(0)
        if isinstance(action, Save):
            if action.must or self.rng.random() < 0.5:
                self.disk = self.states[action.round]
                self.core.saved(self.now, action.round)
        else:
            self.commit(action)
        self.collect()

    def commit(self, commit: Commit) -> None:
        """Apply a round's answers to θ."""
        text = "".join(self.answers[head.item] for head in commit.heads)
        if commit.kind is not ItemKind.EVALUATE:
            self.theta = hashlib.sha256((self.theta + text).encode()).hexdigest()
        if commit.kind is ItemKind.TRAIN:
            self.applied += [head.item for head in commit.heads]
            assert self.versions.append(commit.base_version) is None
        size = NUM_ELEMENTS if commit.kind is ItemKind.INIT else None
        self.core.committed(self.now, commit.round, {0: self.theta}, 8, size)

    def push(self, head: Head, theta: str) -> Outcome:
        """Take an answer; note what its sender was told."""
        is_fresh = self.core.judge(head) is None
        if is_fresh:
            self.answers[head.item] = value_of(head.item, theta)
        outcome = self.core.deliver(self.now, head).outcome
        self.collect()
        return outcome


@dataclass
class Actor:
    """A virtual actor that does what a real one does, badly."""

    name: str
    world: World
    worker_id: str = ""
    epoch: int = 0
    num_requests: int = 0
    grant: Grant | None = None
    computed: Head | None = None
    is_done: bool = False

    def step(self) -> None:
        """Do one thing: join, renew, ask, compute or push; any reply may be lost."""
        world, rng = self.world, self.world.rng
        try:
            if not self.worker_id:
                self.join()
            elif rng.random() < 0.2:
                world.core.renew(world.now, self.worker_id, self.epoch)
            elif self.grant is None:
                self.ask()
            elif self.computed is None:
                self.compute()
            else:
                self.push()
        except SessionLostError:
            self.worker_id = ""

    def join(self) -> None:
        world = self.world
        held = (self.computed.item,) if self.computed is not None else ()
        hello = Hello(self.name, world.core.identity, data_digest="data", held=held)
        session = world.core.join(world.now, hello)
        world.collect()
        if world.rng.random() >= world.loss:
            self.worker_id, self.epoch = session.worker_id, world.core.epoch
            self.grant = None

    def ask(self) -> None:
        world = self.world
        held = (self.computed.item,) if self.computed is not None else ()
        request_id = f"{self.name}-{self.num_requests}"
        answer = world.granted.pop(self.worker_id, None)
        if answer is None:
            world.core.ask(world.now, self.worker_id, self.epoch, request_id, 2.0, held)
            world.collect()
            answer = world.granted.pop(self.worker_id, None)
        if answer is None or world.rng.random() < world.loss:
            return
        self.num_requests += 1
        if isinstance(answer, Done):
            self.is_done = True
            return
        self.grant = answer
        if self.computed is not None and self.computed.item != answer.lease.item:
            self.computed = None

    def compute(self) -> None:
        lease, kind = self.grant.lease, self.grant.lease.item.kind
        size = 0 if kind is ItemKind.EVALUATE else NUM_ELEMENTS
        self.computed = Head(
            self.worker_id, lease.item, lease.token, self.grant.base_digest,
            num_tasks=4, num_elements=size,
        )  # fmt: skip

    def push(self) -> None:
        grant, item = self.grant, self.computed.item
        head = Head(
            self.worker_id, item, grant.lease.token, grant.base_digest,
            num_tasks=4, num_elements=self.computed.num_elements,
        )  # fmt: skip
        outcome = self.world.push(head, grant.base_digest)
        if self.world.rng.random() < self.world.loss:
            return
        if outcome is Outcome.COMMITTED:
            self.world.acknowledged.add(item)
        if outcome is Outcome.STALE_EPOCH:
            self.worker_id, self.grant = "", None
            return
        if outcome in TAKEN and self.world.rng.random() < 0.3:
            return  # says it once more
        self.grant = self.computed = None


def play(num_actors: int, seed: int, is_rough: bool = True) -> World:
    """Run to the end under a random schedule and return the world."""
    rng = random.Random(seed)
    world = World(rng, loss=0.15 if is_rough else 0.0)
    actors = [Actor(f"actor-{n}", world) for n in range(num_actors)]
    births = num_actors
    for _ in range(20_000):
        world.now += rng.random() * 0.3
        chance = rng.random()
        if is_rough and chance < 0.004:
            world.restart()
        elif is_rough and chance < 0.02:
            actors[rng.randrange(num_actors)] = Actor(f"actor-{births}", world)
            births += 1
        elif chance < 0.3:
            world.advance()
        elif chance < 0.4:
            world.core.tick(world.now)
            world.collect()
        else:
            rng.choice(actors).step()
        if world.core.state is RunState.FINISHED:
            return world
    raise AssertionError(f"the run hangs: {world.core.progress}, {world.core.state}")


def expected() -> tuple[str, list[WorkItem]]:
    """Return θ and the applied items of one actor that never fails."""
    world = play(1, seed=0, is_rough=False)
    return world.theta, world.applied


@pytest.mark.parametrize("num_actors", [1, 2, 3, 5])
def test_history_is_the_same_for_any_number_of_actors_and_any_schedule(num_actors):
    theta, items = expected()
    restarts = 0

    for seed in range(40):
        world = play(num_actors, seed)
        restarts += world.epoch - 1

        assert world.applied == items
        assert world.theta == theta
        assert world.acknowledged <= {*items, *all_items(world)}
        assert world.core.durable_round == world.core.progress.round

    assert restarts > 0


def all_items(world: World) -> set[WorkItem]:
    """Return the items of INIT and EVALUATE, which change no version."""
    return {item for item in world.acknowledged if item.kind is not ItemKind.TRAIN}


def test_every_item_of_every_version_is_applied_exactly_once():
    world = play(4, seed=3)

    versions = [item.base_version for item in world.applied]

    assert len(world.applied) == len(set(world.applied)) == 8 * 3 * 2
    assert versions == sorted(versions)
    assert set(versions) == set(range(8))


def test_acknowledged_item_survives_every_restart():
    for seed in range(12):
        rng = random.Random(seed)
        world = World(rng, loss=0.1)
        actors = [Actor(f"actor-{n}", world) for n in range(3)]
        for _ in range(600):
            world.now += rng.random() * 0.2
            rng.choice(actors).step()
            world.advance()
            durable = set(world.disk[2])
            told = {item for item in world.acknowledged if item.kind is ItemKind.TRAIN}
            assert told <= durable


def test_versions_have_no_gap_and_go_back_only_at_a_restart():
    world = play(3, seed=7)

    steps = [b - a for a, b in zip(world.versions, world.versions[1:], strict=False)]

    assert max(steps) == 1
    assert sum(step < 1 for step in steps) <= world.epoch - 1
    assert world.versions[-1] == 7
