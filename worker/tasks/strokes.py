"""Pen strokes as splines, and their anti-aliased pictures.

A character has up to four strokes of six knots. Each of its points is a fixed weighted sum of the
six knots of one stroke (a cubic Hermite spline, sampled at equal distances along the pen's path),
so moving the knots moves the line. Only sums, products, quotients, square roots and minima are
used, in a fixed order: a picture has the same bits on every machine and in every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Uint8 = NDArray[np.uint8]

SIZE: Final = 28
STROKES: Final = 4
KNOTS: Final = 6
POINTS: Final = 80
BLOCK: Final = 128  # pictures at a time: their distances fit in a second-level cache
BORDER: Final = 2.0  # pixels kept between the line and the edge of the picture

_SAMPLES: Final = 4  # of each piece of the spline, to measure the path
# The tangent at a knot is a sum of the knots; the outer ones continue the curve beyond its end.
_TANGENTS: Final = 0.5 * np.array(
    [
        [-3, 4, -1, 0, 0, 0],
        [-1, 0, 1, 0, 0, 0],
        [0, -1, 0, 1, 0, 0],
        [0, 0, -1, 0, 1, 0],
        [0, 0, 0, -1, 0, 1],
        [0, 0, 0, 1, -4, 3],
    ]
)


@dataclass(frozen=True)
class Characters:
    """What `C` characters look like.

    Attributes:
        knots: float32 `[C, STROKES, KNOTS, 2]`, (x, y) in pixels from the picture's centre, y down.
        stroke: uint8 `[C, POINTS]`, the stroke that each point is on.
        weights: float32 `[C, POINTS, KNOTS]`, what each knot of that stroke gives to the point.
        radius: float32 `[C]`, half the width of the pen in pixels.
    """

    knots: Float32
    stroke: Uint8
    weights: Float32
    radius: Float32

    def __len__(self) -> int:
        return len(self.knots)


# --- from knots to points -------------------------------------------------------------------


def path(knots: Float64, smooth: Float64) -> Float64:
    """Return places along each stroke, `_SAMPLES` for each piece of the spline.

    Args:
        knots: float64 `[C, STROKES, KNOTS, 2]`, pixels.
        smooth: float64 `[C, STROKES, KNOTS]`, 0 (a corner) to 1 (round) at each knot.

    Returns:
        float64 `[C, STROKES, (KNOTS - 1) * _SAMPLES + 1, 2]`.
    """
    tangents = np.empty_like(knots)
    tangents[..., 1:-1, :] = (knots[..., 2:, :] - knots[..., :-2, :]) / 2
    for end, near, far in ((0, 1, 2), (-1, -2, -3)):
        ahead = 4 * knots[..., near, :] - 3 * knots[..., end, :] - knots[..., far, :]
        tangents[..., end, :] = ahead / (2 if end == 0 else -2)
    tangents *= smooth[..., None]
    here, leave, arrive = _hermite(np.arange(_SAMPLES)[:, None] / _SAMPLES)
    inner = (
        here * knots[..., :-1, None, :]
        + (1 - here) * knots[..., 1:, None, :]
        + leave * tangents[..., :-1, None, :]
        + arrive * tangents[..., 1:, None, :]
    )
    inner = inner.reshape(*knots.shape[:2], -1, 2)
    return np.concatenate([inner, knots[..., -1:, :]], axis=2)


def path_lengths(line: Float64, num_strokes: Int64) -> Float64:
    """Return how far it is from each place of `path` to the next, `[C, STROKES, places - 1]`.

    Strokes from `num_strokes` on, int64 `[C]`, are not drawn and have length 0.
    """
    step = np.diff(line, axis=2)
    length = np.sqrt(step[..., 0] * step[..., 0] + step[..., 1] * step[..., 1])
    drawn: Float64 = length * (np.arange(STROKES) < num_strokes[:, None])[..., None]
    return drawn


def trace(knots: Float64, smooth: Float64, num_strokes: Int64) -> tuple[Uint8, Float32]:
    """Spread `POINTS` points over the strokes of each character, at equal distances.

    Args:
        knots, smooth: as `path` takes them.
        num_strokes: int64 `[C]`, 1 .. STROKES; the others are not drawn.

    Returns:
        `stroke` and `weights` of `Characters`.
    """
    length = path_lengths(path(knots, smooth), num_strokes).reshape(len(knots), -1)
    end = np.cumsum(length, axis=1)
    total = end[:, -1:]
    rows = np.arange(len(knots))[:, None]
    end = rows + end / total  # rising from row to row, so that one search serves all
    target = rows + (np.arange(POINTS) + 0.5) / POINTS
    sample = np.searchsorted(end.ravel(), target, side="right") - rows * end.shape[1]
    within = 1.0 - (end[rows, sample] - target) * total / length[rows, sample]
    stroke, place = np.divmod(sample, (KNOTS - 1) * _SAMPLES)
    at = (place % _SAMPLES + within) / _SAMPLES
    piece = place // _SAMPLES
    weights = _spline(at, piece, smooth[rows, stroke, piece], smooth[rows, stroke, piece + 1])
    return stroke.astype(np.uint8), weights.astype(np.float32)


def _spline(at: Float64, piece: Int64, before: Float64, after: Float64) -> Float64:
    """Return the weights of the knots `[..., KNOTS]` at a place of a piece of the spline.

    Args:
        at: place in the piece, 0 .. 1.
        piece: its number; it goes from knot `piece` to knot `piece + 1`.
        before, after: smoothness at these two knots.
    """
    here, leave, arrive = _hermite(at)
    unit = np.eye(KNOTS)
    return (
        here[..., None] * unit[piece]
        + (1 - here)[..., None] * unit[piece + 1]
        + (leave * before)[..., None] * _TANGENTS[piece]
        + (arrive * after)[..., None] * _TANGENTS[piece + 1]
    )


def _hermite(at: Float64) -> tuple[Float64, Float64, Float64]:
    """Return the cubic Hermite weights of the knot before, its tangent, and the tangent after."""
    square, cube = at * at, at * at * at
    return 2 * cube - 3 * square + 1, cube - 2 * square + at, cube - square


def combine(weights: Float32, knots: Float32) -> Float32:
    """Return the sum of `weights[..., KNOTS]` times `knots[..., KNOTS, 2]`, in the knots' order."""
    total = np.zeros((*weights.shape[:-1], 2), dtype=np.float32)
    for axis in range(2):  # each by itself: a last axis of length 2 makes slow loops
        for knot in range(KNOTS):
            total[..., axis] += weights[..., knot] * knots[..., knot, axis]
    return total


# --- from points to pictures ----------------------------------------------------------------


def fit(points: Float32, shift: Float32) -> Float32:
    """Place points about the picture's centre, shrunk and pushed back where they would leave it.

    Args:
        points: float32 `[N, P, 2]`, pixels from the centre of their own.
        shift: float32 `[N, 2]`, where the centre goes, from the picture's, pixels.

    Returns:
        float32 `[N, P, 2]`, pixels from the picture's centre, within SIZE / 2 - BORDER of it.
    """
    room = np.float32(SIZE / 2 - BORDER)
    low, high = points.min(axis=1), points.max(axis=1)
    half = (high - low) / 2
    scale = np.minimum(np.float32(1), room / np.maximum(half.max(axis=1), room))[:, None]
    middle = (low + high) / 2
    limit = room - half * scale
    moved = np.clip(middle * scale + shift, -limit, limit)
    placed: Float32 = (points - middle[:, None]) * scale[:, None] + moved[:, None]
    return placed


def rasterise(points: Float32, radius: Float32, size: int = SIZE) -> Uint8:
    """Draw round dots, so close that they make lines; ink 255 on ground 0.

    A pixel's ink falls from 1 to 0 over one pixel about the distance `radius` from the nearest
    point, in steps of 1/255.

    Args:
        points: float32 `[N, P, 2]`, (x, y) in pixels from the picture's centre, y down.
        radius: float32 `[N]`, pixels.
        size: height and width of the pictures, pixels.

    Returns:
        uint8 `[N, size, size]`.
    """
    pictures = np.empty((len(points), size, size), dtype=np.uint8)
    for first in range(0, len(points), BLOCK):
        part = slice(first, first + BLOCK)
        pictures[part] = _ink(points[part], radius[part], size)
    return pictures


def _ink(points: Float32, radius: Float32, size: int) -> Uint8:
    grid = (np.arange(size) - (size - 1) / 2).astype(np.float32)[:, None]
    across = np.ascontiguousarray(points.transpose(1, 2, 0))  # the batch last: long inner loops
    nearest = np.full((size, size, len(points)), np.float32(size * size))
    squares = np.empty_like(nearest)
    for x, y in across:
        np.add(np.square(grid - y)[:, None], np.square(grid - x), out=squares)
        np.minimum(nearest, squares, out=nearest)
    ink = (radius + np.float32(0.5)) - np.sqrt(nearest, out=nearest)
    ink = np.clip(ink, 0, 1, out=ink) * np.float32(255) + np.float32(0.5)
    return np.ascontiguousarray(ink.astype(np.uint8).transpose(2, 0, 1))
