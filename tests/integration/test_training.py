"""What training gives does not depend on who computed it, how it travelled or what died."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.rundir import read_rows
from dmaml.common.seeds import Kind, stream
from dmaml.worker import tasks
from dmaml.worker.answers import Answerer
from dmaml.worker.client import Client
from dmaml.worker.connection import Address, Retry
from dmaml.worker.fingerprint import fingerprint
from dmaml.worker.models.base import params_of
from tests.integration import harness
from tests.integration.harness import (
    CountingAnswerer,
    LiveServer,
    Worker,
    digest_of,
    killable,
    latest,
    tiny,
    train,
    versions_of,
    wait_for,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the tiny run of 20 rounds, by one actor, with nothing in its way."""
    return train(tiny(run={"rounds": 20}), tmp_path_factory.mktemp("undisturbed") / "run")


# -- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 3])
def test_more_actors_give_the_same_bits(workers: int, tmp_path: Path, undisturbed: str) -> None:
    digest = train(tiny(run={"rounds": 20}), tmp_path / "run", workers)

    assert digest == undisturbed


def test_another_seed_gives_another_digest(tmp_path: Path, undisturbed: str) -> None:
    digest = train(tiny(run={"rounds": 20, "seed": 2}), tmp_path / "run")

    assert digest != undisturbed


def test_the_evaluation_schedule_does_not_change_theta(tmp_path: Path, undisturbed: str) -> None:
    config = tiny(run={"rounds": 20}, evaluation={"every": 0})

    assert train(config, tmp_path / "run") == undisturbed
    assert read_rows(tmp_path / "run", "evaluations") == []


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_the_checkpoint_schedule_does_not_change_theta(
    every: int, tmp_path: Path, undisturbed: str
) -> None:
    config = tiny(run={"rounds": 20}, server={"checkpoint_every": every})

    assert train(config, tmp_path / "run", workers=2) == undisturbed
    assert versions_of(tmp_path / "run") == list(range(1, 21))


def test_gradients_in_a_mapped_file_give_the_same_bits(tmp_path: Path, undisturbed: str) -> None:
    config = tiny(run={"rounds": 20}, server={"max_inflight_bytes": 8})

    assert train(config, tmp_path / "run", workers=2) == undisturbed


def test_every_round_and_evaluation_is_recorded_once(tmp_path: Path) -> None:
    run = tmp_path / "run"

    train(tiny(run={"rounds": 8}), run, workers=2)

    rounds, evaluations = read_rows(run, "rounds"), read_rows(run, "evaluations")
    assert [row["version"] for row in rounds] == list(range(1, 9))
    assert [row["tasks_seen"] for row in rounds] == [4 * n for n in range(1, 9)]
    assert [row["version"] for row in evaluations] == [3, 6, 8]
    assert all(row["num_tasks"] == 4 for row in evaluations)
    numbers = [row["round"] for row in (*rounds, *evaluations)]
    assert sorted(numbers) == list(range(1, 12))  # INIT is round 0


def test_tasks_seen_counts_the_tasks_of_every_local_step(tmp_path: Path) -> None:
    config = tiny(run={"rounds": 2}, algorithm={"tasks": 2, "local_steps": 3})

    train(config, tmp_path / "run")

    assert latest(tmp_path / "run").meta["progress"]["tasks_seen"] == 2 * 2 * 2 * 3


# -- the right bits ------------------------------------------------------------------------------


def test_a_plain_loop_in_one_process_agrees(tmp_path: Path) -> None:
    config = tiny(
        run={"rounds": 20}, topology={"slots": 4}, model={"hidden": [16, 16]}, outer={"lr": 0.001}
    )
    run = tmp_path / "run"

    train(config, run, workers=2)

    distributed, plain = latest(run).tensors["theta.0"], _plain_loop(config)
    assert np.abs(distributed - plain).max() < 1e-5
    assert np.abs(distributed - _plain_loop(config, rounds=0)).max() > 1e-3  # it did move


def test_sixteen_slots_of_two_tasks_agree_with_one_slot_of_thirty_two(tmp_path: Path) -> None:
    config = {"outer": {"lr": 0.001}, "evaluation": {"every": 0}, "run": {"rounds": 20}}
    many = tiny(**config, topology={"slots": 16}, algorithm={"tasks": 2})
    one = tiny(**config, topology={"slots": 1}, algorithm={"tasks": 32})

    train(many, tmp_path / "many", workers=2)
    train(one, tmp_path / "one")

    theta = latest(tmp_path / "many").tensors["theta.0"]
    assert np.abs(theta - latest(tmp_path / "one").tensors["theta.0"]).max() < 1e-5


def test_parts_of_a_slot_agree_with_the_whole(tmp_path: Path) -> None:
    config = {"outer": {"lr": 0.001}, "evaluation": {"every": 0}, "algorithm": {"tasks": 7}}

    train(tiny(**config, topology={"slots": 2, "parts": 3}), tmp_path / "parts", workers=3)
    train(tiny(**config, topology={"slots": 2, "parts": 1}), tmp_path / "whole")

    theta = latest(tmp_path / "parts").tensors["theta.0"]
    assert np.abs(theta - latest(tmp_path / "whole").tensors["theta.0"]).max() < 1e-5


def test_each_round_steps_at_the_rate_of_its_number(tmp_path: Path) -> None:
    outer = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "nesterov": True}
    stopping = {"schedule": "step", "step_every": 3, "step_factor": 1e-30}
    constant = tiny(run={"rounds": 3}, outer=outer)

    digest = train(tiny(run={"rounds": 6}, outer={**outer, **stopping}), tmp_path / "stopping")

    assert versions_of(tmp_path / "stopping") == [1, 2, 3, 4, 5, 6]
    assert digest == train(constant, tmp_path / "three")
    assert digest != train(tiny(run={"rounds": 2}, outer=outer), tmp_path / "two")


@pytest.mark.parametrize("name", ["adamw", "adagrad", "yogi"])
def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(
    name: str, tmp_path: Path
) -> None:
    step = {"schedule": "step", "step_every": 2, "warmup": 2}
    short, long = (tiny(run={"rounds": n}, outer={"name": name, **step}) for n in (3, 6))

    whole = train(long, tmp_path / "whole")
    train(short, tmp_path / "stopped")

    assert train(long, tmp_path / "stopped", workers=2) == whole


def _plain_loop(config: RunConfig, rounds: int | None = None) -> np.ndarray[Any, Any]:
    """MAML with Adam, as one would write it without a cluster; returns θ, float32 `[d]`."""
    torch.set_num_threads(1)
    source, task = tasks.build(config), config.task
    first = WorkItem(0, ItemKind.INIT, 0, 0, 0, 0, 0)
    init = Answerer(config).answer(first, np.empty(0, "<f4"), None, [])
    assert init.layout is not None
    theta = [p.clone().requires_grad_() for p in params_of(init.layout, init.flat).values()]
    adam = torch.optim.Adam(theta, lr=config.outer.lr)
    num_tasks = config.topology.slots * config.algorithm.tasks

    def loss_of(params: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for weight, bias in zip(params[:-2:2], params[1:-2:2], strict=True):
            x = torch.relu(x @ weight + bias)
        return ((x @ params[-2] + params[-1] - y) ** 2).mean()

    for index in range(config.run.rounds if rounds is None else rounds):
        adam.zero_grad()
        for number in range(num_tasks):
            one = stream(config.run.seed, Kind.TRAIN, index, 0, number)
            batch = source.sample(
                [one], source.split("train"), task.n_way, task.k_shot, task.k_query
            )
            sx, sy, qx, qy = (
                torch.from_numpy(array[0])
                for array in (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
            )
            phi = theta
            for _ in range(config.algorithm.inner_steps):
                gradient = torch.autograd.grad(loss_of(phi, sx, sy), phi, create_graph=True)
                phi = [
                    p - config.algorithm.inner_lr * g for p, g in zip(phi, gradient, strict=True)
                ]
            (loss_of(phi, qx, qy) / num_tasks).backward()
        adam.step()
    return torch.cat([p.detach().flatten() for p in theta]).numpy()


# -- what travels --------------------------------------------------------------------------------

LARGE = {"hidden": [1200, 1000]}  # 4.6 MiB of float32: beyond one message


@pytest.mark.parametrize(
    ("wire", "streamed"), [("float32", True), ("bfloat16", False), ("float16", False)]
)
def test_a_model_beyond_one_message_trains(
    wire: str, streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(
        run={"rounds": 2}, model=LARGE, sync={"wire_dtype": wire}, evaluation={"every": 0}
    )
    methods = _spy_on_calls(monkeypatch)

    digest = train(config, tmp_path / "first", workers=2)

    assert digest == train(config, tmp_path / "second")
    assert methods.count("PushStream") == (2 + 2 * 4 if streamed else 2)  # INIT is float32 always
    assert versions_of(tmp_path / "first") == [1, 2]


def test_half_precision_on_the_wire_is_near_full_precision(tmp_path: Path) -> None:
    thetas = {}
    for wire in ("float32", "bfloat16", "float16"):
        outer = {"name": "sgd", "lr": 0.01}
        train(tiny(sync={"wire_dtype": wire}, outer=outer), tmp_path / wire)
        thetas[wire] = latest(tmp_path / wire).tensors["theta.0"]

    for wire, tolerance in (("bfloat16", 2e-3), ("float16", 2e-4)):
        difference = np.abs(thetas[wire] - thetas["float32"]).max()
        assert 0 < difference < tolerance


def _spy_on_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the names of the Push calls that clients make."""
    methods: list[str] = []
    real = Client._later

    def spy(self: Client, what: str, method: Any, *rest: Any) -> Any:
        if what == "push":
            methods.append("PushStream" if method is self._stub.PushStream else "Push")
        return real(self, what, method, *rest)

    monkeypatch.setattr(Client, "_later", spy)
    return methods


# -- actors that die -----------------------------------------------------------------------------


def test_an_actor_that_dies_between_lease_and_push_is_replaced(
    tmp_path: Path, undisturbed: str
) -> None:
    config = tiny(run={"rounds": 20}, server={"session_s": 0.5})
    run = tmp_path / "run"
    leased = threading.Event()

    with LiveServer(config, run, exit_when_done=True) as server:
        _lease_and_vanish(config, server.target, leased)
        assert leased.is_set()
        Worker(config, server.target).join()
        server.wait()

    assert digest_of(run) == undisturbed
    events = [row["event"] for row in read_rows(run, "worker_events")]
    assert events.count("lost") == 1


def test_an_actor_that_fails_in_its_work_gives_its_item_back_at_once(
    tmp_path: Path, undisturbed: str
) -> None:
    config = tiny(run={"rounds": 20}, server={"session_s": 30})
    run = tmp_path / "run"

    def fail(number: int, item: WorkItem) -> None:
        if number == 5:
            raise MemoryError("no room")

    with LiveServer(config, run, exit_when_done=True) as server:
        first = Worker(config, server.target, CountingAnswerer(config, fail))
        with pytest.raises(MemoryError):
            first.join()
        Worker(config, server.target).join()
        server.wait()

    assert digest_of(run) == undisturbed
    left = [row for row in read_rows(run, "worker_events") if row["event"] == "left"]
    assert "MemoryError: no room" in left[0]["message"]


def test_the_lease_of_an_actor_that_hangs_expires_and_its_late_answer_is_refused(
    tmp_path: Path, undisturbed: str
) -> None:
    config = tiny(run={"rounds": 20}, server={"item_timeout_s": 0.3})
    run = tmp_path / "run"
    is_over, is_hanging = threading.Event(), threading.Event()

    def hang(number: int, item: WorkItem) -> None:
        if number == 5:
            is_hanging.set()
            is_over.wait(harness.DEADLINE_S)

    with LiveServer(config, run) as server:
        late = Worker(config, server.target, CountingAnswerer(config, hang))
        assert is_hanging.wait(harness.DEADLINE_S)
        Worker(config, server.target).join()
        is_over.set()
        late.join()

    assert digest_of(run) == undisturbed
    events = [row["event"] for row in read_rows(run, "worker_events")]
    assert "lease_expired" in events
    assert versions_of(run) == list(range(1, 21))


def _lease_and_vanish(config: RunConfig, target: str, leased: threading.Event) -> None:
    """Take an item as an actor does that is killed a moment later: no push, no farewell."""
    client = Client(Address(target), Retry(5.0))
    data = tasks.build(config).digest
    client.join(config, "elsewhere", fingerprint(config), data, ())
    reply = client.ask((), (), None).result()
    assert reply.work is not None
    leased.set()
    client.close()


# -- a server that dies --------------------------------------------------------------------------


def test_a_killed_server_goes_on_with_the_same_bits_while_actors_wait(
    tmp_path: Path, undisturbed: str
) -> None:
    config = tiny(run={"rounds": 20}, server={"checkpoint_every": 5})
    run = tmp_path / "run"
    is_killed = threading.Event()

    with killable(config, run) as server:

        def kill(number: int, item: WorkItem) -> None:
            if item.kind is ItemKind.TRAIN and item.index == 12 and not is_killed.is_set():
                is_killed.set()
                server.kill()
                server.restart()

        crew = [
            Worker(config, server.target, CountingAnswerer(config, kill)),
            Worker(config, server.target, CountingAnswerer(config)),
        ]
        for worker in crew:
            worker.join()
        assert server.terminate() == 0

    assert is_killed.is_set()
    assert digest_of(run) == undisturbed
    assert versions_of(run) == list(range(1, 21))
    assert latest(run).meta["progress"]["tasks_seen"] == 20 * 4
    assert (run / "epoch").read_text() == "2"


def test_answers_of_lost_rounds_are_pushed_again_without_being_computed_again(
    tmp_path: Path, undisturbed: str
) -> None:
    config = tiny(
        run={"rounds": 20}, server={"checkpoint_every": 1000}, evaluation={"every": 0}
    )  # a best validation would be saved
    run = tmp_path / "run"
    after: list[LiveServer] = []

    with killable(config, run) as server:

        def kill(number: int, item: WorkItem) -> None:
            if item.kind is ItemKind.TRAIN and item.index == 12 and not after:
                server.kill()
                after.append(LiveServer(config, run, listen=server.target))

        answerer = CountingAnswerer(config, kill)
        worker = Worker(config, server.target, answerer).join()
        after[0].stop()

    assert digest_of(run) == undisturbed
    assert answerer.answered[WorkItem(1, ItemKind.TRAIN, 0, 0, 0, 0, 0)] == 1
    assert set(answerer.answered.values()) == {1}
    assert worker.num_answers > answerer.answered.total()  # the lost ones were taken twice


def test_sigterm_writes_a_checkpoint_and_the_run_goes_on_from_it(
    tmp_path: Path, undisturbed: str
) -> None:
    config = tiny(
        run={"rounds": 20}, server={"checkpoint_every": 1000}, evaluation={"every": 0}
    )  # a best validation would be saved
    run = tmp_path / "run"
    reached, go_on = threading.Event(), threading.Event()

    def hold(number: int, item: WorkItem) -> None:
        if item.kind is ItemKind.TRAIN and item.index == 12:
            reached.set()
            go_on.wait(harness.DEADLINE_S)

    with killable(config, run) as server:
        worker = Worker(config, server.target, CountingAnswerer(config, hold))
        assert reached.wait(harness.DEADLINE_S)
        began = time.monotonic()

        status = server.terminate()

        took_s = time.monotonic() - began
        saved = latest(run).meta["progress"]["version"]
        with LiveServer(config, run, listen=server.target):
            go_on.set()
            worker.join()
    assert (status, saved) == (0, 12)
    assert took_s < 5
    assert digest_of(run) == undisturbed
    assert versions_of(run) == list(range(1, 21))


def test_an_actor_that_waits_for_work_outlives_a_restart(tmp_path: Path) -> None:
    config = tiny(topology={"slots": 1})
    run = tmp_path / "run"

    def busy(number: int, item: WorkItem) -> None:
        if item.index == 3 and item.kind is ItemKind.TRAIN:
            is_busy.set()
            go_on.wait(harness.DEADLINE_S)

    is_busy, go_on = threading.Event(), threading.Event()
    first = LiveServer(config, run)
    one = Worker(config, first.target, CountingAnswerer(config, busy))
    assert is_busy.wait(harness.DEADLINE_S)
    waiting = Worker(config, first.target)
    wait_for(lambda: len(_joined(run)) == 2, "the second actor joined")

    first.stop()
    with LiveServer(config, run, listen=first.target):
        go_on.set()
        one.join()
        waiting.join()

    assert versions_of(run) == [1, 2, 3, 4, 5, 6]


def _joined(run: Path) -> list[Any]:
    return [row for row in read_rows(run, "worker_events") if row["event"] == "joined"]


# -- going on ------------------------------------------------------------------------------------


def test_a_finished_run_with_more_rounds_equals_an_uninterrupted_longer_one(
    tmp_path: Path, undisturbed: str
) -> None:
    run = tmp_path / "run"
    train(tiny(run={"rounds": 9}), run)

    digest = train(tiny(run={"rounds": 20}), run, workers=2)

    assert digest == undisturbed
    assert versions_of(run) == list(range(1, 21))


def test_a_finished_run_that_is_started_again_changes_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = train(tiny(), run)
    rows = read_rows(run, "rounds")

    with LiveServer(tiny(), run) as server:
        worker = Worker(tiny(), server.target).join()

    assert worker.num_answers == 0
    assert digest_of(run) == before
    assert read_rows(run, "rounds") == rows
