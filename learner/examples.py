"""What a user gives, as tensors: arrays, labels of any kind, folders of pictures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmaml.common.errors import ConfigError, DataError

Array: TypeAlias = NDArray[Any] | Tensor
Label: TypeAlias = Hashable


def examples(given: Array, shape: tuple[int, ...], what: str) -> Tensor:
    """Return examples as float32 `[N, *shape]`, contiguous.

    Args:
        given: float (taken as it is) or uint8 (0 to 255 becomes 0 to 1); `[N, *shape]`, of grey
            pictures also `[N, height, width]`, of coloured ones `[N, height, width, 3]`. Wider
            whole numbers above 1 are no pictures: whether 0 to 255 is meant cannot be known.
        shape: of one example.
        what: "support" or "query", for errors.

    Raises:
        DataError: another shape, nothing, numbers of another type or that are not finite.
    """
    array = _numpy(given, what)
    if len(shape) == 3 and array.shape[1:] != shape:
        if shape[0] == 1 and array.shape[1:] == shape[1:]:
            array = array[:, None]
        elif array.shape[1:] == (*shape[1:], shape[0]):
            array = np.moveaxis(array, -1, 1)
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        raise DataError(
            f"{what}: required examples of shape (N, {', '.join(map(str, shape))}), found "
            f"{array.shape}. Reshape them, or give a folder of pictures, which may have any size."
        )
    if len(array) == 0:
        raise DataError(f"{what}: required at least one example, found none.")
    is_whole = array.dtype.kind in "iu" and array.dtype != np.uint8
    if len(shape) == 3 and is_whole and array.max() > 1:
        raise DataError(
            f"{what}: found whole numbers up to {array.max()} as {array.dtype}. Give pictures as "
            "uint8 (0 to 255) or as floats from 0 to 1."
        )
    if array.dtype == np.uint8:
        array = np.divide(array, np.float32(255), dtype=np.float32)
    return _finite(array, what)


def targets(given: Any, width: int, count: int) -> Tensor:
    """Return the targets of a regression as float32 `[count, width]`.

    Raises:
        DataError: another shape, or numbers that are not finite.
    """
    array = _numpy(given, "support_y")
    is_column = width == 1 and array.shape == (count,)
    if array.shape != (count, width) and not is_column:
        raise DataError(
            f"support_y: required targets of shape ({count}, {width}), found {array.shape}."
        )
    return _finite(array.reshape(count, width), "support_y")


def numbered(labels: Any, count: int) -> tuple[tuple[Label, ...], Tensor]:
    """Return the classes in the order in which they are first seen, and their numbers.

    Args:
        labels: a sequence of any hashable values, an array or a tensor.
        count: how many there must be.

    Returns:
        The classes, and int64 `[count]`, the place of each label among them.

    Raises:
        DataError: another count, values that are not hashable, or NaN.
    """
    if isinstance(labels, (np.ndarray, Tensor)):
        labels = labels.tolist()
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
        raise DataError(
            f"support_y: required a sequence of {count} labels, found {type(labels).__name__}."
        )
    if len(labels) != count:
        raise DataError(f"support_y: required {count} labels, found {len(labels)}.")
    places: dict[Label, int] = {}
    try:
        numbers = [places.setdefault(label, len(places)) for label in labels]
    except TypeError as error:
        raise DataError(
            f"support_y: {error}. Labels must be hashable, such as strings or numbers."
        ) from None
    if any(label != label for label in places):  # noqa: PLR0124
        raise DataError("support_y: a label is NaN. Give each class a label that equals itself.")
    return tuple(places), torch.tensor(numbers, dtype=torch.int64)


def require_classes(what: str, found: int, n_way: int, any_way: bool, algorithm: str) -> None:
    """Raise unless an algorithm can tell so many classes apart.

    Args:
        what: the support set, for errors.
        found: its classes.
        n_way: those of training.
        any_way: whether the algorithm takes another number.
        algorithm: its name.

    Raises:
        DataError: one class only.
        ConfigError: another number than in training, where the algorithm is tied to it.
    """
    if found < 2:
        raise DataError(
            f"{what}: found {found} class, required at least 2. Add a folder (or a label) for "
            "each class to tell apart."
        )
    if found != n_way and not any_way:
        raise ConfigError(
            f"{what}: found {found} classes, and algorithm {algorithm!r} of this run has outputs "
            f"for exactly {n_way}. Give {n_way} classes, train a run with task.n_way={found}, or "
            "one with protonet, matching or pretrain, which take any number."
        )


def _numpy(given: Any, what: str) -> NDArray[Any]:
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise DataError(f"{what}: required an array, found {error}.") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what}: required numbers, found an array of {array.dtype}.")
    return array


def _finite(array: NDArray[Any], what: str) -> Tensor:
    with np.errstate(over="ignore"):
        values = np.array(array, dtype=np.float32, order="C")  # a copy, which nobody else changes
    if not np.isfinite(values).all():
        raise DataError(f"{what}: it has values that are infinite or NaN. Take them out.")
    return torch.from_numpy(values)
