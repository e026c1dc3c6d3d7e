"""The laws of `TaskSource`, over every source of the table."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmaml.common.config import from_mapping
from dmaml.common.errors import DataError, TooFewUnitsError
from dmaml.common.seeds import Kind, Stream, stream
from dmaml.worker.tasks import SOURCES, build
from dmaml.worker.tasks.base import SPLITS, TaskBatch, TaskSource
from dmaml.worker.tasks.episodes import require_episode
from dmaml.worker.tasks.glyphs import Glyphs
from dmaml.worker.tasks.published import CIFAR_FS, FC100, MINIIMAGENET
from dmaml.worker.tasks.textures import TextureSource

K_SHOT, K_QUERY = 2, 3


def pictures(num_classes: int, per_class: int, size: int = 8) -> np.ndarray[Any, Any]:
    """Return uint8 `[N, size, size]`, no two alike."""
    noise = np.random.default_rng(0).integers(0, 256, (num_classes * per_class, size, size))
    return noise.astype(np.uint8)


def write_npz(path: Path, num_classes: int, per_class: int, **more: Any) -> None:
    labels = np.repeat(np.arange(num_classes), per_class)
    names = np.array([f"class {c}" for c in range(num_classes)])
    images = pictures(num_classes, per_class)
    np.savez(path, **{"images": images, "labels": labels, "class_names": names, **more})


def write_published(place: Path) -> None:
    """Write CIFAR-100 and miniImageNet by class and name, with pictures of noise."""
    names, parts = np.concatenate(CIFAR_FS), np.concatenate(FC100)
    groups = np.repeat(parts, 5)  # the superclasses are not the true ones
    write_npz(place / "cifar100.npz", 100, 6, class_names=names, superclasses=groups)
    wnids = np.concatenate(MINIIMAGENET)
    write_npz(place / "miniimagenet28.npz", 100, 6, wnids=wnids)
    files = [io.BytesIO() for _ in range(600)]
    for file, one in zip(files, pictures(100, 6, 12), strict=True):
        Image.fromarray(one).save(file, "JPEG")
    data = [np.frombuffer(file.getvalue(), dtype=np.uint8) for file in files]
    np.savez(
        place / "miniimagenet84_jpeg.npz",
        jpeg_bytes=np.concatenate(data),
        offsets=np.cumsum([0, *map(len, data)]),
        labels=np.repeat(np.arange(100), 6),
        class_names=wnids,
        wnids=wnids,
    )


def write_tree(root: Path, num_alphabets: int, per_alphabet: int, per_class: int) -> None:
    images = iter(pictures(num_alphabets * per_alphabet, per_class))
    for alphabet in range(num_alphabets):
        for character in range(per_alphabet):
            place = root / f"alphabet{alphabet}" / f"character{character}"
            place.mkdir(parents=True)
            for example in range(per_class):
                Image.fromarray(next(images)).save(place / f"{example}.png")


CASES: dict[str, dict[str, Any]] = {
    "glyphs": {},
    "sinusoid": {"n_way": 1},
    "navigation": {"n_way": 1, "options": {"preset": "promp"}},
    "control": {"n_way": 1, "options": {"environment": "navigation"}},
    "omniglot": {},
    "omniglot official": {"source": "omniglot", "splits": "official"},
    "omniglot alphabets": {"source": "omniglot", "unit": "alphabet"},
    "npz": {"source": "npz:{data}/small.npz"},
    "npz rotations": {"source": "npz:{data}/small.npz", "rotations": True},
    "textures": {},
    "textures materials": {"source": "textures", "unit": "alphabet", "rotations": True},
    "function_families": {"n_way": 1},
    "function_families arml": {
        "source": "function_families",
        "n_way": 1,
        "options": {"setting": "arml", "functions": 200},
    },
    "function_families mmaml5": {
        "source": "function_families",
        "n_way": 1,
        "options": {"setting": "mmaml5", "functions": 200},
    },
    "cifar_fs": {},
    "fc100": {},
    "fc100 superclasses": {"source": "fc100", "unit": "alphabet"},
    "cifar10": {},
    "mnist": {"rotations": True},
    "fungi": {},
    "miniimagenet": {},
    "miniimagenet jpegs": {"source": "miniimagenet", "image_size": 12},
    "mixed": {"image_size": 8, "options": {"sources": ["npz:{data}/small.npz", "textures"]}},
    "mixed grey and equalised": {
        "source": "mixed",
        "image_size": 9,
        "options": {
            "sources": [
                "cifar_fs",
                "glyphs",
                {"source": "npz:{data}/small.npz", "rotations": True},
            ],
            "channels": 1,
            "equalise": True,
        },
    },
    "mixed across": {
        "source": "mixed",
        "image_size": 8,
        "options": {"sources": ["npz:{data}/small.npz", "textures", "mnist"], "across": True},
    },
    "mixed alphabets": {
        "source": "mixed",
        "unit": "alphabet",
        "options": {"sources": ["glyphs", "omniglot"]},
    },
    "folder": {"source": "folder:{data}/tree", "image_size": 8},
    "folder alphabets": {"source": "folder:{data}/tree", "image_size": 8, "unit": "alphabet"},
}
Make = Callable[..., TaskSource]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("data")
    alphabets = np.repeat([f"alphabet {a}" for a in range(50)], 33)[:1623]
    split = np.repeat([0, 1], [30 * 33, 1623 - 30 * 33])
    write_npz(place / "omniglot28.npz", 1623, 5, alphabets=alphabets, split=split)
    write_npz(place / "small.npz", 25, 6)
    write_published(place)
    write_npz(place / "fungi12_28.npz", 30, 6)
    part = np.tile([0] * 30 + [1] * 6, 10)
    for name in ("cifar10", "mnist"):
        write_npz(place / f"{name}.npz", 10, 36, original_part=part)
    write_tree(place / "tree", num_alphabets=6, per_alphabet=4, per_class=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMAML_DATA", str(place))
        patch.setenv("DMAML_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield place


@pytest.fixture(scope="module", params=CASES)
def make(request: pytest.FixtureRequest, data: Path) -> Make:
    """Return a function that builds the source of the case with a seed, each seed once."""
    task = {"source": request.param, "n_way": 4, **CASES[request.param]}
    task = json.loads(json.dumps(task).replace("{data}", str(data)))
    built: dict[int, TaskSource] = {}

    def of_seed(seed: int = 1, again: bool = False) -> TaskSource:
        if again or seed not in built:
            built[seed] = build(from_mapping({"run": {"seed": seed}, "task": task}))
        return built[seed]

    return of_seed


def ways(source: TaskSource) -> int:
    return 4 if source.kind == "classification" else 1


def streams(*tasks: int) -> list[Stream]:
    return [stream(7, Kind.TRAIN, 3, 0, task) for task in tasks]


def sample(source: TaskSource, *tasks: int, units: Any = None) -> TaskBatch:
    allowed = source.split("train") if units is None else units
    return source.sample(streams(*tasks), allowed, ways(source), K_SHOT, K_QUERY)


def arrays(batch: TaskBatch, row: int | slice = slice(None)) -> list[Any]:
    return [value[row].tolist() for value in vars(batch).values() if value is not None]


def test_every_source_of_the_table_is_tested() -> None:
    tested = {str(case.get("source", name)).split(":")[0] for name, case in CASES.items()}

    assert set(SOURCES) == tested


def test_shapes_and_types_are_those_of_the_contract(make: Make) -> None:
    source = make()
    n_way = ways(source)

    batch = sample(source, 0, 1, 2)

    for x, y, k in (
        (batch.support_x, batch.support_y, K_SHOT),
        (batch.query_x, batch.query_y, K_QUERY),
    ):
        assert x.shape == (3, n_way * k, *source.input_shape)
        assert x.dtype == np.float32
        if source.kind == "regression":
            assert y.shape == (3, k, source.num_outputs(n_way))
            assert y.dtype == np.float32
        elif source.kind == "control":
            assert y.shape == (3, k)
            assert y.dtype == np.int64
            assert y.min() >= 0  # seeds
            assert batch.parameters.shape == (3, source.num_parameters)
        else:
            assert (y == np.repeat(np.arange(n_way), k)).all()  # balanced, and by label
            assert y.dtype == np.int64
            assert 0.0 <= x.min() < x.max() <= 1.0
            assert source.num_outputs(n_way) == n_way
    assert batch.units.shape == (3, n_way)
    assert batch.units.dtype == np.int64
    assert batch.num_tasks == 3


def test_an_episode_depends_on_its_own_stream_alone(make: Make) -> None:
    source = make()

    together, alone = sample(source, 0, 1, 2), sample(source, 2)

    assert arrays(together, 2) == arrays(alone, 0)
    assert arrays(sample(source, 0, 1, 2)) == arrays(together)
    assert arrays(together, 0) != arrays(together, 1)


def test_another_process_draws_the_same(make: Make) -> None:
    first, second = make(), make(again=True)

    assert first is not second
    assert arrays(sample(first, 0, 1)) == arrays(sample(second, 0, 1))
    assert first.digest == second.digest


def test_the_order_of_the_allowed_units_does_not_matter(make: Make) -> None:
    source = make()

    backwards = sample(source, 0, 1, units=source.split("train")[::-1])

    assert arrays(backwards) == arrays(sample(source, 0, 1))


def test_only_the_allowed_units_are_drawn(make: Make) -> None:
    source = make()
    allowed = source.split("train")[1::2] if source.num_units > 3 else source.split("train")

    batch = sample(source, *range(10), units=allowed)

    assert set(batch.units.ravel().tolist()) <= set(allowed.tolist())


def test_splits_divide_the_units(make: Make) -> None:
    source = make()

    parts = [source.split(name) for name in SPLITS]

    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert all(len(part) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(source.num_units))


def test_no_class_is_in_two_splits(make: Make) -> None:
    source = make()

    names = [
        {source.unit_name(int(u)).split(" turned")[0] for u in source.split(s)} for s in SPLITS
    ]

    assert sum(len(part) for part in names) == len(set.union(*names))


def test_support_and_query_share_no_example(make: Make) -> None:
    source = make()

    batch = sample(source, *range(5))

    parts = (batch.support_x, batch.query_x)
    if source.kind == "control":  # trajectories may begin in the same place
        parts = (batch.support_y, batch.query_y)
    for support, query in zip(*parts, strict=True):
        rows = np.concatenate([support, query])
        assert len(np.unique(rows.reshape(len(rows), -1), axis=0)) == len(rows)


def test_the_classes_of_an_episode_differ(make: Make) -> None:
    source = make()

    units = sample(source, *range(5)).units

    is_class = len(set(units[0].tolist())) > 1 or units.shape[1] == 1
    assert all(len(set(row.tolist())) == (len(row) if is_class else 1) for row in units)


def test_unit_ids_are_shuffled_by_the_seed(make: Make) -> None:
    def order(seed: int) -> tuple[str, ...]:
        source = make(seed)
        return tuple(source.unit_name(u) for u in range(min(source.num_units, 200)))

    orders = [order(seed) for seed in (1, 2)]

    assert len(set(orders)) > 1
    assert order(1) == orders[0]


def test_the_digest_is_a_sha256(make: Make) -> None:
    assert len(bytes.fromhex(make().digest)) == 32


def test_origin_has_one_entry_per_unit(make: Make) -> None:
    source = make()

    assert source.origin is None or source.origin.shape == (source.num_units,)


def test_too_few_units_are_refused(make: Make) -> None:
    source = make()

    with pytest.raises(TooFewUnitsError, match="n_way"):
        sample(source, 0, units=source.split("train")[:0])


def test_what_require_episode_lets_through_can_be_drawn(make: Make) -> None:
    source = make()
    n_way = 3 if source.kind == "classification" else 1

    for name in SPLITS:
        require_episode(source, name, n_way, K_SHOT, K_QUERY)
        source.sample(streams(*range(5)), source.split(name), n_way, K_SHOT, K_QUERY)


def test_require_episode_refuses_more_ways_than_classes(make: Make) -> None:
    with pytest.raises(DataError, match="n_way 100000"):
        require_episode(make(), "test", 100_000, 1, 1)


def test_require_episode_refuses_more_examples_than_a_class_has(make: Make) -> None:
    source = make()
    endless = isinstance(source, (Glyphs, TextureSource)) or source.kind != "classification"

    if endless:  # every drawing, point and trajectory is new
        require_episode(source, "test", ways(source), 500, 500)
    else:
        with pytest.raises(DataError, match=r"k_shot \+ k_query 1000 exceeds the \d+ examples of"):
            require_episode(source, "test", 3, 500, 500)


def test_a_missing_file_is_told_with_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path))
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / name))
    embedded = {"glyphs", "textures", "sinusoid", "function_families", "navigation", "control"}

    for name in set(SOURCES) - embedded - {"npz", "folder", "mixed"}:
        for task in ({"source": name}, {"source": "mixed", "options": {"sources": [name, name]}}):
            with pytest.raises(DataError) as caught:
                build(from_mapping({"task": task}))
            looked = rf"data file '\w+\.npz'.* was not found in {re.escape(str(tmp_path))}, "
            assert re.match(looked, str(caught.value))
            assert "DMAML_DATA" in str(caught.value)
