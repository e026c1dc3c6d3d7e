"""`sinusoid`: regression of sine waves, the toy problem of MAML.

References:
    Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
    2017, section 5.1: amplitude in [0.1, 5.0], phase in [0, pi], x in [-5.0, 5.0], all uniform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Literal, final

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Float64, Kind, Stream, stream
from dmaml.worker.tasks.base import SPLITS, SplitName, TaskBatch, Units
from dmaml.worker.tasks.single import draw_units

AMPLITUDE: Final = (0.1, 5.0)
PHASE: Final = (0.0, np.pi)
X: Final = (-5.0, 5.0)


@final
class Sinusoid:
    """Tasks y = A sin(x - b): every task draws its own amplitude A and phase b (a `TaskSource`).

    As in the paper there is no pool of functions, so a unit is a split: three units, whose tasks
    differ by their streams alone. Clustering by function therefore needs another source.

    The phase is subtracted, as in the authors' code; the paper leaves the sign open.

    Raises:
        ConfigError: n_way other than 1, or a key of pictures that is not at its default.
    """

    kind: Literal["classification", "regression"] = "regression"
    input_shape: tuple[int, ...] = (1,)
    num_units = len(SPLITS)
    num_parameters = 2  # amplitude and phase
    origin: Units | None = None

    def __init__(self, config: RunConfig) -> None:
        task = config.task
        if task.n_way != 1:
            raise ConfigError(
                f"task.n_way {task.n_way} with task.source 'sinusoid': regression has no classes. "
                "Set task.n_way to 1."
            )
        defaults: dict[str, object] = {"splits": "default", "unit": "class", "rotations": False}
        for key, default in defaults.items():
            if (value := getattr(task, key)) != default:
                raise ConfigError(
                    f"task.{key} {value!r} with task.source 'sinusoid': it is about pictures. "
                    f"Set it to {default!r}."
                )
        self.digest = hashlib.sha256(f"sinusoid 1 {AMPLITUDE} {PHASE} {X}".encode()).hexdigest()
        self._unit_of = stream(config.run.seed, Kind.UNITS).permutation(len(SPLITS))

    def num_outputs(self, n_way: int) -> int:
        """Return 1."""
        return 1

    def split(self, name: SplitName) -> Units:
        """Return the only unit of a split, int64 `[1]`."""
        number = SPLITS.index(name)
        return self._unit_of[number : number + 1]

    def unit_name(self, unit: int) -> str:
        """Return a name for people."""
        return f"sine waves ({SPLITS[self._unit_of.tolist().index(unit)]})"

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return one sine wave per stream; x and y are float32 `[T, k, 1]`.

        `parameters` holds amplitude and phase.

        Raises:
            DataError: no units, or n_way other than 1.
        """
        chosen = draw_units("sinusoid", streams, units, n_way)
        waves = [_wave(one, k_shot + k_query) for one in streams]
        x, y = (
            np.array([wave[part] for wave in waves], dtype=np.float32).reshape(len(waves), -1, 1)
            for part in (0, 1)
        )
        parameters = np.array([wave[2] for wave in waves], dtype=np.float32)
        return TaskBatch(
            x[:, :k_shot], y[:, :k_shot], x[:, k_shot:], y[:, k_shot:], chosen, parameters
        )


def _wave(one: Stream, count: int) -> tuple[Float64, Float64, Float64]:
    """Return x, y and (amplitude, phase)."""
    amplitude = one.uniform(1, low=AMPLITUDE[0], high=AMPLITUDE[1])
    phase = one.uniform(1, low=PHASE[0], high=PHASE[1])
    x = one.uniform(count, low=X[0], high=X[1])
    return x, amplitude * np.sin(x - phase), np.concatenate([amplitude, phase])
