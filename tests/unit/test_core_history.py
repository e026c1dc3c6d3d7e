"""Random schedules of crashes, slowness, lost replies and restarts, and a checker of the history.

The meta-model is a hash chain: θ after a commit is the hash of θ before it and of the answers in
the order of the commit. So two runs with equal θ applied the same answers in the same order.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

import pytest

from dmaml.common.config import RunConfig
from dmaml.common.errors import SessionLostError
from dmaml.common.items import TAKEN, ItemKind, Outcome, RunState, Token, WorkItem
from dmaml.server.core.actions import Commit, Done, Grant, Head, Save
from dmaml.server.core.membership import Hello
from dmaml.server.core.memory import Memory
from dmaml.server.core.rounds import Core
from tests.unit.driven_core import NUM_ELEMENTS, config_of

NUM_ROUNDS = 8


def config_with(topology: dict[str, int], speculation: bool = False, **sync: object) -> RunConfig:
    return config_of(
        run={"rounds": NUM_ROUNDS},
        topology=topology,
        sync=sync,
        evaluation={"every": 3, "tasks": 4},
        server={
            "session_s": 4.0,
            "item_timeout_s": 3.0,
            "max_workers": 64,
            "speculation": speculation,
        },
    )


CONFIG = config_with({"slots": 3, "parts": 2})
SPECULATIVE = config_with({"slots": 3, "parts": 2}, speculation=True)
SLOTS = {"slots": 5}
REFUSING = config_with(SLOTS, mode="quorum", quorum=3, grace_s=0.4)
MERGING = config_with(SLOTS, mode="quorum", quorum=3, grace_s=0.4, late="merge", max_staleness=3)
ASYNC = config_with(SLOTS, mode="async", window=3)
BATCHED = config_with(SLOTS, mode="async", window=2, async_batch=3, max_staleness=4)


def value_of(item: WorkItem, theta: str) -> str:
    """Return the answer to an item: a pure function of it and of the parameters."""
    return hashlib.sha256(f"{item} {item.index} {theta}".encode()).hexdigest()


@dataclass
class World:
    """A server that may be killed: what is on its disk, and what its clients were told.

    Args:
        loss: chance that a reply is lost.
        void: chance that an answer is NaN.
    """

    rng: random.Random
    loss: float
    config: RunConfig = CONFIG
    void: float = 0.0
    disk: tuple[Memory, str, list[WorkItem]] = field(default_factory=lambda: (Memory(), "", []))
    epoch: int = 0
    now: float = 0.0
    acknowledged: set[WorkItem] = field(default_factory=set)
    versions: list[int] = field(default_factory=list)
    tokens: set[Token] = field(default_factory=set)
    num_voids: int = 0

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
        self.thetas = {memory.progress.version: self.theta}
        self.core = Core(self.config, self.epoch, memory)
        self.core.start(self.now)
        self.collect()

    def collect(self) -> None:
        """Sort what the core asks for."""
        for action in self.core.take_actions():
            if isinstance(action, Commit):
                self.queue.append(action)
            elif isinstance(action, Save):
                state = (self.core.remember(), self.theta, list(self.applied))
                self.states[action.progress.commits] = state
                self.queue.append(action)
            elif isinstance(action, Grant):
                self.check(action)
                self.tokens.add(action.lease.token)
                self.granted[action.lease.worker_id] = action
            elif isinstance(action, Done):
                self.granted[action.worker_id] = action

    def check(self, grant: Grant) -> None:
        """Assert that a lease names the parameters of its version, and durable ones if need be."""
        item = grant.lease.item
        if item.kind is ItemKind.INIT:
            return
        assert grant.lease.base_digest == self.thetas[item.base_version]
        if self.core.is_durable_first:
            assert item.base_version <= self.disk[0].progress.version

    def advance(self) -> None:
        """Finish the oldest commit or checkpoint; a checkpoint may be skipped if it may."""
        if not self.queue:
            return
        action = self.queue.pop(0)
        if isinstance(action, Save):
            if action.must or self.rng.random() < 0.5:
                self.disk = self.states[action.progress.commits]
                self.core.saved(self.now, action.progress)
        else:
            self.commit(action)
        self.collect()

    def commit(self, commit: Commit) -> None:
        """Apply answers to θ."""
        assert len(commit.staleness) == len(commit.heads)
        for head, staleness in zip(commit.heads, commit.staleness, strict=True):
            assert staleness == commit.version - head.item.base_version >= 0
            assert head.base_digest == self.thetas.get(head.item.base_version, head.base_digest)
        places = [(h.item.pipeline, h.item.slot, h.item.round, h.item.part) for h in commit.heads]
        assert places == sorted(set(places))
        items = [head.item for head in commit.heads if head.item not in commit.voids]
        self.num_voids += len(commit.heads) - len(items)
        if items and commit.kind is not ItemKind.EVALUATE:
            text = "".join(self.answers[item] for item in items)
            self.theta = hashlib.sha256((self.theta + text).encode()).hexdigest()
        is_version = bool(items) and commit.kind is ItemKind.TRAIN
        if is_version:
            self.applied += items
            self.versions.append(commit.version)
        self.thetas[commit.version + is_version] = self.theta
        size = NUM_ELEMENTS if commit.kind is ItemKind.INIT else None
        self.core.committed(self.now, commit.number, {0: self.theta}, 8, size)

    def push(self, head: Head, theta: str) -> Outcome:
        """Take an answer; note what its sender was told."""
        is_fresh = self.core.judge(head) is None
        if is_fresh:
            self.answers[head.item] = value_of(head.item, theta)
        is_void = self.void > 0 and head.item.kind is not ItemKind.INIT
        is_finite = not (is_void and self.rng.random() < self.void)
        outcome = self.core.deliver(self.now, head, is_finite).outcome
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
            self.worker_id, lease.item, lease.token, lease.base_digest,
            num_tasks=4, num_elements=size,
        )  # fmt: skip

    def push(self) -> None:
        grant, item = self.grant, self.computed.item
        head = Head(
            self.worker_id, item, grant.lease.token, grant.lease.base_digest,
            num_tasks=4, num_elements=self.computed.num_elements,
        )  # fmt: skip
        outcome = self.world.push(head, grant.lease.base_digest)
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


def play(num_actors: int, seed: int, is_rough: bool = True, config: RunConfig = CONFIG) -> World:
    """Run to the end under a random schedule and return the world."""
    rng = random.Random(seed)
    world = World(rng, 0.15 if is_rough else 0.0, config)
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
@pytest.mark.parametrize("config", [CONFIG, SPECULATIVE], ids=["plain", "speculation"])
def test_history_is_the_same_for_any_number_of_actors_and_any_schedule(num_actors, config):
    theta, items = expected()
    restarts = 0

    for seed in range(40):
        world = play(num_actors, seed, config=config)
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


# -- quorum and async ------------------------------------------------------------------------------

MODES = {"refuse": REFUSING, "merge": MERGING, "async": ASYNC, "batched": BATCHED}


@pytest.mark.parametrize("num_actors", [1, 2, 5, 7])
@pytest.mark.parametrize("mode", list(MODES))
def test_acknowledged_answer_is_applied_exactly_once_in_every_mode(mode, num_actors):
    restarts = 0

    for seed in range(25):
        world = play(num_actors, seed, config=MODES[mode])
        restarts += world.epoch - 1

        assert len(world.applied) == len(set(world.applied))
        told = {item for item in world.acknowledged if item.kind is ItemKind.TRAIN}
        assert told <= set(world.applied)
        assert {item.index for item in world.applied} == set(range(NUM_ROUNDS))
        assert world.core.durable == world.core.progress
        assert world.core.progress.trained == NUM_ROUNDS

    assert restarts > 0


@pytest.mark.parametrize("mode", list(MODES))
def test_versions_have_no_gap_in_every_mode(mode):
    for seed in range(10):
        world = play(4, seed, config=MODES[mode])

        steps = [b - a for a, b in zip(world.versions, world.versions[1:], strict=False)]
        assert max(steps) == 1
        assert sum(step < 1 for step in steps) <= world.epoch - 1
        assert world.core.progress.version == world.versions[-1] + 1


@pytest.mark.parametrize("mode", ["async", "batched"])
def test_async_leaves_no_item_out(mode):
    for seed in range(10):
        world = play(4, seed, config=MODES[mode])

        places = {(item.index, item.slot) for item in world.applied}
        assert places == {(r, s) for r in range(NUM_ROUNDS) for s in range(5)}


@pytest.mark.parametrize("mode", ["refuse", "merge"])
def test_quorum_leaves_out_at_most_what_it_may(mode):
    left_out = 0
    for seed in range(20):
        world = play(5, seed, config=MODES[mode])

        for number in range(NUM_ROUNDS):
            slots = {item.slot for item in world.applied if item.index == number}
            left_out += 5 - len(slots)
            assert len(slots) >= 3

    assert left_out > 0


def test_async_commits_one_answer_each_and_a_batch_several():
    single = play(3, seed=1, is_rough=False, config=ASYNC)
    batched = play(3, seed=1, is_rough=False, config=BATCHED)

    assert single.core.progress.version == NUM_ROUNDS * 5
    assert NUM_ROUNDS * 5 / 3 <= batched.core.progress.version < NUM_ROUNDS * 5
