"""Invented materials: textures in colour, each a small program over a bank of noise.

A texture is one number at each point, v = fraction(gain * noise + slope * distance), looked up in a
table of 256 colours. The noise is one of a bank of periodic fields (clouds, blobs, grain, cells and
the cracks between them, plates), seen through a stretched, turned and warped sheet. With a slope
the numbers run in bands, as in wood and marble; without they are as random as the noise. A material
is a kind of program with a palette; its textures differ in scale, direction, warp and bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Float64, Kind, Stream, stream

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

SEED: Final = 20191027  # of the textures themselves; the run's seed only splits and draws them
NUM_MATERIALS: Final = 48
PER_MATERIAL: Final = 10
SIDE: Final = 256  # texels of a field, which repeats beyond them
COLOURS: Final = 256
CLOUDS, BLOBS, GRAIN, CELLS, CRACKS, PLATES = range(6)  # the fields of the bank
_NUM_CELLS: Final = 120
# turns: most of what grows or lies about is red-brown to green, some of it blue
_HUES: Final = (0.0, 0.03, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.27, 0.35, 0.45, 0.55, 0.6, 0.9)


@dataclass(frozen=True)
class Recipe:
    """One kind of program, and within what its materials differ.

    Attributes:
        field: of the bank.
        gain: of the noise.
        slope: bands per 28 pixels; 0 where there are none.
        scale: texels per pixel, lowest and highest.
        stretch: of the sheet, highest; 1 where all directions are alike.
        warp: texels, highest.
        ridges: how often the colours run up and down the palette.
        grain: of the surface, highest.
    """

    field: int
    gain: float
    slope: float
    scale: tuple[float, float]
    stretch: float
    warp: float
    ridges: int
    grain: float


RECIPES: Final = (
    Recipe(CLOUDS, 1.0, 0.0, (1.5, 5.0), 1.5, 10.0, 1, 0.10),  # clouds, sand, rust
    Recipe(CLOUDS, 0.9, 1.6, (1.5, 4.0), 1.2, 30.0, 2, 0.08),  # marble
    Recipe(CLOUDS, 0.5, 3.0, (1.0, 2.5), 6.0, 10.0, 1, 0.12),  # wood
    Recipe(BLOBS, 1.0, 0.0, (2.0, 6.0), 1.5, 6.0, 1, 0.10),  # spotted hide
    Recipe(BLOBS, 1.0, 0.0, (2.0, 5.0), 3.0, 14.0, 2, 0.06),  # brain coral, stripes
    Recipe(GRAIN, 1.0, 0.0, (1.0, 3.0), 5.0, 6.0, 1, 0.20),  # grass, fur, straw
    Recipe(GRAIN, 1.0, 0.0, (0.7, 2.0), 1.3, 2.0, 1, 0.25),  # granite, gravel
    Recipe(CELLS, 1.0, 0.0, (2.0, 6.0), 2.0, 4.0, 1, 0.10),  # scales, pebbles
    Recipe(CELLS, 0.9, 0.0, (1.5, 4.0), 2.0, 6.0, 3, 0.06),  # agate, rings
    Recipe(CRACKS, 1.0, 0.0, (1.5, 5.0), 2.0, 8.0, 1, 0.12),  # dry mud, leather, veins
    Recipe(PLATES, 1.0, 0.0, (1.5, 5.0), 2.5, 3.0, 1, 0.10),  # mosaic, tiles, bark
    Recipe(BLOBS, 0.25, 4.0, (1.0, 2.0), 1.0, 8.0, 1, 0.10),  # cloth, ripples, furrows
)


@dataclass(frozen=True)
class Textures:
    """`C` textures.

    Attributes:
        field: int64 `[C]`, of the bank.
        sheet: float32 `[C, 2, 2]`, texels along and across per pixel.
        gain, slope, warp, grain: float32 `[C]`; slope is bands per pixel.
        colours: float32 `[C, COLOURS, 3]`, 0 to 1.
        material: int64 `[C]`.
    """

    field: Int64
    sheet: Float32
    gain: Float32
    slope: Float32
    warp: Float32
    grain: Float32
    colours: Float32
    material: Int64

    def __len__(self) -> int:
        return len(self.field)


@cache
def textures() -> Textures:
    """Return the textures, the same in every process."""
    rows = [_texture(number) for number in range(NUM_MATERIALS * PER_MATERIAL)]
    field, *others = zip(*rows, strict=True)
    sheet, gain, slope, warp, grain, colours = (np.array(one, np.float32) for one in others)
    material = np.repeat(np.arange(NUM_MATERIALS), PER_MATERIAL)
    return Textures(np.array(field), sheet, gain, slope, warp, grain, colours, material)


def _texture(number: int) -> tuple[int, Float64, float, float, float, float, Float64]:
    material = number // PER_MATERIAL
    recipe = RECIPES[material % len(RECIPES)]
    own = stream(SEED, Kind.SOURCE, index=1 + material, task=1 + number)
    u = own.uniform(8)
    low, high = recipe.scale
    scale = low * (high / low) ** u[0]
    stretch = recipe.stretch ** u[1]
    turn = math.pi * u[2]
    along = np.array([math.cos(turn), math.sin(turn)]) * scale / math.sqrt(stretch)
    across = np.array([-math.sin(turn), math.cos(turn)]) * scale * math.sqrt(stretch)
    slope = recipe.slope * (0.6 + 1.2 * u[3]) / 28
    gain = recipe.gain * (0.7 + 0.6 * u[4]) if recipe.slope else recipe.gain
    return (
        recipe.field,
        np.stack([along, across]),
        gain,
        slope,
        recipe.warp * u[5],
        recipe.grain * (0.3 + 0.7 * u[6]),
        _colours(material, recipe.ridges + (recipe.ridges > 1) * int(2 * u[7]), own),
    )


def _colours(material: int, ridges: int, own: Stream) -> Float64:
    """Return the table of a texture: the material's palette, a little altered, up and down."""
    palette = _palette(stream(SEED, Kind.SOURCE, index=1 + material))
    palette = np.clip(palette + own.normal(4, 3, std=0.05) + own.normal(1, 3, std=0.04), 0, 1)
    place = np.arange(COLOURS) / (COLOURS - 1)
    triangle = 1 - np.abs(2 * ((place * ridges) % 1) - 1) if ridges > 1 else place
    bend = 2.0 ** float(own.uniform(1, low=-1, high=1)[0])
    knots = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(triangle**bend, knots, palette[:, c]) for c in range(3)], axis=1)


def _palette(one: Stream) -> Float64:
    """Return four colours from dark to light, of hues that lie near each other."""
    hue = _HUES[int(one.integers(1, len(_HUES))[0])] + one.normal(4, std=0.04)
    saturation = float(one.uniform(1, low=0.05, high=0.55)[0]) * one.uniform(4, low=0.6, high=1.2)
    light = np.sort(one.uniform(4, low=0.1, high=0.95))
    if one.uniform(1)[0] < 0.4:
        light = light[one.permutation(4)]
    turn = hue[:, None] + np.array([0, 2 / 3, 1 / 3])
    chroma = np.clip(np.abs(((turn * 6) % 6) - 3) - 1, 0, 1)  # pure colours
    colours: Float64 = light[:, None] * (1 - saturation[:, None].clip(0, 1) * (1 - chroma))
    return colours


# --- the bank of noise ----------------------------------------------------------------------


@cache
def bank() -> Float32:
    """Return the fields, float32 `[6, SIDE, SIDE]`, 0 to 1, each value as frequent as any other."""
    near, second, owner = _cells()
    fields = [
        _noise(0, lambda f: np.where(f > 0, 1 / np.maximum(f, 1) ** 1.7, 0)),
        _noise(1, lambda f: np.exp(-(((f - 9) / 2.5) ** 2))),
        _noise(2, lambda f: np.exp(-(((f - 34) / 14) ** 2))),
        near,
        second - near,
        owner,
    ]
    return np.stack([_flat(field) for field in fields]).astype(np.float32)


def _noise(number: int, spectrum: object) -> Float64:
    assert callable(spectrum)
    white = stream(SEED, Kind.SOURCE, index=0, task=number).normal(SIDE, SIDE)
    one = np.fft.fftfreq(SIDE) * SIDE
    frequency = np.hypot(one[:, None], one[None])
    return np.asarray(np.fft.ifft2(np.fft.fft2(white) * spectrum(frequency)).real)


def _cells() -> tuple[Float64, Float64, Float64]:
    """Return the distances to the nearest two of random points, and a number of the nearest."""
    points = stream(SEED, Kind.SOURCE, index=0, task=9).uniform(_NUM_CELLS, 2) * SIDE
    places = np.arange(SIDE)
    apart = np.abs(places[:, None, None] - points)  # [SIDE, cells, 2]
    squared = np.minimum(apart, SIDE - apart) ** 2  # the field repeats
    distance = np.sqrt(squared[:, None, :, 0] + squared[None, :, :, 1])
    nearest = np.partition(distance, 1, axis=2)
    return nearest[..., 0], nearest[..., 1], distance.argmin(2).astype(float)


def _flat(field: Float64) -> Float64:
    """Return the rank of each value, 0 to 1; values are rounded, for machines that differ."""
    values = np.round(field / np.abs(field).max(), 6)
    found, place = np.unique(values, return_inverse=True)
    counts = np.bincount(place.ravel(), minlength=len(found))
    middle = np.cumsum(counts) - counts / 2
    ranks: Float64 = (middle / values.size)[place].reshape(field.shape)
    return ranks
