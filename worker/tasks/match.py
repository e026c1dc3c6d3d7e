"""Pictures made alike: size, channels and, if asked for, the values that they consist of.

All functions take and return uint8 `[N, channels, height, width]`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmaml.common.seeds import Kind, stream

Uint8 = NDArray[np.uint8]

VERSION: Final = 1  # raise it when the same pictures would come out differently
BLOCK: Final = 512  # pictures at a time
_LUMA: Final = (299, 587, 114)  # thousandths of red, green, blue (ITU-R BT.601)
_NEAR, _FAR = 3, 9  # pixels, widths of the surroundings that order equal pixels


def match(pictures: Uint8, size: int, channels: int, equalise: bool) -> Uint8:
    """Return the pictures `size` pixels square with so many channels, rank-equalised if asked for.

    Args:
        pictures: uint8 `[N, 1 or 3, height, width]`.
        size: pixels.
        channels: 1 or 3.
        equalise: see `equalise_ranks`.
    """
    made = np.empty((len(pictures), channels, size, size), dtype=np.uint8)
    for first in range(0, len(pictures), BLOCK):
        part = slice(first, first + BLOCK)
        alike = resize(to_channels(pictures[part], min(channels, pictures.shape[1])), size)
        made[part] = to_channels(equalise_ranks(alike) if equalise else alike, channels)
    return made


def to_channels(pictures: Uint8, channels: int) -> Uint8:
    """Return grey as three equal channels, or red, green and blue as their luma; else the same."""
    found = pictures.shape[1]
    if found == channels:
        return pictures
    if found == 1:
        repeated: Uint8 = pictures.repeat(channels, axis=1)
        return repeated
    weights = np.array(_LUMA, dtype=np.uint32)[:, None, None]
    luma: Uint8 = (((pictures * weights).sum(1, keepdims=True) + 500) // 1000).astype(np.uint8)
    return luma


def resize(pictures: Uint8, size: int) -> Uint8:
    """Return the middle square of each picture, resized with Pillow's Lanczos filter."""
    height, width = pictures.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pictures[:, :, top : top + side, left : left + side]
    if side == size:
        return square
    planes = np.ascontiguousarray(square.reshape(-1, side, side))
    resized = np.empty((len(planes), size, size), dtype=np.uint8)
    for number, plane in enumerate(planes):
        made = Image.fromarray(plane).resize((size, size), Image.Resampling.LANCZOS)
        resized[number] = np.asarray(made)
    return resized.reshape(*pictures.shape[:2], size, size)


def equalise_ranks(pictures: Uint8) -> Uint8:
    """Replace each pixel by its rank in its plane: every plane then has the very same values.

    Equal pixels are ordered by the mean of their surroundings, 3 and then 9 pixels wide, and what
    is equal still by a fixed random order of the places.

    References:
        Coltuc, Bolon, Chassery, "Exact histogram specification", IEEE Transactions on Image
        Processing, 2006: the order by ever wider means. We differ: two square means, and the
        fixed order where theirs goes on with wider ones.
    """
    height, width = pictures.shape[2:]
    count = height * width
    planes = pictures.reshape(-1, height, width).astype(np.int64)
    last = stream(0, Kind.SOURCE, index=count).permutation(count).reshape(height, width)
    key = planes
    for side in (_NEAR, _FAR):
        key = key * (256 * side * side) + _box_sum(planes, side)
    key = (key * count + last).reshape(-1, count)
    ranks = np.empty(key.shape, dtype=np.int64)
    np.put_along_axis(ranks, key.argsort(1), np.arange(count)[None], axis=1)
    values: Uint8 = (ranks * 255 // max(count - 1, 1)).astype(np.uint8).reshape(pictures.shape)
    return values


def _box_sum(planes: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Return the sum of the square around each pixel; the border is repeated outwards."""
    margin = side // 2
    padded = np.pad(planes, ((0, 0), (margin + 1, margin), (margin + 1, margin)), mode="edge")
    total = padded.cumsum(1).cumsum(2)
    rows = total[:, side:] - total[:, :-side]
    sums: NDArray[np.int64] = rows[:, :, side:] - rows[:, :, :-side]
    return sums
