"""Named tensors <-> one flat little-endian float32 buffer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dmaml.common.errors import ProtocolError

Flat = NDArray[np.float32]

MAX_TENSORS = 65_536
MAX_DIMS = 16
MAX_NAME = 512
_BLOCK = 1 << 14


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a meta-model."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The order, names and shapes of a meta-model's tensors in its flat buffer."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.tensors]
        if not names or len(names) > MAX_TENSORS:
            raise ProtocolError(
                f"layout refused: {len(names)} tensors; a model has 1 to {MAX_TENSORS}."
            )
        if len(set(names)) != len(names):
            raise ProtocolError("layout refused: two tensors have one name. Name each differently.")
        for spec in self.tensors:
            if not (spec.name and spec.name.isprintable() and len(spec.name) <= MAX_NAME):
                raise ProtocolError(
                    f"layout refused: tensor name {spec.name[:MAX_NAME]!r}; required 1 to "
                    f"{MAX_NAME} printable characters."
                )
            if len(spec.shape) > MAX_DIMS or any(side < 1 for side in spec.shape):
                raise ProtocolError(
                    f"layout refused: tensor {spec.name!r} has shape {spec.shape}; "
                    f"required at most {MAX_DIMS} dimensions of at least 1."
                )

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Layout:
        """Return the layout of named arrays, in the mapping's order."""
        return cls(tuple(TensorSpec(name, tuple(a.shape)) for name, a in arrays.items()))

    @cached_property
    def size(self) -> int:
        """Number of float32 elements of the flat buffer."""
        return sum(spec.size for spec in self.tensors)

    @property
    def num_bytes(self) -> int:
        """Bytes of the flat buffer."""
        return 4 * self.size

    @cached_property
    def schema_hash(self) -> str:
        """SHA-256 of names and shapes, in hexadecimal."""
        text = "\n".join(f"{spec.name}\t{','.join(map(str, spec.shape))}" for spec in self.tensors)
        return hashlib.sha256(text.encode()).hexdigest()

    def views(self, flat: Flat) -> dict[str, Flat]:
        """Return each tensor as a view into `flat` (float32 `[size]`).

        Raises:
            ProtocolError: the buffer has another size.
        """
        self.require(flat.size)
        out: dict[str, Flat] = {}
        start = 0
        for spec in self.tensors:
            out[spec.name] = flat[start : start + spec.size].reshape(spec.shape)
            start += spec.size
        return out

    def flatten(self, arrays: Mapping[str, NDArray[np.float32]]) -> Flat:
        """Return the arrays as one new flat buffer, float32 `[size]`.

        Raises:
            ProtocolError: a tensor is missing or has another shape.
        """
        flat = np.empty(self.size, dtype="<f4")
        for name, view in self.views(flat).items():
            if name not in arrays or tuple(arrays[name].shape) != view.shape:
                found = tuple(arrays[name].shape) if name in arrays else "nothing"
                raise ProtocolError(
                    f"tensor {name!r}: required shape {view.shape}, found {found}. "
                    "The model changed during the run."
                )
            view[...] = arrays[name]
        return flat

    def require(self, size: int) -> None:
        """Raise unless `size` elements are what this layout holds."""
        if size != self.size:
            raise ProtocolError(f"required {self.size} float32 values, found {size}.")


def norm_of(vector: Flat) -> float:
    """Return the Euclidean norm in float64; NaN or infinity where a value is not finite.

    Blocks are squared in a buffer that stays in a core's cache.
    """
    scratch = np.empty(min(_BLOCK, vector.size), dtype=np.float64)
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, vector.size, _BLOCK):
            part = vector[start : start + _BLOCK]
            square = scratch[: part.size]
            np.multiply(part, part, out=square, dtype=np.float64)
            total += float(np.sum(square))
    return math.sqrt(total)
