"""Learning rates of the outer step over the run."""

from __future__ import annotations

import math

from dmaml.common.outer import OuterSection


def learning_rate(config: OuterSection, index: int, total: int) -> float:
    """Return the rate of one TRAIN round, lr · warm(t) · shape(t).

    ```
    warm(t) = min(1, (t + 1) / (warmup + 1))
    constant  shape = 1
    step      shape = step_factor ^ ⌊t / step_every⌋
    linear    shape = 1 − (1 − final) s
    cosine    shape = 1 − (1 − final) (1 − cos πs) / 2
    s = (t − warmup) / (total − warmup), within [0, 1]
    ```

    The first round is not lost to a rate of 0, nor the last: `final` is the value at t = total,
    one round after the last. A pure function, so nothing of it is in a checkpoint. The rate of a
    constant schedule is `lr` itself, bit for bit.

    Args:
        config: `lr`, `schedule` and its numbers.
        index: TRAIN rounds done, t >= 0.
        total: `run.rounds`; read by linear and cosine only.

    References:
        cosine: Loshchilov, Hutter: SGDR, ICLR 2017, equation 5, without restarts.
    """
    warm = min(1.0, (index + 1) / (config.warmup + 1))
    return config.lr * warm * _shape(config, index, total)


def _shape(config: OuterSection, index: int, total: int) -> float:
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        assert config.step_every is not None
        return float(config.step_factor ** (index // config.step_every))
    share = _share(index - config.warmup, total - config.warmup)
    fall = share if config.schedule == "linear" else (1 - math.cos(math.pi * share)) / 2
    return 1 - (1 - config.final) * fall


def _share(done: int, length: int) -> float:
    if done <= 0:
        return 0.0
    return min(1.0, done / length) if length > 0 else 1.0
