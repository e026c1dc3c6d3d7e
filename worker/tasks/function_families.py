"""`function_families`: regression of single functions of several families.

A unit is one function with its parameters; the family is its origin. A task is a draw of points of
one function; x is uniform in [-5, 5], and y has Gaussian noise in some settings:

| `task.options.setting` | families | noise |
| --- | --- | --- |
| `hsml` | sine, line, quadratic, cubic | none |
| `arml` | those, quadratic surface, ripple; x has two columns, the second 1 in curves | 0.3 |
| `mmaml2`, `mmaml3`, `mmaml5` | sine, line; and quadratic; and tanh, absolute value | 0.3 |

References:
    Yao, Wei, Huang, Li, "Hierarchically Structured Meta-learning", 2019 (HSML), section 5.1, and
    github.com/huaxiuyao/HSML. We differ: the phase is inside the sine, as in ARML's code (theirs
    adds it to the sine).
    Yao, Wu, Tao, Li, Ding, Li, Li, "Automated Relational Meta-learning", 2020 (ARML), section 4.1,
    and github.com/huaxiuyao/ARML.
    Vuorio, Sun, Hu, Lim, "Multimodal Model-Agnostic Meta-Learning via Task-Aware Modulation",
    2019 (MMAML), section 5.1, and github.com/vuoristo/MMAML-Regression.
    In all of them every task is a new function; here there is a pool of them, so that a function
    can be met again and assigned to a pipeline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Float64, Kind, Stream, stream
from dmaml.worker.tasks.base import SPLITS, SplitName, TaskBatch, Units
from dmaml.worker.tasks.only import checked_only
from dmaml.worker.tasks.single import draw_units

X: Final = (-5.0, 5.0)
SHARES: Final = (0.64, 0.16, 0.20)  # of each family: training, validation, test
_VERSION: Final = 1

Range = tuple[float, float]
# (parameters [n, P, 1], x [n, k, columns]) -> y [n, k]
Formula = Callable[[Float64, Float64], Float64]


@dataclass(frozen=True)
class Family:
    """Functions of one formula.

    Attributes:
        name: for people.
        ranges: of each parameter, uniform; the first may be signed.
        formula: of the parameters `[n, P, 1]` and x `[n, k, columns]`.
        is_signed: the first parameter's sign is drawn, each with the same probability.
        is_surface: the second column of x counts.
    """

    name: str
    ranges: tuple[Range, ...]
    formula: Formula
    is_signed: bool = False
    is_surface: bool = False


@dataclass(frozen=True)
class Setting:
    """The families of a paper.

    Attributes:
        families: of its tasks, each as likely as the others.
        columns: of x.
        noise: standard deviation of what is added to y.
    """

    families: tuple[Family, ...]
    columns: int
    noise: float


_AMPLITUDE: Final = (0.1, 5.0)
_WIDE: Final = (-3.0, 3.0)

SINE: Final = Family(
    "sine",
    (_AMPLITUDE, (0.8, 1.2), (0.0, 2 * np.pi)),
    lambda p, x: p[:, 0] * np.sin(p[:, 1] * x[..., 0] + p[:, 2]),
)
SINE_OF_MAML: Final = Family(
    "sine", (_AMPLITUDE, (0.0, np.pi)), lambda p, x: p[:, 0] * np.sin(x[..., 0] - p[:, 1])
)
LINE: Final = Family("line", (_WIDE, _WIDE), lambda p, x: p[:, 0] * x[..., 0] + p[:, 1])
QUADRATIC: Final = Family(
    "quadratic",
    ((-0.2, 0.2), (-2.0, 2.0), _WIDE),
    lambda p, x: (p[:, 0] * x[..., 0] + p[:, 1]) * x[..., 0] + p[:, 2],
)
QUADRATIC_OF_MMAML: Final = Family(
    "quadratic",
    ((0.02, 0.15), _WIDE, _WIDE),
    lambda p, x: p[:, 0] * (x[..., 0] - p[:, 1]) ** 2 + p[:, 2],
    is_signed=True,
)
CUBIC: Final = Family(
    "cubic",
    ((-0.1, 0.1), (-0.2, 0.2), (-2.0, 2.0), _WIDE),
    lambda p, x: ((p[:, 0] * x[..., 0] + p[:, 1]) * x[..., 0] + p[:, 2]) * x[..., 0] + p[:, 3],
)
TANH: Final = Family(
    "tanh", (_WIDE, _WIDE, _WIDE), lambda p, x: p[:, 0] * np.tanh(x[..., 0] - p[:, 1]) + p[:, 2]
)
ABSOLUTE: Final = Family(
    "absolute value",
    (_WIDE, _WIDE, _WIDE),
    lambda p, x: p[:, 0] * np.abs(x[..., 0] - p[:, 1]) + p[:, 2],
)
SURFACE: Final = Family(
    "quadratic surface",
    ((-1.0, 1.0), (-1.0, 1.0)),
    lambda p, x: p[:, 0] * x[..., 0] ** 2 + p[:, 1] * x[..., 1] ** 2,
    is_surface=True,
)
RIPPLE: Final = Family(
    "ripple",
    ((-0.2, 0.2), _WIDE),
    lambda p, x: np.sin(-p[:, 0] * (x[..., 0] ** 2 + x[..., 1] ** 2)) + p[:, 1],
    is_surface=True,
)

_CURVES: Final = (SINE, LINE, QUADRATIC, CUBIC)
_MMAML: Final = (SINE_OF_MAML, LINE, QUADRATIC_OF_MMAML, TANH, ABSOLUTE)
SETTINGS: Final = {
    "hsml": Setting(_CURVES, 1, 0.0),
    "arml": Setting((*_CURVES, SURFACE, RIPPLE), 2, 0.3),
    "mmaml2": Setting(_MMAML[:2], 1, 0.3),
    "mmaml3": Setting(_MMAML[:3], 1, 0.3),
    "mmaml5": Setting(_MMAML, 1, 0.3),
}


@final
class FunctionFamilies:
    """Tasks that are single functions out of a pool (a `TaskSource`).

    Args:
        config: the run's.
        setting: a key of `SETTINGS`.
        functions: in each family; 64 / 16 / 20 % of them train, validate and test.
        noise: standard deviation of what is added to y; None: the setting's.
        only: the family that a split's functions are taken from, by the split's name.

    Raises:
        ConfigError: an unknown setting or family, fewer than 1,000 functions in all, negative
            noise, n_way other than 1, or a key of pictures that is not at its default.
    """

    kind: Literal["classification", "regression"] = "regression"

    def __init__(
        self,
        config: RunConfig,
        setting: str = "hsml",
        functions: int = 1000,
        noise: float | None = None,
        only: dict[str, str] | None = None,
    ) -> None:
        _require_regression(config)
        if setting not in SETTINGS:
            raise ConfigError(
                f"task.options.setting {setting!r}: required one of {', '.join(SETTINGS)}."
            )
        chosen = SETTINGS[setting]
        families = chosen.families
        if type(functions) is not int or functions * len(families) < 1000:
            raise ConfigError(
                f"task.options.functions {functions!r}: required at least "
                f"{-(-1000 // len(families))}, so that the {len(families)} families of {setting!r} "
                "have 1,000 functions."
            )
        self._noise = chosen.noise if noise is None else float(noise)
        if not 0 <= self._noise < np.inf:
            raise ConfigError(f"task.options.noise {noise!r}: required 0 or more.")
        seed = config.run.seed
        self.families = families
        self.parameters = tuple(
            _parameters(family, stream(seed, Kind.SOURCE, index=number), functions)
            for number, family in enumerate(families)
        )
        self.input_shape: tuple[int, ...] = (chosen.columns,)
        self.num_units = functions * len(families)
        self._functions = functions
        self._only = checked_only(only, "family", self.origin_names)
        # unit id -> place: family by family, function by function
        self._place = stream(seed, Kind.UNITS).permutation(self.num_units)
        self.origin: Units | None = self._place // functions
        about = f"function_families {_VERSION} {setting} {functions} {self._noise} {seed}"
        about += f" {sorted(self._only.items())}" * bool(self._only)
        total = hashlib.sha256(about.encode())
        for values in self.parameters:
            total.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
        self.digest = total.hexdigest()

    @property
    def origin_names(self) -> tuple[str, ...]:
        """Names of the families, by origin."""
        return tuple(family.name for family in self.families)

    def num_outputs(self, n_way: int) -> int:
        """Return 1."""
        return 1

    def split(self, name: SplitName) -> Units:
        """Return the ids of the units of a split, int64, sorted."""
        ends = np.round(np.cumsum((0.0, *SHARES)) * self._functions)
        number = SPLITS.index(name)
        own = self._place % self._functions
        is_own = (ends[number] <= own) & (own < ends[number + 1])
        if name in self._only:
            family = self.origin_names.index(self._only[name])
            is_own &= self._place // self._functions == family
        return np.flatnonzero(is_own)

    def unit_name(self, unit: int) -> str:
        """Return a name for people, such as `cubic 0017`."""
        family, number = divmod(int(self._place[unit]), self._functions)
        return f"{self.families[family].name} {number:04d}"

    def evaluate(self, units: Units, x: Float64) -> Float64:
        """Return the functions' values without noise, `[n, k]`.

        Args:
            units: int64 `[n]`.
            x: float64 `[n, k, columns]`.
        """
        y = np.empty(x.shape[:2])
        family, number = np.divmod(self._place[units], self._functions)
        for one in np.unique(family):
            own = family == one
            values = self.parameters[one][number[own]]
            y[own] = self.families[one].formula(values[..., None], x[own])
        return y

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return the points of one function per stream; y is float32 `[T, k, 1]`.

        Raises:
            DataError: no units, or n_way other than 1.
        """
        k, columns = k_shot + k_query, self.input_shape[0]
        drawn = draw_units("function_families", streams, units, n_way)
        chosen = drawn[:, 0]
        x = np.array([one.uniform(k, columns, low=X[0], high=X[1]) for one in streams])
        if columns == 2:
            curves = [not self.families[number].is_surface for number in self._families_of(chosen)]
            x[np.array(curves), :, 1] = 1.0
        y = self.evaluate(chosen, x)
        if self._noise:
            y += np.array([one.normal(k, std=self._noise) for one in streams])
        inputs, outputs = x.astype(np.float32), y[..., None].astype(np.float32)
        return TaskBatch(
            inputs[:, :k_shot],
            outputs[:, :k_shot],
            inputs[:, k_shot:],
            outputs[:, k_shot:],
            drawn,
        )

    def _families_of(self, units: Units) -> list[int]:
        return [int(number) for number in self._place[units] // self._functions]


def _parameters(family: Family, one: Stream, count: int) -> Float64:
    """Return the parameters of so many functions, float64 `[count, P]`."""
    columns = [one.uniform(count, low=low, high=high) for low, high in family.ranges]
    if family.is_signed:
        columns[0] = columns[0] * (2 * one.integers(count, 2) - 1)
    return np.stack(columns, axis=1)


def _require_regression(config: RunConfig) -> None:
    task = config.task
    if task.n_way != 1:
        raise ConfigError(
            f"task.n_way {task.n_way} with task.source 'function_families': regression has no "
            "classes. Set task.n_way to 1."
        )
    defaults: dict[str, object] = {"splits": "default", "unit": "class", "rotations": False}
    for key, default in defaults.items():
        if (value := getattr(task, key)) != default:
            raise ConfigError(
                f"task.{key} {value!r} with task.source 'function_families': it is about "
                f"pictures. Set it to {default!r}."
            )
