"""Pools of single functions: their families, their points and their noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.tasks.base import SPLITS
from dmaml.worker.tasks.function_families import SETTINGS, FunctionFamilies


def families(seed: int = 1, **options: Any) -> FunctionFamilies:
    task = {"source": "function_families", "n_way": 1}
    return FunctionFamilies(from_mapping({"run": {"seed": seed}, "task": task}), **options)


def streams(count: int) -> list[Any]:
    return [stream(7, Kind.TRAIN, 0, 0, task) for task in range(count)]


def units_of(made: FunctionFamilies, family: str) -> Any:
    assert made.origin is not None
    return np.flatnonzero(made.origin == made.origin_names.index(family))


def grid(made: FunctionFamilies, family: str, count: int = 50) -> tuple[Any, Any, Any]:
    units = units_of(made, family)[:count]
    x = np.tile(np.linspace(-5, 5, 41), (len(units), 1))
    columns = np.ones((*x.shape, made.input_shape[0]))
    columns[..., 0] = x
    return units, x[0], made.evaluate(units, columns)


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("hsml", ("sine", "line", "quadratic", "cubic")),
        ("arml", ("sine", "line", "quadratic", "cubic", "quadratic surface", "ripple")),
        ("mmaml3", ("sine", "line", "quadratic")),
        ("mmaml5", ("sine", "line", "quadratic", "tanh", "absolute value")),
    ],
)
def test_families_are_the_origins_and_equally_large(setting: str, names: tuple[str, ...]) -> None:
    made = families(setting=setting)

    assert made.origin_names == names
    assert made.origin is not None
    assert np.bincount(made.origin).tolist() == [1000] * len(names)
    assert made.unit_name(int(units_of(made, "line")[0])).startswith("line ")


def test_a_split_may_come_from_one_family_only() -> None:
    made, whole = families(only={"train": "line"}), families()
    assert made.origin is not None
    assert whole.origin is not None

    assert set(made.origin[made.split("train")]) == {1}
    assert set(made.split("train")) < set(whole.split("train"))
    assert made.split("test").tolist() == whole.split("test").tolist()
    assert made.digest != whole.digest
    with pytest.raises(ConfigError, match="'tanh': required one of sine, line, quadratic, cubic"):
        families(only={"test": "tanh"})


def test_each_family_is_divided_64_16_20() -> None:
    made = families()
    assert made.origin is not None

    for name, count in zip(SPLITS, (640, 160, 200), strict=True):
        assert np.bincount(made.origin[made.split(name)]).tolist() == [count] * 4


@pytest.mark.parametrize(("family", "degree"), [("line", 1), ("quadratic", 2), ("cubic", 3)])
def test_polynomials_have_the_degree_and_the_published_ranges(family: str, degree: int) -> None:
    made = families()
    highest = {"line": (3, 3), "quadratic": (0.2, 2, 3), "cubic": (0.1, 0.2, 2, 3)}[family]

    units, x, y = grid(made, family, 1000)

    coefficients = np.polyfit(x, y.T, degree)
    fitted = np.stack([np.polyval(c, x) for c in coefficients.T])
    np.testing.assert_allclose(fitted, y, atol=1e-9)
    largest = np.abs(coefficients).max(1)
    assert len(units) == 1000
    assert (largest <= np.array(highest) + 1e-9).all()
    np.testing.assert_allclose(largest, highest, rtol=0.02)  # of 1,000 the largest


def test_the_phase_is_inside_the_sine() -> None:
    made = families()

    _, _, y = grid(made, "sine", 1000)

    assert np.abs(y).max() <= 5.0  # outside it would add up to 2 pi
    assert np.abs(y).max() > 4.9
    assert abs(y.mean()) < 0.15


def test_quadratics_of_mmaml_open_both_ways_and_are_never_flat() -> None:
    made = families(setting="mmaml3")

    _, x, y = grid(made, "quadratic", 1000)

    bend = np.abs(np.polyfit(x, y.T, 2)[0])
    assert bend.min() >= 0.02 - 1e-9
    assert bend.max() <= 0.15 + 1e-9
    assert np.mean(np.polyfit(x, y.T, 2)[0] > 0) == pytest.approx(0.5, abs=0.05)


def test_a_task_is_points_of_its_unit() -> None:
    made = families()

    batch = made.sample(streams(50), made.split("train"), 1, 5, 10)

    assert batch.support_x.shape == batch.support_y.shape == (50, 5, 1)
    assert batch.query_y.shape == (50, 10, 1)
    assert set(batch.units[:, 0].tolist()) <= set(made.split("train").tolist())
    for x, y in ((batch.support_x, batch.support_y), (batch.query_x, batch.query_y)):
        expected = made.evaluate(batch.units[:, 0], x.astype(float))
        np.testing.assert_allclose(y[..., 0], expected, atol=1e-4)
        assert np.abs(x).max() <= 5


def test_the_noise_is_the_settings_unless_it_is_given() -> None:
    for options, std in (
        ({"setting": "mmaml2"}, 0.3),
        ({"setting": "hsml"}, 0.0),
        ({"setting": "hsml", "noise": 0.1}, 0.1),
    ):
        made = families(**options)
        batch = made.sample(streams(200), made.split("train"), 1, 20, 1)
        error = batch.support_y[..., 0] - made.evaluate(
            batch.units[:, 0], batch.support_x.astype(float)
        )
        assert error.std() == pytest.approx(std, rel=0.05, abs=1e-4)


def test_curves_of_arml_have_a_constant_second_column() -> None:
    made = families(setting="arml")

    batch = made.sample(streams(100), np.arange(made.num_units), 1, 5, 5)

    assert made.origin is not None
    is_surface = made.origin[batch.units[:, 0]] >= 4
    assert (batch.support_x[~is_surface, :, 1] == 1).all()
    assert (np.ptp(batch.support_x[is_surface, :, 1], axis=1) > 0).all()
    assert 10 < is_surface.sum() < 60


def test_the_same_seed_has_the_same_functions() -> None:
    once, again, other = families(1), families(1), families(2)

    assert once.digest == again.digest != other.digest
    assert (once.parameters[0] == again.parameters[0]).all()
    assert not np.isin(once.parameters[0], other.parameters[0]).any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"setting": "hmsl"}, "setting 'hmsl': required one of hsml, arml"),
        ({"functions": 249}, "functions 249: required at least 250.*1,000 functions"),
        ({"noise": -1}, "noise -1: required 0 or more"),
    ],
)
def test_unsuitable_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        families(**options)


def test_ways_and_keys_of_pictures_are_refused() -> None:
    for key, value in (("n_way", 5), ("rotations", True), ("splits", "official")):
        task = {"source": "function_families", "n_way": 1, key: value}
        with pytest.raises(ConfigError, match=rf"task\.{key} "):
            FunctionFamilies(from_mapping({"task": task}))


def test_every_setting_has_at_least_two_families() -> None:
    assert all(len(setting.families) > 1 for setting in SETTINGS.values())
