"""What actors answer to probes, against plain references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.gamma import Gamma
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.probes import Observation, Probe, ProbeKind, rows_of
from dmaml.common.seeds import Kind, stream
from dmaml.worker.answers import Answerer
from dmaml.worker.models.base import Params
from dmaml.worker.probes.features import NUM_REFERENCE, pairs, samples_of
from dmaml.worker.probes.projection import Projection, narrowed

FAMILIES = {"source": "function_families", "n_way": 1, "options": {"functions": 250}}


@pytest.fixture(scope="module", autouse=True)
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Tasks of two small archives of noise, as one source with origins."""
    folder = tmp_path_factory.mktemp("noise")
    rng, sources = np.random.default_rng(1), []
    for name in ("a", "b"):
        images = rng.integers(0, 256, (72, 6, 6)).astype(np.uint8)
        np.savez(folder / f"{name}.npz", images=images, labels=np.repeat(np.arange(12), 6))
        sources.append(f"npz:{folder / name}.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMAML_CACHE", str(folder / "cache"))
        TASK["options"] = {"sources": sources}
        yield TASK


TASK: dict[str, Any] = {
    "source": "mixed", "n_way": 2, "k_shot": 2, "k_query": 3, "image_size": 6
}  # fmt: skip


def config_of(**sections: dict[str, Any]) -> RunConfig:
    values: dict[str, Any] = {
        "task": TASK,
        "model": {"name": "mlp", "hidden": [6]},
        "algorithm": {"inner_lr": 0.1},
        "topology": {"slots": 2},
        "clustering": {"name": "kmeans", "pipelines": 2},
        "evaluation": {"k_query": 2},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return resolve(from_mapping(values))


def item(slot: int = 0, part: int = 0, index: int = 3) -> WorkItem:
    return WorkItem(7, ItemKind.PROBE, 0, slot, part, index, 0)


class Actor:
    """An `Answerer` with two pipelines."""

    def __init__(self, config: RunConfig) -> None:
        self.answerer = Answerer(config)
        self.config = config
        seed = config.run.seed
        inits = [
            self.answerer.answer(WorkItem(0, ItemKind.INIT, p, 0, 0, 0, 0), None, None, [])  # type: ignore[arg-type]
            for p in (0, 1)
        ]
        self.layout = inits[0].layout
        rng = np.random.default_rng(seed)
        self.flats = [
            one.flat + rng.normal(scale=0.1, size=one.flat.size).astype("<f4") for one in inits
        ]

    def params(self, pipeline: int) -> Params:
        assert self.layout is not None
        views = self.layout.views(self.flats[pipeline])
        return {name: torch.from_numpy(view.copy()) for name, view in views.items()}

    def observe(self, probe: Probe, place: WorkItem, gamma: Gamma | None = None) -> Observation:
        theta, other = self.flats
        answer = self.answerer.answer(place, theta, self.layout, [], {1: other}, probe, gamma)
        assert answer.observation is not None
        assert np.array_equal(answer.flat, answer.observation.values.ravel())
        return answer.observation


@pytest.fixture(scope="module")
def actor(task: dict[str, Any]) -> Actor:
    return Actor(config_of())


def whole(actor: Actor, probe: Probe, slots: int, parts: int = 1) -> list[np.ndarray]:
    """Return units and values of all shares in slot order."""
    topology = actor.config.topology.model_copy(update={"slots": slots, "parts": parts})
    actor.answerer._config = actor.config.model_copy(update={"topology": topology})
    places = [item(slot, part) for slot in range(slots) for part in range(parts)]
    found = [actor.observe(probe, place) for place in places]
    actor.answerer._config = actor.config
    return [np.concatenate([o.units for o in found]), np.concatenate([o.values for o in found])]


# -- projections -----------------------------------------------------------------------------


def test_projections_keep_inner_products_on_average() -> None:
    rows = np.random.default_rng(1).normal(size=(6, 400)).astype(np.float32)

    found = [Projection(seed, 400, 64)(rows).astype(float) for seed in range(40)]

    mean = np.mean([one @ one.T for one in found], axis=0)
    assert np.abs(mean - rows @ rows.T).max() < 4 * 400 * np.sqrt(2 / 64 / 40)


def test_a_projection_is_a_matrix_with_one_entry_in_each_block() -> None:
    matrix = Projection(3, 50, 10)(np.eye(50, dtype=np.float32))

    assert np.allclose(np.abs(matrix[matrix != 0]), 0.5)
    blocks = [slice(0, 2), slice(2, 5), slice(5, 7), slice(7, 10)]
    assert all((np.count_nonzero(matrix[:, b], axis=1) == 1).all() for b in blocks)


def test_rows_are_narrowed_only_where_they_are_wider() -> None:
    rows = np.ones((2, 5), dtype=np.float32)

    assert narrowed(rows, 1, 5) is rows
    assert narrowed(rows, 1, 0) is rows
    assert narrowed(rows, 1, 4).shape == (2, 4)


# -- shares ----------------------------------------------------------------------------------

KINDS = [
    Probe(ProbeKind.UNITS),
    Probe(ProbeKind.PIXELS, samples=3, dims=16),
    Probe(ProbeKind.EMBEDDING, pipeline=1, samples=1),
    Probe(ProbeKind.LOSSES, tasks=5),
    Probe(ProbeKind.SKETCHES, pipeline=1, tasks=5, dims=8),
]


@pytest.mark.parametrize("probe", KINDS, ids=lambda probe: probe.kind.name)
def test_the_shares_together_do_not_depend_on_their_number(actor: Actor, probe: Probe) -> None:
    one, many = whole(actor, probe, 1), whole(actor, probe, 3, 2)

    assert np.array_equal(one[0], many[0])
    assert np.allclose(one[1].ravel(), many[1].ravel(), atol=1e-6)


def test_probes_do_not_see_origins() -> None:
    first, second = Actor(config_of()), Actor(config_of())
    assert second.answerer.source.origin is not None
    second.answerer.source.origin = second.answerer.source.origin[::-1]

    for probe in KINDS:
        a, b = first.observe(probe, item(1)), second.observe(probe, item(1))
        assert np.array_equal(a.units, b.units)
        assert a.values.tobytes() == b.values.tobytes()


def test_units_are_those_that_are_trained_on(actor: Actor) -> None:
    found = whole(actor, Probe(ProbeKind.UNITS), 2)

    assert np.array_equal(found[0], actor.answerer.source.split("train"))
    assert found[1].size == 0


# -- features --------------------------------------------------------------------------------


def test_pixels_are_the_samples_of_each_unit(actor: Actor) -> None:
    source = actor.answerer.source
    found = actor.observe(Probe(ProbeKind.PIXELS, samples=3), item(1))

    unit = int(found.units[2])
    streams = [stream(1, Kind.PROBE, 3, unit + 1, pair) for pair in (0, 1)]
    batch = source.sample(streams, np.array([unit]), 1, 1, 1)
    expected = [batch.support_x[0, 0], batch.query_x[0, 0], batch.support_x[1, 0]]
    assert np.array_equal(rows_of(found.units, len(found.values))[6:9], [unit] * 3)
    assert np.array_equal(found.values[6:9], np.stack(expected).reshape(3, -1))


def test_pixels_of_a_function_are_its_points() -> None:
    actor = Actor(config_of(task={**FAMILIES, "image_size": 28}))

    found = actor.observe(Probe(ProbeKind.PIXELS, samples=4), item())

    x, y = found.values[:4, :1].astype(float), found.values[:4, 1]
    source: Any = actor.answerer.source
    exact = source.evaluate(found.units[:1], x[None])[0]
    assert found.values.shape[1] == 2
    assert np.allclose(y, exact, atol=1e-4)


def test_an_embedding_of_regression_is_refused() -> None:
    actor = Actor(config_of(task={**FAMILIES, "image_size": 28}))

    with pytest.raises(ConfigError, match="does not see the targets"):
        actor.observe(Probe(ProbeKind.EMBEDDING, samples=4), item())


def test_an_embedding_is_the_last_hidden_layer(actor: Actor) -> None:
    found = actor.observe(Probe(ProbeKind.EMBEDDING, pipeline=1, samples=2), item())

    params = actor.params(1)
    x, _ = samples_of(actor.answerer.source, 1, 3, int(found.units[5]), 2)
    hidden = torch.from_numpy(x).flatten(1) @ params["linear0.weight"] + params["linear0.bias"]
    assert found.values.shape[1] == 6
    assert torch.allclose(torch.from_numpy(found.values[10:12]), hidden.relu(), atol=1e-5)


def test_an_embedding_with_batch_norm_uses_the_statistics_of_many_units() -> None:
    actor = Actor(config_of(model={"batch_norm": True}))
    source = actor.answerer.source
    found = actor.observe(Probe(ProbeKind.EMBEDDING, samples=2), item())

    params, trained = actor.params(0), source.split("train")
    chosen = trained[stream(1, Kind.PROBE, 3, 0).integers(NUM_REFERENCE // 2, len(trained))]
    batches = [
        source.sample([stream(1, Kind.PROBE, 3, 0, 1 + i)], np.array([unit]), 1, 1, 1)
        for i, unit in enumerate(chosen)
    ]
    reference = torch.from_numpy(np.concatenate([pairs(batch)[0] for batch in batches]))
    z = reference.flatten(1) @ params["linear0.weight"]
    x, _ = samples_of(source, 1, 3, int(found.units[0]), 2)
    own = torch.from_numpy(x).flatten(1) @ params["linear0.weight"]
    normal = (own - z.mean(0)) / torch.sqrt(z.var(0, unbiased=False) + 1e-5)
    expected = (normal * params["norm0.scale"] + params["norm0.shift"]).relu()
    assert torch.allclose(torch.from_numpy(found.values[:2]), expected, atol=1e-4)


# -- losses ----------------------------------------------------------------------------------


def net(params: Params, x: torch.Tensor) -> torch.Tensor:
    hidden = (x.flatten(1) @ params["linear0.weight"] + params["linear0.bias"]).relu()
    return hidden @ params["linear1.weight"] + params["linear1.bias"]


def test_losses_are_those_of_each_query_sample_after_adaptation(actor: Actor) -> None:
    found = actor.observe(Probe(ProbeKind.LOSSES, tasks=3), item(slot=1))

    source = actor.answerer.source
    streams = [stream(1, Kind.PROBE, 3, 0, j) for j in (1, 2)]
    batch = source.sample(streams, source.split("train"), 2, 2, 3)
    expected = torch.empty(2, 6, 2)
    for task in range(2):
        tensors = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
        sx, sy, qx, qy = (torch.from_numpy(array[task]) for array in tensors)
        for pipeline in (0, 1):
            params = {n: p.requires_grad_() for n, p in actor.params(pipeline).items()}
            slope = torch.autograd.grad(F.cross_entropy(net(params, sx), sy), list(params.values()))
            phi = {n: p - 0.1 * g for (n, p), g in zip(params.items(), slope, strict=True)}
            expected[task, :, pipeline] = F.cross_entropy(net(phi, qx), qy, reduction="none")
    assert np.array_equal(found.units, batch.units.ravel())
    assert torch.allclose(
        torch.from_numpy(found.values), expected.detach().reshape(12, 2), atol=1e-5
    )


# -- sketches --------------------------------------------------------------------------------


def test_a_sketch_is_the_projected_gradient_of_a_class_as_label_0_by_the_body(actor: Actor) -> None:
    source, probe = actor.answerer.source, Probe(ProbeKind.SKETCHES, 1, tasks=4, dims=32)
    matrix = np.zeros((source.num_units, 2), dtype=np.float32)
    matrix[np.arange(source.num_units), np.arange(source.num_units) % 2] = 1
    found = actor.observe(probe, item(), Gamma(1, (0, 1), matrix))

    own = source.split("train")[source.split("train") % 2 == 1]
    batch = source.sample([stream(1, Kind.PROBE, 3, 1, j) for j in (0, 1)], own, 2, 2, 3)
    params = {n: p.requires_grad_() for n, p in actor.params(1).items()}
    body = [params["linear0.weight"], params["linear0.bias"]]
    rows = []
    for task in range(2):
        x, y = torch.from_numpy(batch.support_x[task]), torch.from_numpy(batch.support_y[task])
        for label in (0, 1):
            loss = F.cross_entropy(net(params, x[y == label]), y[y == label] * 0)
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, body)]))
    long = torch.stack(rows).numpy()
    assert (found.units % 2 == 1).all()
    assert np.array_equal(found.units, batch.units.ravel())
    assert np.allclose(found.values, Projection(1, long.shape[1], 32)(long), atol=1e-5)


def test_a_pipeline_with_too_few_units_has_no_sketches(actor: Actor) -> None:
    matrix = np.zeros((actor.answerer.source.num_units, 2), dtype=np.float32)
    matrix[:, 0] = 1

    probe = Probe(ProbeKind.SKETCHES, pipeline=1, tasks=4, dims=8)
    found = actor.observe(probe, item(), Gamma(1, (0, 1), matrix))

    assert found.units.size == 0
    assert found.values.shape == (0, 8)


def test_an_algorithm_whose_parameters_are_not_the_models_cannot_be_sketched() -> None:
    actor = Actor(config_of(algorithm={"name": "protonet", "inner_lr": 0.1}))

    with pytest.raises(ConfigError, match="hold no 'linear1"):
        actor.observe(Probe(ProbeKind.SKETCHES, tasks=4, dims=8), item())


class Net(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.body = nn.Linear(int(np.prod(input_shape)), 5)
        self.out = nn.Linear(5, num_outputs) if num_outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.body(x.flatten(1)).relu())
        return out


def test_a_module_of_the_users_own_can_be_probed() -> None:
    actor = Actor(config_of(model={"name": "tests.unit.test_probes:Net"}))

    features = actor.observe(Probe(ProbeKind.EMBEDDING, samples=2), item())
    sketches = actor.observe(Probe(ProbeKind.SKETCHES, tasks=2, dims=8), item())

    assert features.values.shape[1] == 5
    assert sketches.values.shape == (2, 8)


# -- too few units ---------------------------------------------------------------------------


def test_who_is_routed_too_few_units_sits_out(actor: Actor) -> None:
    shares = np.eye(2, dtype=np.float32)[np.zeros(actor.answerer.source.num_units, dtype=np.int64)]
    gamma = Gamma(1, (0, 1), shares)

    drawn = [
        actor.answerer.draw(WorkItem(7, ItemKind.TRAIN, pipeline, 0, 0, 3, 1), gamma)
        for pipeline in gamma.pipelines
    ]

    assert [len(batches) for batches in drawn] == [1, 0]


def test_a_class_with_too_few_examples_is_an_error_and_no_sitting_out() -> None:
    config = config_of(task={"k_query": 5})  # of 6 examples 2 are support
    gamma = Gamma(1, (0, 1), np.full((24, 2), 0.5, dtype=np.float32))

    with pytest.raises(DataError, match="exceeds the 6 examples of class"):
        Answerer(config).draw(WorkItem(7, ItemKind.TRAIN, 0, 0, 0, 3, 1), gamma)
