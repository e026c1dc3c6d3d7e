"""Distributions of the simulation: their text, their means, their draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.server.simulation.distributions import BLOCK, parse

TEXTS = [
    "constant(2)", "uniform(1,3)", "exponential(2)", "lognormal(1.0, 0.3)", "pareto(0.5,3)",
    "weibull(2,1.5)",
]  # fmt: skip


def drawn(text: str, count: int, seed: int = 1) -> list[float]:
    values = parse(text, "--compute").values(lambda: stream(seed, Kind.SIMULATION))
    return list(itertools.islice(values, count))


def test_a_number_is_a_constant():
    assert str(parse(" 0.5 ", "--latency")) == "constant(0.5)"
    assert drawn("0.5", 3) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("text", TEXTS)
def test_mean_of_many_draws_is_the_mean(text):
    values = np.array(drawn(text, 40_000))

    assert values.mean() == pytest.approx(parse(text, "x").mean, rel=0.02)
    assert values.min() >= 0


@pytest.mark.parametrize("text", TEXTS)
def test_text_of_a_distribution_reads_as_itself(text):
    found = parse(text, "x")

    assert parse(str(found), "x") == found


def test_draws_depend_on_the_stream_alone():
    assert drawn("pareto(1,2)", 2 * BLOCK + 3) == drawn("pareto(1,2)", 2 * BLOCK + 3)
    assert drawn("pareto(1,2)", 3) != drawn("pareto(1,2)", 3, seed=2)


def test_spread_is_that_of_the_formula():
    logs = np.log(drawn("lognormal(3,0.4)", 40_000))
    tail = np.array(drawn("pareto(1,2)", 40_000)) > 4

    assert np.median(logs) == pytest.approx(np.log(3), abs=0.01)
    assert logs.std() == pytest.approx(0.4, rel=0.02)
    assert tail.mean() == pytest.approx(1 / 16, rel=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "required a number of seconds or name"),
        ("lognormal(1,0.3", "required a number of seconds or name"),
        ("lognorm(1,0.3)", "unknown distribution 'lognorm'. Did you mean 'lognormal'"),
        ("lognormal(1)", r"required lognormal\(median,sigma\) with numbers"),
        ("lognormal(1,b)", r"required lognormal\(median,sigma\) with numbers"),
        ("soon", r"required constant\(value\) with numbers, or a number of seconds"),
        ("-1", "value is -1, required a finite number at least 0"),
        ("nan", "value is nan, required a finite number"),
        ("exponential(0)", "mean is 0, required a finite number above 0"),
        ("pareto(1,1)", "alpha is 1, required a finite number above 1"),
        ("uniform(3,1)", "low 3 exceeds high 1. Exchange them"),
        ("lognormal(1,50)", "its mean is not finite"),
        ("weibull(1,0.001)", "its mean is not finite"),
    ],
)
def test_a_bad_text_is_refused_with_one_sentence(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text, "--compute")

    assert str(caught.value).startswith("--compute")
