"""The first layer's filters as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from dmaml.report.features.tiles import Sheet, draw, signed
from dmaml.report.section import Section, Shown, axes

ACROSS: Final = 8
_CELL: Final = 0.4  # inches
_MOST: Final = 99.5  # percentile of |weight| that is black or white


def filters(found: Mapping[str, NDArray[np.float32]]) -> Section:
    """Return the filters of each network, side by side.

    Args:
        found: by network, float32 `[filters, channels, height, width]`.
    """
    figure, made = axes(1, len(found), (ACROSS * _CELL * 1.12 + 1) * len(found), 4.0)
    for axis, (name, weights) in zip(made[0], found.items(), strict=True):
        limit = float(np.percentile(np.abs(weights), _MOST)) or 1.0
        tiles = [signed(one, limit) for one in weights]
        rows = tuple(
            tuple((tiles[at : at + ACROSS] + [None] * ACROSS)[:ACROSS])
            for at in range(0, len(tiles), ACROSS)
        )
        draw(axis, Sheet(rows, ("",) * len(rows), ("",) * ACROSS), _CELL)
        axis.set_title(name)
        scale = ScalarMappable(Normalize(-limit, limit), "gray")
        bar = figure.colorbar(scale, ax=axis, shrink=0.75, aspect=30)
        bar.ax.set_title("weight", fontsize=8)
        bar.set_ticks([-limit, 0, limit], labels=[f"−{limit:.2g}", "0", f"{limit:.2g}"])
    shape = next(iter(found.values())).shape
    caption = (
        f"Weights of the first layer, {shape[2]} × {shape[3]} each, of the {shape[0]} filters with "
        "the largest norm, the largest first. Mid-grey is 0, white a positive weight, black a "
        "negative one; each network has its own scale."
    )
    return Section("Filters of the first layer", (), (Shown("filters", caption, figure, False),))
