from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dmaml.common.config import from_mapping, resolve
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms, engine
from dmaml.worker.algorithms.base import Context, Contribution
from dmaml.worker.engine.loop import Loop
from dmaml.worker.engine.vmap import Vmap
from dmaml.worker.models.conv4 import Conv4
from dmaml.worker.tasks.base import TaskBatch

torch.set_num_threads(1)
SHAPE, N_WAY = (1, 28, 28), 5
ROOT = Path(__file__).resolve().parents[2]


def episodes(num_tasks: int) -> TaskBatch:
    random = stream(3, Kind.TRAIN)
    labels = np.tile(np.arange(N_WAY), (num_tasks, 1))
    support, query = (random.uniform(num_tasks, N_WAY, *SHAPE).astype(np.float32) for _ in range(2))
    return TaskBatch(support, labels, query, labels, labels)


def compute(name: str, chunk: int | None = None, num_tasks: int = 3) -> Contribution:
    config = resolve(
        from_mapping({"engine": {"name": name, "chunk": chunk}, "model": {"width": 16}})
    )
    algorithm = algorithms.build(config, "classification", SHAPE, N_WAY)
    params = algorithm.init(stream(1, Kind.INIT))
    context = Context(version=0, rounds=1, stream=stream(1, Kind.TRAIN))
    return algorithm.contribution(params, lambda: episodes(num_tasks), context)


def digest(name: str) -> str:
    answer = compute(name)
    content = hashlib.sha256(repr((answer.loss, answer.metrics)).encode())
    for value in answer.gradient.values():
        content.update(value.numpy().tobytes())
    return content.hexdigest()


def digest_elsewhere(name: str) -> str:
    code = f"import tests.unit.test_engine as t; print(t.digest({name!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["loop", "vmap"])
def test_bits_depend_neither_on_the_process_nor_on_what_it_did_before(name: str) -> None:
    first = digest(name)
    kept = [torch.randn(1 + 37 * i) for i in range(50)]  # moves later blocks of memory
    compute("vmap", chunk=5, num_tasks=5)
    torch.nn.functional.conv2d(torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3))

    again = digest(name)

    assert again == first
    assert digest_elsewhere(name) == first
    assert len(kept) == 50


def test_engines_and_chunks_agree() -> None:
    expected = compute("loop", num_tasks=5)

    for chunk in (1, 2, 5, 8):
        answer = compute("vmap", chunk, num_tasks=5)
        for name, value in expected.gradient.items():
            scale = float(value.abs().max())
            torch.testing.assert_close(answer.gradient[name], value, rtol=0, atol=1e-5 * scale)
        assert answer.loss == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.parametrize("statistics", [False, True])
def test_engines_apply_each_tasks_own_parameters(statistics: bool) -> None:
    model = Conv4((1, 9, 9), 3, width=4)
    starts = [model.init(stream(seed, Kind.INIT)) for seed in (1, 2)]
    params = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    x = torch.from_numpy(stream(4, Kind.TRAIN).normal(2, 6, 1, 9, 9)).float()
    support = x.flip(1)[:, :4]

    for applied in (Loop(model), Vmap(model)):
        imposed = applied.forward(params, support)[1] if statistics else None
        outputs, used = applied.forward(params, x, imposed)

        for task, start in enumerate(starts):
            own = model.forward(start, support[task])[1] if statistics else None
            expected, moments = model.forward(start, x[task], own)
            torch.testing.assert_close(outputs[task], expected)
            torch.testing.assert_close([(m[task], v[task]) for m, v in used], moments)


def test_the_configuration_chooses_the_engine() -> None:
    model = Conv4(SHAPE, N_WAY, width=4)

    chosen = [
        engine.build(from_mapping({"engine": values}).engine, model)
        for values in ({"name": "loop"}, {"name": "vmap"}, {"name": "vmap", "chunk": 3})
    ]

    assert [type(e) for e in chosen] == [Loop, Vmap, Vmap]
    assert [e.chunk for e in chosen] == [1, engine.vmap.DEFAULT_CHUNK, 3]
