"""Distributions of times, read from short text such as `lognormal(1.0, 0.3)`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np

from dmaml.common.errors import ConfigError, unknown_sentence
from dmaml.common.seeds import Float64, Stream

BLOCK: Final = 128  # values drawn at a time
_TEXT: Final = re.compile(r"\s*(?:(?P<name>[a-z]\w*)\s*\((?P<args>[^()]*)\)|(?P<number>[^()]+))\s*")


@dataclass(frozen=True)
class Family:
    """One kind of distribution of a time in seconds.

    Attributes:
        names: of its parameters, in order.
        least: smallest value of each parameter; the parameter itself must be larger if `is_open`.
        mean: of the parameters.
        draw: the parameters, a stream and a count -> as many values.
    """

    names: tuple[str, ...]
    least: tuple[float, ...]
    is_open: tuple[bool, ...]
    mean: Callable[..., float]
    draw: Callable[..., Float64]


def _exponential(mean: float, stream: Stream, count: int) -> Float64:
    values: Float64 = -mean * np.log1p(-stream.uniform(count))
    return values


def _lognormal(median: float, sigma: float, stream: Stream, count: int) -> Float64:
    values: Float64 = median * np.exp(stream.normal(count, std=sigma))
    return values


def _pareto(minimum: float, alpha: float, stream: Stream, count: int) -> Float64:
    values: Float64 = minimum * (1.0 - stream.uniform(count)) ** (-1.0 / alpha)
    return values


def _uniform(low: float, high: float, stream: Stream, count: int) -> Float64:
    return stream.uniform(count, low=low, high=high)


def _weibull(scale: float, shape: float, stream: Stream, count: int) -> Float64:
    values: Float64 = scale * (-np.log1p(-stream.uniform(count))) ** (1.0 / shape)
    return values


FAMILIES: Final[dict[str, Family]] = {
    "constant": Family(
        ("value",), (0.0,), (False,),
        lambda value: value, lambda value, stream, count: np.full(count, value),
    ),
    "uniform": Family(
        ("low", "high"), (0.0, 0.0), (False, False), lambda low, high: (low + high) / 2, _uniform
    ),
    "exponential": Family(("mean",), (0.0,), (True,), lambda mean: mean, _exponential),
    "lognormal": Family(
        ("median", "sigma"), (0.0, 0.0), (True, False),
        lambda median, sigma: median * math.exp(sigma**2 / 2), _lognormal,
    ),
    "pareto": Family(
        ("minimum", "alpha"), (0.0, 1.0), (True, True),
        lambda minimum, alpha: minimum * alpha / (alpha - 1), _pareto,
    ),
    "weibull": Family(
        ("scale", "shape"), (0.0, 0.0), (True, True),
        lambda scale, shape: scale * math.gamma(1 + 1 / shape), _weibull,
    ),
}  # fmt: skip


@final
@dataclass(frozen=True)
class Distribution:
    """A distribution of a time, seconds; never negative."""

    name: str
    parameters: tuple[float, ...]
    typed: str = field(default="", compare=False)  # what it was read from, for errors

    def __str__(self) -> str:
        return f"{self.name}({','.join(f'{value:g}' for value in self.parameters)})"

    @property
    def mean(self) -> float:
        """Its mean, seconds; infinity where it is beyond all floats."""
        try:
            return FAMILIES[self.name].mean(*self.parameters)
        except OverflowError:
            return math.inf

    def values(self, make_stream: Callable[[], Stream]) -> Iterator[float]:
        """Return an endless iterator of its values; a constant makes no stream."""
        if self.name == "constant":
            return itertools.repeat(self.parameters[0])
        return self._drawn(make_stream())

    def _drawn(self, stream: Stream) -> Iterator[float]:
        draw = FAMILIES[self.name].draw
        while True:
            yield from draw(*self.parameters, stream, BLOCK).tolist()


def parse(text: str, option: str) -> Distribution:
    """Return the distribution that a text describes; a number alone is a constant.

    Args:
        option: where it was given, for the error.

    Raises:
        ConfigError: an unknown name, a wrong number of parameters, or one out of its range.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{option} {text!r}: required a number of seconds or name(parameters), such as "
            "lognormal(1.0,0.3)."
        )
    name = match["name"] or "constant"
    if name not in FAMILIES:
        raise ConfigError(f"{option}: {unknown_sentence('distribution', name, FAMILIES)}")
    family = FAMILIES[name]
    texts = [match["number"]] if match["name"] is None else match["args"].split(",")
    try:
        values = tuple(float(one) for one in texts)
    except ValueError:
        values = ()
    if len(values) != len(family.names):
        form = f"{name}({','.join(family.names)})"
        raise ConfigError(
            f"{option} {text!r}: required {form} with numbers"
            f"{', or a number of seconds' if name == 'constant' else ''}."
        )
    _check(family, values, option, text)
    found = Distribution(name, values, text)
    if not math.isfinite(found.mean):
        raise ConfigError(f"{option} {text!r}: its mean is not finite. Lower its spread.")
    return found


def _check(family: Family, values: tuple[float, ...], option: str, text: str) -> None:
    limits = zip(family.names, values, family.least, family.is_open, strict=True)
    for name, value, least, is_open in limits:
        is_good = value > least if is_open else value >= least
        if not (is_good and math.isfinite(value)):
            relation = "above" if is_open else "at least"
            raise ConfigError(
                f"{option} {text!r}: {name} is {value:g}, required a finite number {relation} "
                f"{least:g}."
            )
    if family.names == ("low", "high") and values[0] > values[1]:
        raise ConfigError(
            f"{option} {text!r}: low {values[0]:g} exceeds high {values[1]:g}. Exchange them."
        )
