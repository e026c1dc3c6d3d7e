"""What a report is made of: sections of words, tables and figures; and the quiet axes of those."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dmaml.report.charts import COLOURS, DASHES, STYLE

BEFORE: Final = "#777777"
AFTER: Final = COLOURS[0]
VALIDATION: Final = COLOURS[1]
RIGHT: Final = COLOURS[0]
WRONG: Final = COLOURS[1]
_CLEAN: Final = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Shown:
    """One figure of a report.

    Attributes:
        name: of its files.
        caption: what one sees, with units and what bands mean.
        is_vector: the page shows the SVG; else the PNG, which is smaller where pictures are in it.
    """

    name: str
    caption: str
    figure: Figure
    is_vector: bool = True


@dataclass(frozen=True)
class Table:
    """Names and figures; the first cell of a row is its heading."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One part of a report."""

    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Shown, ...] = ()
    tables: tuple[Table, ...] = ()


@contextmanager
def quiet() -> Iterator[None]:
    """Draw in the house's style."""
    with matplotlib.rc_context(STYLE):
        yield


def axes(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of `width` × `height` inches and its axes `[rows, columns]`."""
    with quiet():
        figure = Figure(figsize=(width, height), layout="constrained")
        made = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, np.asarray(made)


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of the n-th of several lines."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def whole_numbers(axis: Any) -> None:
    """Put ticks of the x axis at whole numbers only."""
    locator = MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10])
    axis.xaxis.set_major_locator(locator)


def bare(axis: Axes) -> None:
    """Leave an axis without ticks and frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def show_image(
    axis: Axes, image: NDArray[np.float32], extent: tuple[float, float, float, float]
) -> None:
    """Show one example `[channels, height, width]`, grey where it has one channel.

    Values are stretched to the range that they have, for sources differ in it.

    Args:
        extent: left, right, bottom and top on the axis.
    """
    low, high = float(image.min()), float(image.max())
    scaled = (image - low) / (high - low) if high > low else np.zeros_like(image)
    if len(scaled) == 3:
        axis.imshow(scaled.transpose(1, 2, 0), interpolation="nearest", extent=extent)
    else:
        axis.imshow(
            scaled[0], cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest", extent=extent
        )


def rendered(figure: Figure) -> tuple[bytes, bytes]:
    """Return a figure as PNG and as SVG; the same data give the same bytes.

    The layout is found once, for the PNG: it takes longer than all the rest.
    """
    png, svg = io.BytesIO(), io.BytesIO()
    with quiet():
        figure.savefig(png, format="png", metadata={"Software": None})
        figure.set_layout_engine("none")
        figure.savefig(svg, format="svg", metadata=_CLEAN)
    return png.getvalue(), svg.getvalue()


def figure_words(mean: float, half: float | None = None, digits: int = 3) -> str:
    """Return `.912 ± .004` in words; `–` where there is no number."""
    if mean is None or not np.isfinite(mean):
        return "–"
    words = f"{mean:.{digits}f}"
    return words if half is None else f"{words} ± {half:.{digits}f}"


def is_picture(shape: Sequence[int]) -> bool:
    """Tell whether examples of a shape are grey or coloured pictures."""
    return len(shape) == 3 and shape[0] in (1, 3)
