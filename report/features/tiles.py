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


def width_of(sheet: Sheet) -> float:
    """Return the width of all tiles, in tiles."""
    return left_of(sheet)[-1] + 1


def height_of(sheet: Sheet) -> float:
    """Return the height of all tiles, in tiles."""
    return len(sheet.rows) * (1 + GAP) - GAP


def draw(axis: Axes, sheet: Sheet, size: float = 7.5) -> None:
    """Draw a sheet on an axis.

    Args:
        size: of the words, in points.
    """
    bare(axis)
    lefts = left_of(sheet)
    for number, row in enumerate(sheet.rows):
        top = number * (1 + GAP)
        for left, tile in zip(lefts, row, strict=True):
            if tile is not None:
                _draw(axis, tile, left, top)
        axis.text(
            -0.15, top + 0.5, sheet.names[number], ha="right", va="center", fontsize=size,
            clip_on=False,
        )  # fmt: skip
    above = -0.1
    if any(sheet.columns):
        for left, words in zip(lefts, sheet.columns, strict=True):
            axis.text(left + 0.5, above, words, ha="center", va="bottom", fontsize=size)
        above -= 0.45
    for first, last, words in sheet.heads:
        middle = (lefts[first] + lefts[last] + 1) / 2
        axis.text(middle, above, words, ha="center", va="bottom", fontsize=size)
    axis.set_xlim(-0.05, width_of(sheet) + 0.05)
    axis.set_ylim(height_of(sheet) + 0.05, above - 0.35 * bool(sheet.heads) - 0.05)
    axis.set_aspect("equal")


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
