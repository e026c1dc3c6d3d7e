"""Random schedules in which an operator pauses, resumes and drains, and answers are NaN.

What is void is chance here, so θ is not the same in each; the laws of the history are.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from dmaml.common.items import ItemKind, RunState
from tests.unit.test_core_history import CONFIG, MODES, NUM_ROUNDS, Actor, World

CONFIGS = {"sync": CONFIG, **MODES}
NUM_SEEDS = 8
MAX_STEPS = 20_000


class Operator:
    """One who pauses, resumes and drains at random."""

    def __init__(self, world: World) -> None:
        self.done: Counter[str] = Counter()
        self._world = world

    def act(self) -> None:
        """Do one thing that the run's state allows; a drained run is started again."""
        world, core = self._world, self._world.core
        if core.state is RunState.FINISHED:
            self._do("restart", world.restart)
        elif core.state is RunState.PAUSED:
            self._do("resume", core.resume, world.now)
        elif core.state is RunState.RUNNING and world.rng.random() < 0.3:
            self._do("drain", core.drain, world.now, "")
        elif core.state is RunState.RUNNING:
            self._do("pause", core.pause, world.now, "lunch")

    def _do(self, name: str, event: object, *arguments: object) -> None:
        assert callable(event)
        event(*arguments)
        self._world.collect()
        self.done[name] += 1


def play(mode: str, seed: int) -> tuple[World, Counter[str]]:
    """Run to the end, through pauses and drains, and return the world and what was done."""
    rng = random.Random(seed)
    world = World(rng, 0.15, CONFIGS[mode], void=0.3)
    actors = [Actor(f"actor-{n}", world) for n in range(4)]
    operator = Operator(world)
    for step in range(MAX_STEPS):
        world.now += rng.random() * 0.3
        chance = rng.random()
        before = world.core.state, world.epoch, len(world.tokens)
        if chance < 0.003:
            world.restart()
            operator.done["crash"] += 1
        elif chance < 0.015:
            actors[rng.randrange(4)] = Actor(f"actor-{4 + step}", world)
        elif chance < 0.03:
            operator.act()
        elif chance < 0.3:
            world.advance()
        elif chance < 0.4:
            world.core.tick(world.now)
            world.collect()
        else:
            rng.choice(actors).step()
        after = world.core.state, world.epoch, len(world.tokens)
        if before[0] is after[0] is RunState.PAUSED and before[1] == after[1]:
            assert before[2] == after[2], "a new lease was granted in a pause"
        is_over = world.core.state is RunState.FINISHED
        if is_over and world.core.progress.trained == NUM_ROUNDS:
            return world, operator.done
    raise AssertionError(f"the run hangs: {world.core.progress}, {world.core.state}")


@pytest.mark.parametrize("mode", CONFIGS)
def test_history_is_right_through_pauses_drains_and_voids(mode):
    done: Counter[str] = Counter()

    for seed in range(NUM_SEEDS):
        world, acts = play(mode, seed)
        done += acts
        done["void"] += world.num_voids

        steps = [b - a for a, b in zip(world.versions, world.versions[1:], strict=False)]
        assert max(steps) == 1
        assert sum(step < 1 for step in steps) <= world.epoch - 1
        assert len(world.applied) == len(set(world.applied))
        assert len({(i.index, i.slot, i.part) for i in world.applied}) == len(world.applied)
        told = {item for item in world.acknowledged if item.kind is ItemKind.TRAIN}
        assert told <= set(world.applied)
        assert {item.index for item in world.applied} == set(range(NUM_ROUNDS))
        assert world.core.durable == world.core.progress

    assert all(done[name] for name in ("pause", "resume", "drain", "restart", "crash", "void"))
