"""Pictures in rows and columns with words around them: one sheet, one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dmaml.report.charts import COLOURS
from dmaml.report.section import bare

Rgb = NDArray[np.float64]
GAP: Final = 0.12  # between two tiles, in tiles
HEAT: Final = "Blues"
SIZE: Final = 7.5  # of words, points
_LETTER: Final = 0.6  # width of a letter, in sizes
_EDGE: Final = 0.06  # around all, in tiles
_GROUND: Final = 0.5  # of a picture with light ink: where its outline runs


@dataclass(frozen=True)
class Tile:
    """One picture.

    Attributes:
        rgb: float64 `[height, width, 3]`, 0 to 1.
        outline: values `[height, width]` whose contour is drawn over it; None: none.
    """

    rgb: Rgb
    outline: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Sheet:
    """Rows of tiles.

    Attributes:
        rows: every row as long as `columns`; None: nothing there.
        names: of the rows, at the left.
        columns: of the columns, above; "": none.
        starts: columns before which there is a wider gap.
        heads: (first column, last column, words) above the columns' names.
    """

    rows: tuple[tuple[Tile | None, ...], ...]
    names: tuple[str, ...]
    columns: tuple[str, ...]
    starts: tuple[int, ...] = ()
    heads: tuple[tuple[int, int, str], ...] = ()


def picture(image: NDArray[Any]) -> Tile:
    """Return an example `[channels, height, width]`, its values stretched to 0 .. 1."""
    low, high = float(image.min()), float(image.max())
    scaled = (image - low) / (high - low) if high > low else np.zeros_like(image)
    return Tile(_rgb(np.asarray(scaled, dtype=np.float64)))


def signed(image: NDArray[Any], limit: float) -> Tile:
    """Return weights `[channels, height, width]`: black −limit, mid-grey 0, white +limit."""
    return Tile(_rgb(np.clip(np.asarray(image, dtype=np.float64) / (2 * limit) + 0.5, 0, 1)))


def heat(values: NDArray[Any], over: NDArray[np.float32] | None) -> Tile:
    """Return values >= 0 `[height, width]` from white (0) to blue (their largest).

    Args:
        over: the grey picture `[1, height, width]` whose outline is drawn; None or coloured: none.
    """
    top = float(values.max())
    shares = values / top if top > 0 else np.zeros_like(values)
    rgb = np.asarray(matplotlib.colormaps[HEAT](shares), dtype=np.float64)[..., :3]
    rgb[shares == 0] = 1.0
    return Tile(rgb, over[0] if over is not None and len(over) == 1 else None)


def left_of(sheet: Sheet) -> list[float]:
    """Return where each column begins, in tiles."""
    places, at = [], 0.0
    for column in range(len(sheet.columns)):
        at += 0.5 if column in sheet.starts else 0.0
        places.append(at)
        at += 1 + GAP
    return places


@dataclass(frozen=True)
class Frame:
    """Where a sheet ends, words included, in tiles; the first tile's upper left corner is 0, 0."""

    left: float
    right: float
    top: float
    bottom: float

    def inches(self, cell: float) -> tuple[float, float]:
        """Return width and height where a tile has `cell` inches."""
        return (self.right - self.left) * cell, (self.bottom - self.top) * cell


def frame(sheet: Sheet, cell: float, size: float = SIZE) -> Frame:
    """Return what a sheet needs.

    Args:
        cell: of a tile, inches.
        size: of the words, points.
    """
    letter = size * _LETTER / 72 / cell
    longest = max(len(line) for name in sheet.names for line in name.splitlines() or [""])
    left = -(longest * letter + 0.25) if longest else -_EDGE
    lines = bool(any(sheet.columns)) + bool(sheet.heads)
    bottom = len(sheet.rows) * (1 + GAP) - GAP
    return Frame(
        left, left_of(sheet)[-1] + 1 + _EDGE, -lines * _line(size, cell) - _EDGE, bottom + _EDGE
    )


def draw(axis: Axes, sheet: Sheet, cell: float, size: float = SIZE) -> None:
    """Draw a sheet on an axis whose figure has room for its `frame`.

    Args:
        cell: of a tile, inches.
        size: of the words, points.
    """
    bare(axis)
    lefts = left_of(sheet)
    for number, row in enumerate(sheet.rows):
        top = number * (1 + GAP)
        for left, tile in zip(lefts, row, strict=True):
            if tile is not None:
                _draw(axis, tile, left, top)
        axis.text(-0.15, top + 0.5, sheet.names[number], ha="right", va="center", fontsize=size)
    above = -_EDGE
    if any(sheet.columns):
        for left, words in zip(lefts, sheet.columns, strict=True):
            axis.text(left + 0.5, above, words, ha="center", va="bottom", fontsize=size)
        above -= _line(size, cell)
    for first, last, words in sheet.heads:
        middle = (lefts[first] + lefts[last] + 1) / 2
        axis.text(middle, above, words, ha="center", va="bottom", fontsize=size)
    whole = frame(sheet, cell, size)
    axis.set_xlim(whole.left, whole.right)
    axis.set_ylim(whole.bottom, whole.top)
    axis.set_aspect("equal")


def _line(size: float, cell: float) -> float:
    """Return the height of a line of words, in tiles."""
    return size * 1.5 / 72 / cell


def _draw(axis: Axes, tile: Tile, left: float, top: float) -> None:
    extent = (left, left + 1, top + 1, top)
    axis.imshow(tile.rgb, interpolation="nearest", extent=extent)
    axis.plot(
        [left, left + 1, left + 1, left, left], [top, top, top + 1, top + 1, top],
        color="#bbbbbb", linewidth=0.4,
    )  # fmt: skip
    if tile.outline is None or np.ptp(tile.outline) == 0:
        return
    height, width = tile.outline.shape
    axis.contour(
        left + (np.arange(width) + 0.5) / width, top + (np.arange(height) + 0.5) / height,
        tile.outline, levels=[float(tile.outline.max()) * _GROUND], colors=[COLOURS[1]],
        linewidths=0.6,
    )  # fmt: skip


def _rgb(image: Rgb) -> Rgb:
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    return np.ascontiguousarray(channels.transpose(1, 2, 0))
