"""What each parameter of the model is for: adapted, shared by all tasks, or one for each step."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import final

import torch

from dmaml.common.errors import ConfigError
from dmaml.worker.algorithms.episodes import stacked
from dmaml.worker.models.base import Params

HEAD = "head"


@final
class Roles:
    """The model's parameters, divided.

    *Adapted* ones are what the inner loop changes; of *stepwise* ones step k has its own, row k of
    a tensor `[steps + 1, *shape]`, used wherever the model is computed at φ_k (at φ_steps and
    later its last row); the *fixed* ones are the same in every step. The last two are meta-learned
    alone.

    Args:
        names: the model's parameters, in its order.
        adapt: patterns of those that adapt.
        per_step: patterns of the stepwise ones; they go before `adapt`.
        steps: the inner steps of training.

    Raises:
        ConfigError: a pattern that no parameter matches, or none is left to adapt.

    References:
        Raghu, Raghu, Bengio, Vinyals, "Rapid learning or feature reuse? Towards understanding the
        effectiveness of MAML" (2020): ANIL adapts the head alone. Antoniou, Edwards, Storkey, "How
        to train your MAML" (2019), section 4: batch norm's weights and biases by step. We differ:
        their code computes support at φ_k and queries at φ_{k+1} with set k of K; here set k of
        K + 1 belongs to φ_k, whatever goes through it, and no running statistics exist.
    """

    def __init__(
        self, names: Iterable[str], adapt: tuple[str, ...], per_step: tuple[str, ...], steps: int
    ) -> None:
        self.names = tuple(names)
        stepwise = _matching(self.names, per_step, "per_step")
        adapted = _matching(self.names, adapt, "adapt") - stepwise
        if steps and not adapted:
            raise ConfigError(
                f"algorithm.adapt {list(adapt)} with algorithm.per_step {list(per_step)}: every "
                "step's own parameters do not adapt, and no other is left. Name fewer in per_step."
            )
        self.adapted = tuple(name for name in self.names if name in adapted)
        self.stepwise = tuple(name for name in self.names if name in stepwise)
        self.shared = tuple(name for name in self.names if name not in adapted)
        self._steps = steps

    def init(self, params: Params) -> Params:
        """Return the model's fresh parameters with a row for every step where steps differ."""
        rows = self._steps + 1
        return {
            name: torch.stack([value] * rows) if name in self.stepwise else value
            for name, value in params.items()
        }

    def shared_at(self, meta: Params, step: int) -> Params:
        """Return what all tasks share at φ_step, `[*shape]` each."""
        row = self.row(step)
        return {
            name: meta[name][row] if name in self.stepwise else meta[name] for name in self.shared
        }

    def row(self, step: int) -> int:
        """Return the row of the stepwise parameters at φ_step."""
        return min(step, self._steps)

    def start(self, meta: Params, num_tasks: int) -> Params:
        """Return φ_0: views `[num_tasks, *shape]` of the adapted parameters."""
        return stacked({name: meta[name] for name in self.adapted}, num_tasks)

    def model(self, phi: Params, shared: Params, num_tasks: int) -> Params:
        """Return the whole model's parameters, `[num_tasks, *shape]`, in its order."""
        if not shared:
            return phi
        whole = phi | stacked(shared, num_tasks)
        return {name: whole[name] for name in self.names}


def layer_of(name: str) -> str:
    """Return a parameter's layer: its name up to the last dot."""
    layer, dot, _ = name.rpartition(".")
    return layer if dot else name


def _matching(names: tuple[str, ...], patterns: tuple[str, ...], key: str) -> set[str]:
    layers = {name: layer_of(name) for name in names}
    found: set[str] = set()
    for pattern in patterns:
        is_last = pattern == HEAD and HEAD not in layers.values()
        wanted = layers[names[-1]] if is_last else pattern
        matched = {n for n in names if fnmatchcase(n, wanted) or fnmatchcase(layers[n], wanted)}
        if not matched:
            raise ConfigError(
                f"algorithm.{key} {pattern!r} matches no parameter. The model's are: "
                f"{', '.join(names)}."
            )
        found |= matched
    return found
