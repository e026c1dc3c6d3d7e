"""The embedded source `textures`: natural-looking materials in colour, drawn as they are needed.

The textures are the same in every run (`materials.SEED`); the run's seed divides the materials and
numbers the units. Each drawing is another piece: elsewhere on the sheet, turned, zoomed, lit and
tinted a little otherwise, all from the episode's own stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Float64, Stream
from dmaml.worker.tasks import episodes, materials
from dmaml.worker.tasks.base import SplitName, TaskBatch, Units
from dmaml.worker.tasks.materials import COLOURS, SIDE, Float32, Int64, Textures

Uint8 = NDArray[np.uint8]

VERSION: Final = "textures 1"  # raise it when a drawing of the same numbers would look different

TURN: Final = 0.35  # tangent of the angle, half width
ZOOM: Final = 0.25  # relative
LIGHT: Final = 0.18  # relative, at the border against the middle
BRIGHTNESS: Final = 0.25  # relative
TINT: Final = 0.06  # relative, per channel

NOISE: Final = 15  # numbers per drawing
BLOCK: Final = 64  # drawings at a time: their numbers stay in the cache
UNLIMITED: Final = 2**31  # what the roster says a class has
_MASK: Final = SIDE - 1


def draw(textures: Textures, bank: Float32, classes: Int64, noise: Float64, size: int) -> Uint8:
    """Draw one picture of each class; the same numbers give the same bits in any company.

    Args:
        textures: `C` textures.
        bank: their noise.
        classes: int64 `[N]`, 0 .. C - 1.
        noise: float64 `[N, NOISE]` of [0, 1).
        size: height and width, pixels; the same piece at any size.

    Returns:
        uint8 `[N, 3, size, size]`.
    """
    pictures = np.empty((len(classes), 3, size * size), dtype=np.uint8)
    fields, colours = bank.reshape(len(bank), -1), textures.colours.reshape(-1, 3)
    for first in range(0, len(classes), BLOCK):
        part = slice(first, first + BLOCK)
        chosen, centred = classes[part], (2 * noise[part] - 1).astype(np.float32)
        value = _values(textures, fields, chosen, centred, size)
        index = (value * np.float32(COLOURS - 1)).astype(np.int32)
        index += (chosen * COLOURS).astype(np.int32)[:, None]
        light = _light(textures, fields, chosen, centred, size)
        tint = 255 * (1 + np.float32(TINT) * centred[:, 12:15])
        for channel in range(3):
            shade = colours[:, channel].take(index)
            shade *= light
            shade *= tint[:, channel, None]
            np.clip(shade, 0, 255, out=shade)
            pictures[part, channel] = shade  # cuts off the fraction
    return pictures.reshape(-1, 3, size, size)


def _values(
    textures: Textures, fields: Float32, classes: Int64, noise: Float32, size: int
) -> Float32:
    """Return v of `materials`, float32 `[N, size * size]` of [0, 1]."""
    x, y = _grid(size)
    tangent = np.float32(TURN) * noise[:, 0]
    cosine = (1 + np.float32(ZOOM) * noise[:, 1]) / np.sqrt(1 + tangent * tangent)
    sine = tangent * cosine
    sheet = textures.sheet[classes]
    place = noise[:, 2:8] * SIDE + 4 * SIDE  # positive, so that truncation is the floor
    warp = textures.warp[classes, None]
    along, across = (
        (sheet[:, i, 0] * cosine + sheet[:, i, 1] * sine)[:, None] * x
        + (sheet[:, i, 1] * cosine - sheet[:, i, 0] * sine)[:, None] * y
        + place[:, i, None]
        + warp * _bend(fields, x * 2 + place[:, 2 + i, None], y * 2 + place[:, 4 + i, None])
        for i in (0, 1)
    )
    value = _look_up(fields, textures.field[classes], along, across)
    value *= textures.gain[classes, None]
    slope = textures.slope[classes] / np.linalg.norm(sheet[:, 1], axis=1)
    value += slope[:, None] * across
    value -= np.floor(value)
    return value


def _bend(fields: Float32, along: Float32, across: Float32) -> Float32:
    return _look_up(fields, materials.BLOBS, along, across) - np.float32(0.5)


def _light(
    textures: Textures, fields: Float32, classes: Int64, noise: Float32, size: int
) -> Float32:
    """Return how bright each pixel is, float32 `[N, size * size]` about 1."""
    x, y = _grid(size)
    shine = _look_up(fields, materials.GRAIN, x * 2.5 + (noise[:, 8, None] + 2) * SIDE,
                     y * 2.5 + (noise[:, 9, None] + 2) * SIDE)  # fmt: skip
    shine -= np.float32(0.5)
    shine *= textures.grain[classes, None]
    slant = np.float32(LIGHT / 14) * noise[:, 9:11]
    shine += slant[:, :1] * x + slant[:, 1:] * y
    shine += 1 + np.float32(BRIGHTNESS) * noise[:, 11, None]
    return shine


def _look_up(fields: Float32, number: Int64 | int, along: Float32, across: Float32) -> Float32:
    """Return the texel of field `number` under each point, `[N, P]`."""
    index = across.astype(np.int32)
    index &= _MASK
    index *= SIDE
    column = along.astype(np.int32)
    column &= _MASK
    index += column
    offset = np.asarray(number, dtype=np.int32) * (SIDE * SIDE)
    index += offset if offset.ndim == 0 else offset[:, None]
    return fields.ravel().take(index)


def _grid(size: int) -> tuple[Float32, Float32]:
    """Return x and y of each pixel, -14 to 14 across the picture whatever its size."""
    one = ((np.arange(size) + 0.5) * (28 / size) - 14).astype(np.float32)
    return np.tile(one, size), one.repeat(size)


@final
class TextureSource:
    """Tasks of textures (a `TaskSource`); `task.image_size` pixels square, in colour.

    The run's seed divides the materials, 64 / 16 / 20 %; a material is an alphabet of `task.unit`.

    Raises:
        ConfigError: `task.splits` other than default.
    """

    kind: Literal["classification", "regression"] = "classification"

    def __init__(self, config: RunConfig) -> None:
        task = config.task
        if task.splits != "default":
            raise ConfigError(
                f"task.splits {task.splits!r} with task.source 'textures': its materials are "
                "divided by seed. Set task.splits to default."
            )
        self.textures, self.bank = materials.textures(), materials.bank()
        names, groups = _names(self.textures.material)
        split = episodes.split_fractions(materials.NUM_MATERIALS, config.run.seed, "materials")
        classes = episodes.Classes(
            names,
            np.full(len(names), UNLIMITED, dtype=np.int64),
            split[self.textures.material],
            groups,
        )
        self.roster = episodes.enroll(classes, task.unit, task.rotations, config.run.seed)
        self.input_shape: tuple[int, ...] = (3, task.image_size, task.image_size)
        self.num_units = self.roster.num_units
        self.origin = self.roster.origin
        content = content_digest(self.textures, self.bank, task.image_size)
        self.digest = episodes.digest(self.roster, content)

    def num_outputs(self, n_way: int) -> int:
        """Return n_way."""
        return n_way

    def split(self, name: SplitName) -> Units:
        """Return the ids of the units of a split, int64, sorted."""
        return self.roster.split(name)

    def unit_name(self, unit: int) -> str:
        """Return a name for people, such as `material 07/texture 3 turned 90°`."""
        return self.roster.unit_names[unit]

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return one episode per stream, drawn from `units` alone; all its pictures are new.

        Raises:
            DataError: the units have too few classes.
        """
        k = k_shot + k_query
        drawn = episodes.draw(self.roster, streams, units, n_way, k=0)  # drawings have no numbers
        noise = np.array([one.uniform(n_way * k, NOISE) for one in streams])
        base = np.repeat(self.roster.base(drawn.classes).ravel(), k)
        flat = draw(self.textures, self.bank, base, noise.reshape(-1, NOISE), self.input_shape[1])
        pictures = flat.reshape(len(streams), n_way, k, *self.input_shape)
        episodes.turn(pictures, self.roster.turns(drawn.classes))
        return episodes.to_batch(pictures, drawn.units, k_shot)


def content_digest(textures: Textures, bank: Float32, size: int) -> str:
    """Return the SHA-256 of the drawing code's version, the textures and the bank."""
    total = hashlib.sha256(f"{VERSION} {size}".encode())
    for array in (textures.field, textures.sheet, textures.gain, textures.slope, textures.warp,
                  textures.grain, textures.colours, bank):  # fmt: skip
        total.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return total.hexdigest()


def _names(material: Int64) -> tuple[tuple[str, ...], tuple[str, ...]]:
    groups = tuple(f"material {number + 1:02d}" for number in material.tolist())
    places = (np.arange(len(material)) - np.searchsorted(material, material) + 1).tolist()
    return tuple(f"{g}/texture {p}" for g, p in zip(groups, places, strict=True)), groups
