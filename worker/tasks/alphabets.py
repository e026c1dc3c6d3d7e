"""Invented alphabets: letters of a few pen strokes, in a style of their own per alphabet.

As in Lake et al. 2015, a character is a program: an alphabet has a small set of stroke shapes, and
a character is one to four of them, each started on an earlier one or beside it. Here the shapes are
paths of a turtle (how far it turns at each knot, how long each of its steps is), and the style is
which shapes, directions, sizes and joints an alphabet prefers, how round, slanted and wide it
writes, and with which pen. Of the candidates those are kept that are legible and unlike the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from dmaml.common.seeds import Kind, Stream, stream
from dmaml.worker.tasks.strokes import (
    KNOTS,
    POINTS,
    SIZE,
    STROKES,
    Characters,
    Float64,
    Int64,
    Uint8,
    path,
    path_lengths,
    rasterise,
    trace,
)

SEED: Final = 20151211  # of the alphabets themselves; the run's seed only splits and draws them
NUM_ALPHABETS: Final = 60
SMALLEST: Final = 24  # characters of an alphabet
LARGEST: Final = 52
CANDIDATES: Final = 128  # drawn per alphabet, before the illegible and the alike go

_GLANCE: Final = 1.6  # pixels: half the width of the pen that candidates are compared with
_CLUTTER: Final = 1.2
_SHORTEST: Final = 8.0  # pixels of path
_LONGEST: Final = 0.8 * POINTS  # so that points are dense enough for a smooth line
_UNIT: Final = 11.0  # pixels: a stroke of length 1
_SINES: Final = np.array([round(math.sin(math.radians(i)), 9) for i in range(360)])


@dataclass(frozen=True)
class Shape:
    """One kind of stroke: its five steps, and how the pen turns between them.

    Attributes:
        turns: degrees at the four inner knots, clockwise positive.
        steps: relative lengths.
        length: of the whole stroke, in units of a plain bar.
        smooth: 0 where the turns are corners, 1 where they are bends.
        weight: how often an alphabet has it.
    """

    turns: tuple[int, int, int, int]
    steps: tuple[float, float, float, float, float]
    length: float
    smooth: float
    weight: float


_EVEN: Final = (1.0, 1.0, 1.0, 1.0, 1.0)
SHAPES: Final = (
    Shape((0, 0, 0, 0), _EVEN, 1.0, 1.0, 3.0),  # bar
    Shape((0, 0, 0, 0), _EVEN, 0.5, 1.0, 1.0),  # short bar
    Shape((25, 25, 25, 25), _EVEN, 1.1, 1.0, 1.5),  # arc
    Shape((45, 45, 45, 45), (1.4, 0.8, 0.7, 0.8, 1.4), 1.8, 1.0, 2.0),  # bowl, arch
    Shape((60, 60, 60, 60), (1.0, 1.0, 1.0, 1.0, 1.0), 1.9, 1.0, 1.2),  # open ring, c
    Shape((74, 74, 74, 74), (1.0, 1.0, 1.0, 1.0, 1.0), 1.9, 1.0, 1.2),  # ring
    Shape((74, 74, 74, 74), (1.0, 1.0, 1.0, 1.0, 1.0), 1.1, 1.0, 0.7),  # small ring
    Shape((0, 15, 65, 80), (1.5, 1.3, 0.8, 0.6, 0.6), 1.4, 1.0, 1.8),  # hook
    Shape((70, 50, -50, -70), (0.9, 0.9, 1.2, 0.9, 0.9), 1.8, 1.0, 1.0),  # s
    Shape((20, 110, 75, 75), (1.5, 1.1, 0.8, 0.8, 0.8), 2.0, 1.0, 1.2),  # bar into a loop, e
    Shape((55, 70, 85, 95), (1.5, 1.2, 1.0, 0.8, 0.6), 2.2, 1.0, 0.7),  # spiral
    Shape((95, -120, 120, -95), (1.0, 0.8, 0.8, 0.8, 1.0), 1.9, 1.0, 0.35),  # wave
    Shape((80, 80, -150, 80), (0.9, 0.8, 0.8, 0.8, 0.9), 1.9, 1.0, 0.8),  # two bumps, 3
    Shape((0, 90, 0, 0), (1.0, 1.0, 0.8, 0.6, 0.6), 1.5, 0.0, 2.0),  # corner
    Shape((0, 140, 0, 0), (1.1, 1.1, 0.8, 0.7, 0.7), 1.8, 0.0, 1.2),  # v
    Shape((0, 125, 0, -125), (0.6, 0.6, 0.7, 0.7, 1.2), 2.0, 0.0, 0.8),  # z
    Shape((90, 0, 0, 90), (0.9, 0.7, 0.7, 0.7, 0.9), 1.9, 0.0, 1.0),  # bracket
    Shape((90, 0, 90, 0), (1.0, 0.6, 0.6, 0.6, 0.6), 1.8, 0.0, 0.8),  # low bracket
    Shape((140, -140, 140, -140), (0.9, 0.9, 0.9, 0.9, 0.9), 2.4, 0.0, 0.15),  # zigzag
    Shape((0, 0, 0, 0), _EVEN, 0.14, 1.0, 0.6),  # dot
)
_TURNS: Final = np.array([shape.turns for shape in SHAPES], dtype=np.float64)
_STEPS: Final = np.array(
    [[shape.length * step / sum(shape.steps) for step in shape.steps] for shape in SHAPES]
)
_SMOOTH: Final = np.array([shape.smooth for shape in SHAPES])
_SHARP: Final = _SMOOTH == 0.0
_SHAPE_WEIGHTS: Final = np.array([shape.weight for shape in SHAPES])
_DOT: Final = len(SHAPES) - 1
_BARS: Final = 2  # the first shapes are bars


@dataclass(frozen=True)
class Style:
    """What the characters of one alphabet have in common; weights are cumulative, ending in 1."""

    shapes: Int64
    shape_weights: Float64
    directions: Int64  # degrees, clockwise from rightward
    direction_weights: Float64
    sizes: Float64
    count_weights: Float64  # of 1, 2, 3, 4 strokes
    joint_weights: Float64  # of: start, middle, end of the earlier stroke; beside it
    mirrored: float  # probability that a stroke bends anticlockwise
    roundness: float  # smoothness of corners, and how far the bends go
    stem: int  # a shape that most characters begin with, or -1
    stem_direction: int
    slant: float
    width: float
    height: float  # pixels of a large character
    radius: float  # pixels

    @property
    def is_angular(self) -> bool:
        """Whether the alphabet prefers corners; no alphabet is in between."""
        return self.roundness < 0.2


@cache
def characters() -> tuple[Characters, Int64]:
    """Return every character of every alphabet, and the alphabet of each, int64 `[C]`.

    The same numbers on every machine, whatever the run's seed; they are made once in a process,
    and cannot be written to.
    """
    parts = [alphabet(stream(SEED, Kind.SOURCE, index=number)) for number in range(NUM_ALPHABETS)]
    together = Characters(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in Characters.__dataclass_fields__
        )
    )
    for name in Characters.__dataclass_fields__:
        getattr(together, name).setflags(write=False)
    of_each = np.repeat(np.arange(NUM_ALPHABETS), [len(part) for part in parts])
    of_each.setflags(write=False)
    return together, of_each


def styles() -> tuple[Style, ...]:
    """Return the style of every alphabet."""
    return tuple(
        invent_style(stream(SEED, Kind.SOURCE, index=number)) for number in range(NUM_ALPHABETS)
    )


def alphabet(source: Stream) -> Characters:
    """Return the SMALLEST to LARGEST characters of one invented alphabet."""
    style = invent_style(source)
    size = SMALLEST + int(source.integers(1, LARGEST - SMALLEST + 1)[0])
    knots, smooth, num_strokes = _candidates(style, source)
    line = path(knots, smooth)
    length = path_lengths(line, num_strokes).sum(axis=(1, 2))
    kept = _choose(_glance(line[:, :, ::2], num_strokes), length, size)
    stroke, weights = trace(knots[kept], smooth[kept], num_strokes[kept])
    radius = np.full(size, style.radius, dtype=np.float32)
    return Characters(knots[kept].astype(np.float32), stroke, weights, radius)


# --- style ----------------------------------------------------------------------------------


def invent_style(source: Stream) -> Style:
    """Draw the style of an alphabet."""
    u = iter(source.uniform(64).tolist())
    angular = next(u) < 0.3
    round_only = next(u) < 0.35
    liking = _SHAPE_WEIGHTS.copy()
    liking[_SHARP] *= 3.0 if angular else 0.15 if round_only else 0.8
    liking[~_SHARP & (_TURNS != 0).any(axis=1)] *= 0.25 if angular else 1.0
    keys = np.array([next(u) for _ in SHAPES]) / liking  # small keys: liked
    shapes = np.argsort(keys, kind="stable")[: 4 + int(4 * next(u))]
    if not (shapes < _BARS).any():
        shapes[-1] = 0
    emphasis = np.array([0.4 + next(u) for _ in shapes]) * np.where(shapes == _DOT, 0.5, 1.0)
    diagonal = 0.1 if next(u) < 0.6 else 0.9
    directions = np.array([0, 90, 45, 135, 180, 270])
    preference = np.array([0.9, 1.3, diagonal, diagonal, 0.35, 0.25])
    preference = preference * np.array([0.3 + next(u) for _ in directions])
    many = next(u)
    counts = np.array([0.7 - 0.4 * many, 1.2, 0.4 + many, 0.6 * many * many])
    joints = np.array([0.5 + next(u), 0.3 + next(u), 0.5 + next(u), 0.15 + 0.5 * next(u)])
    stem = int(shapes[0]) if next(u) < 0.35 else -1
    return Style(
        shapes=shapes.astype(np.int64),
        shape_weights=_cumulative(emphasis),
        directions=directions,
        direction_weights=_cumulative(preference),
        sizes=np.array([1.0, 0.5 + 0.25 * next(u), 1.0 + 0.3 * next(u)]),
        count_weights=_cumulative(counts),
        joint_weights=_cumulative(joints),
        mirrored=(0.1, 0.5, 0.9)[int(3 * next(u))],
        roundness=0.15 * next(u) if angular else 0.25 + 0.75 * next(u),
        stem=stem,
        stem_direction=90 if next(u) < 0.6 else 0,
        slant=0.35 * (next(u) - 0.5) if next(u) < 0.6 else 0.0,
        width=0.8 + 0.45 * next(u),
        height=15.0 + 4.0 * next(u),
        radius=0.72 + 0.3 * next(u),
    )


def _cumulative(weights: Float64) -> Float64:
    total: Float64 = np.cumsum(weights)
    normal: Float64 = total / total[-1]
    return normal


def _pick(cumulative: Float64, uniform: Float64) -> Int64:
    """Return the index that each number of [0, 1) falls on."""
    return np.searchsorted(cumulative, uniform, side="right").astype(np.int64)


# --- characters -----------------------------------------------------------------------------


def _candidates(style: Style, source: Stream) -> tuple[Float64, Float64, Int64]:
    """Return knots, smoothness and number of strokes of CANDIDATES characters, as `trace` takes."""
    choice = source.uniform(8, CANDIDATES, STROKES)
    num_strokes = 1 + _pick(style.count_weights, choice[0, :, 0])
    shape = style.shapes[_pick(style.shape_weights, choice[1])]
    direction = style.directions[_pick(style.direction_weights, choice[2])]
    if style.stem >= 0:
        begins = (choice[3, :, 0] < 0.75) & (num_strokes > 1)
        shape[begins, 0] = style.stem
        direction[begins, 0] = style.stem_direction
    shape[:, 0] = np.where(shape[:, 0] == _DOT, style.shapes[0], shape[:, 0])
    size = style.sizes[(3 * choice[4]).astype(np.int64)]
    sign = np.where(choice[5] < style.mirrored, -1.0, 1.0)
    own, smooth = _walk(style, shape, direction, size, sign)
    knots = _join(style, own, choice[6], choice[7])
    return _frame(style, knots, num_strokes), smooth, num_strokes


def _walk(
    style: Style, shape: Int64, direction: Int64, size: Float64, sign: Float64
) -> tuple[Float64, Float64]:
    """Return the knots of each stroke from its start, pixels, and their smoothness."""
    bend = np.where(_SHARP[shape], 1.0, 0.8 + 0.2 * style.roundness)
    turns = _TURNS[shape] * (bend * sign)[..., None]
    heading = direction[..., None] + np.concatenate(
        [np.zeros((*shape.shape, 1)), np.cumsum(turns, axis=-1)], axis=-1
    )
    degrees = np.rint(heading).astype(np.int64)
    length = _UNIT * _STEPS[shape] * size[..., None]
    steps = np.stack(
        [_SINES[(degrees + 90) % 360] * length, _SINES[degrees % 360] * length], axis=-1
    )
    start = np.zeros((*shape.shape, 1, 2))
    knots = np.concatenate([start, np.cumsum(steps, axis=-2)], axis=-2)
    smooth = np.maximum(_SMOOTH[shape], 0.7 * style.roundness)[..., None]
    return knots, np.broadcast_to(smooth, (*shape.shape, KNOTS))


def _join(style: Style, own: Float64, how: Float64, where: Float64) -> Float64:
    """Move each stroke to a joint on an earlier one, or beside it."""
    knots = own.copy()
    rows = np.arange(len(own))
    for number in range(1, STROKES):
        earlier = (how[:, number] * 16 * number).astype(np.int64) % number
        joint = _pick(style.joint_weights, where[:, number])
        knot = np.array([0, 2, KNOTS - 1, 0])[joint]
        place = knots[rows, earlier, knot]
        beside = joint == 3
        side = np.where(how[:, number] * 64 % 1.0 < 0.5, 1.0, -1.0)
        place[:, 0] += np.where(beside, 0.45 * _UNIT * side, 0.0)
        half = (own[:, number].min(axis=1) + own[:, number].max(axis=1)) / 2
        middle = (where[:, number] * 32 % 1.0 < 0.3)[:, None] & ~beside[:, None]
        knots[:, number] += (place - np.where(middle, half, 0.0))[:, None]
    return knots


def _frame(style: Style, knots: Float64, num_strokes: Int64) -> Float64:
    """Slant, widen, centre and scale, and round to 1/64 pixel."""
    drawn = (np.arange(STROKES) < num_strokes[:, None])[..., None, None]
    x, y = style.width * (knots[..., 0] - style.slant * knots[..., 1]), knots[..., 1]
    placed = np.stack([x, y], axis=-1)
    low = np.where(drawn, placed, np.inf).min(axis=(1, 2))
    high = np.where(drawn, placed, -np.inf).max(axis=(1, 2))
    extent = (high - low).max(axis=1)
    aim = np.clip(extent, 0.6 * style.height, style.height)
    placed = (placed - ((low + high) / 2)[:, None, None]) * (aim / extent)[:, None, None, None]
    return np.where(drawn, np.rint(placed * 64) / 64, 0.0)


# --- choice ---------------------------------------------------------------------------------


def _glance(line: Float64, num_strokes: Int64) -> Uint8:
    """Draw candidates with a thick pen at half size, uint8 `[C, SIZE / 2, SIZE / 2]`."""
    hidden = (np.arange(STROKES) >= num_strokes[:, None])[..., None, None]
    points = 0.5 * np.where(hidden, line[:, :1], line).reshape(len(line), -1, 2)
    radius = np.full(len(line), _GLANCE / 2, dtype=np.float32)
    return rasterise(points.astype(np.float32), radius, SIZE // 2)


def _choose(looks: Uint8, length: Float64, size: int) -> Int64:
    """Return `size` candidates, legible and as unlike each other as there are, in their order.

    Sums of products of whole numbers are exact in float64, so `@` gives the same bits everywhere.
    """
    flat = looks.reshape(len(looks), -1).astype(np.float64)
    product = flat @ flat.T
    own = np.diagonal(product)
    unlike = 1.0 - 2.0 * product / (own[:, None] + own)
    clutter = length * _GLANCE * 2 / (4.0 / 255.0 * flat.sum(axis=1))  # ink laid down / ink seen
    legible = (clutter < _CLUTTER) & (length < _LONGEST) & (length > _SHORTEST)
    for least in (0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.0):
        kept: list[int] = []
        open_ = legible.copy() if least else np.ones(len(looks), dtype=bool)
        while len(kept) < size and open_.any():
            kept.append(int(open_.argmax()))
            open_ &= unlike[kept[-1]] >= least
            open_[kept[-1]] = False
        if len(kept) == size:
            break
    return np.array(kept, dtype=np.int64)
