"""The embedded source `glyphs`: handwriting in invented alphabets, drawn as it is needed.

The characters are the same in every run (`alphabets.SEED`); the run's seed divides the alphabets
and numbers the units. Each drawing is another one: shaken knots and strokes, a warp of the sheet,
turn, shear, scale, place and pen, all from the episode's own stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal, final

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Stream
from dmaml.worker.tasks import alphabets, episodes, strokes
from dmaml.worker.tasks.base import SplitName, TaskBatch, Units
from dmaml.worker.tasks.strokes import (
    KNOTS,
    SIZE,
    STROKES,
    Characters,
    Float32,
    Float64,
    Int64,
    Uint8,
)

VERSION: Final = "glyphs 1"  # raise it when a drawing of the same numbers would look different

# Half widths of the uniform noise of a drawing.
KNOT_SHAKE: Final = 0.4  # pixels
STROKE_SHAKE: Final = 0.7  # pixels
WARP: Final = 1.1  # pixels, at 10 pixels from the middle
TURN: Final = 0.2  # tangent of the angle
SHEAR: Final = 0.25
SCALE: Final = 0.18  # of the whole, relative
ASPECT: Final = 0.12  # of width against height, relative
PLACE: Final = 3.0  # pixels
PEN: Final = 0.15  # relative

_SHAKES: Final = STROKES * KNOTS * 2
_MOVES: Final = STROKES * 2
_WARPS: Final = 6
_FRAMES: Final = 7
NOISE: Final = _SHAKES + _MOVES + _WARPS + _FRAMES  # numbers per drawing
BLOCK: Final = 512  # drawings at a time
STYLES: Final = ("round", "angular")  # origins by style
PENS: Final = ("full", "hollow")  # origins by pen
HOLLOW: Final = 3  # every so-manieth alphabet is written with a hollow pen
HOLE: Final = 1.0  # pixels: half the width of its hole
RIM: Final = 0.97  # width of either rim, in half widths of the full pen: ink is alike
UNLIMITED: Final = 2**31  # what the roster says a class has


def draw(characters: Characters, classes: Int64, noise: Float64) -> Uint8:
    """Draw one picture of each class; the same numbers give the same bits in any company.

    Args:
        characters: `C` characters.
        classes: int64 `[N]`, 0 .. C - 1.
        noise: float64 `[N, NOISE]` of [0, 1); all 0.5 is the character as designed.

    Returns:
        uint8 `[N, 1, SIZE, SIZE]`, ink 255 on ground 0.
    """
    pictures = np.empty((len(classes), 1, SIZE, SIZE), dtype=np.uint8)
    for first in range(0, len(classes), BLOCK):
        part = slice(first, first + BLOCK)
        pictures[part, 0] = _draw_block(characters, classes[part], noise[part])
    return pictures


def draw_hollow(characters: Characters, classes: Int64, noise: Float64) -> Uint8:
    """Draw the same lines with a hollow pen; see `draw`."""
    hole = np.full_like(characters.radius, HOLE)
    whole = draw(replace(characters, radius=hole + RIM * characters.radius), classes, noise)
    return whole - draw(replace(characters, radius=hole), classes, noise)


def _draw_block(characters: Characters, classes: Int64, noise: Float64) -> Uint8:
    centred = (2.0 * noise - 1.0).astype(np.float32)
    shake, move, warp, frame = np.split(
        centred, np.cumsum([_SHAKES, _MOVES, _WARPS]).tolist(), axis=1
    )
    knots = characters.knots[classes]
    knots = knots + np.float32(KNOT_SHAKE) * shake.reshape(knots.shape)
    knots += np.float32(STROKE_SHAKE) * move.reshape(-1, STROKES, 1, 2)
    rows = np.arange(len(classes))[:, None]
    points = strokes.combine(characters.weights[classes], knots[rows, characters.stroke[classes]])
    points = _frame(_warp(points, warp), frame)
    radius = characters.radius[classes] * (1 + np.float32(PEN) * frame[:, 6])
    return strokes.rasterise(strokes.fit(points, np.float32(PLACE) * frame[:, 4:6]), radius)


def _warp(points: Float32, noise: Float32) -> Float32:
    """Bend the sheet: the same for all strokes, so that their joints hold."""
    x, y = points[..., 0] * np.float32(0.1), points[..., 1] * np.float32(0.1)
    a = (np.float32(WARP) * noise.T)[..., None]
    bent = np.empty_like(points)
    bent[..., 0] = points[..., 0] + (a[0] * x * y + a[1] * x * x + a[2] * y * y)
    bent[..., 1] = points[..., 1] + (a[3] * x * y + a[4] * x * x + a[5] * y * y)
    return bent


def _frame(points: Float32, noise: Float32) -> Float32:
    """Shear, stretch, scale and turn."""
    turn, shear, scale, aspect = (
        np.float32(width) * noise[:, i, None]
        for i, width in enumerate((TURN, SHEAR, SCALE, ASPECT))
    )
    cosine = 1 / np.sqrt(1 + turn * turn)
    x = (points[..., 0] - shear * points[..., 1]) * (1 + aspect)
    y = points[..., 1] * (1 - aspect)
    framed = np.empty_like(points)
    framed[..., 0] = (x - turn * y) * (cosine * (1 + scale))
    framed[..., 1] = (turn * x + y) * (cosine * (1 + scale))
    return framed


@final
class Glyphs:
    """Thousands of characters of invented alphabets; implements `TaskSource`.

    Split by alphabet, 64 / 16 / 20 % by the run's seed. With `task.rotations` a character turned by
    90, 180 or 270 degrees is a class of its own, in the split of its alphabet.

    Args:
        config: the run's.
        origins: style: a unit's origin is whether its alphabet is written in corners or bends
            (`Style.is_angular`); pen: every third alphabet is written with a hollow pen, whose
            lines have two rims and about as much ink, and that is the origin of its units; null:
            units have no origin.

    Attributes:
        roster: classes, units and splits.
        characters: what the classes look like, before rotations.

    Raises:
        ConfigError: `task.splits` other than `default`, or other origins.
    """

    kind: Literal["classification", "regression"] = "classification"
    input_shape: tuple[int, ...] = (1, SIZE, SIZE)

    def __init__(self, config: RunConfig, *, origins: str | None = None) -> None:
        if origins not in (None, "style", "pen"):
            raise ConfigError(f"task.options.origins {origins!r}: required style, pen, or null.")
        if config.task.splits != "default":
            raise ConfigError(
                f"task.splits {config.task.splits!r} with task.source 'glyphs': it divides "
                "Omniglot. Set task.splits to default."
            )
        self.characters, alphabet = alphabets.characters()
        names, groups = _names(alphabet)
        codes = episodes.split_fractions(alphabets.NUM_ALPHABETS, config.run.seed)
        self.roster = episodes.enroll(
            episodes.Classes(
                names=names,
                num_examples=np.full(len(names), UNLIMITED, dtype=np.int64),
                split=codes[alphabet],
                alphabets=groups,
            ),
            config.task.unit,
            config.task.rotations,
            config.run.seed,
        )
        self.num_units = self.roster.num_units
        self.digest = episodes.digest(self.roster, content_digest(self.characters))
        self.origin: Units | None = None
        self.origin_names: tuple[str, ...] | None = None
        kinds = np.zeros(alphabets.NUM_ALPHABETS, dtype=np.int64)
        if origins == "style":
            kinds[:] = [style.is_angular for style in alphabets.styles()]
            self.origin_names = STYLES
        if origins == "pen":
            kinds[HOLLOW - 1 :: HOLLOW] = 1
            self.origin_names = PENS
            self.digest = hashlib.sha256(f"{self.digest} pens".encode()).hexdigest()
        self._is_hollow = (kinds if origins == "pen" else np.zeros_like(kinds))[alphabet] == 1
        if origins is not None:
            first = self.roster.members[self.roster.starts[:-1]]
            self.origin = kinds[alphabet[self.roster.base(first)]]

    def num_outputs(self, n_way: int) -> int:
        """Return the width of the model's last layer."""
        return n_way

    def split(self, name: SplitName) -> Units:
        """Return the ids of the units of a split, int64, sorted."""
        return self.roster.split(name)

    def unit_name(self, unit: int) -> str:
        """Return a name for people, such as `alphabet 07/character 12 turned 90°`."""
        return self.roster.unit_names[unit]

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return one episode per stream, drawn from `units` alone; all its drawings are new.

        Raises:
            DataError: the units have too few classes.
        """
        k = k_shot + k_query
        drawn = episodes.draw(self.roster, streams, units, n_way, k=0)  # drawings have no numbers
        noise = np.array([one.uniform(n_way * k, NOISE) for one in streams])
        base = np.repeat(self.roster.base(drawn.classes).ravel(), k)
        flat = draw(self.characters, base, noise.reshape(-1, NOISE))
        hollow = np.flatnonzero(self._is_hollow[base])
        flat[hollow] = draw_hollow(self.characters, base[hollow], noise.reshape(-1, NOISE)[hollow])
        pictures = flat.reshape(len(streams), n_way, k, *self.input_shape)
        episodes.turn(pictures, self.roster.turns(drawn.classes))
        return episodes.to_batch(pictures, drawn.units, k_shot)


def content_digest(characters: Characters) -> str:
    """Return the SHA-256 of the drawing code's version and of what the characters look like."""
    total = hashlib.sha256(VERSION.encode())
    for array, dtype in (
        (characters.knots, "<f4"),
        (characters.stroke, "u1"),
        (characters.weights, "<f4"),
        (characters.radius, "<f4"),
    ):
        total.update(repr(array.shape).encode() + np.ascontiguousarray(array, dtype).tobytes())
    return total.hexdigest()


def _names(alphabet: Int64) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a name for each character, and that of its alphabet."""
    first = np.searchsorted(alphabet, alphabet)
    groups = tuple(f"alphabet {number + 1:02d}" for number in alphabet.tolist())
    places = (np.arange(len(alphabet)) - first + 1).tolist()
    return tuple(f"{g}/character {p:02d}" for g, p in zip(groups, places, strict=True)), groups
