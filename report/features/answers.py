"""What neurons and scores look for, as sheets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmaml.report.features.findings import Classes, Neurons
from dmaml.report.features.tiles import (
    Sheet,
    Tile,
    draw,
    frame,
    heat,
    picture,
)
from dmaml.report.section import Shown, axes

Pictures = NDArray[np.float32]
Row = tuple[str, tuple[Tile | None, ...]]
_CELL: Final = 0.4  # inches, of neurons
_SIZE: Final = 8.5  # of words, points, of classes


def neuron_sheets(found: Sequence[Neurons]) -> Shown:
    """Return chosen neurons of one layer, the networks side by side.

    Args:
        found: of each network.
    """
    sheets = [_neuron_sheet(one) for one in found]
    sizes = [frame(sheet, _CELL).inches(_CELL) for sheet in sheets]
    figure, made = axes(
        1, len(found), sum(width for width, _ in sizes) + 0.2 * len(sizes),
        max(height for _, height in sizes) + 0.66,
    )  # fmt: skip
    for axis, sheet, one in zip(made[0], sheets, found, strict=True):
        draw(axis, sheet, _CELL)
        axis.set_title(f"{one.name}: {one.layer}\nη² of all its neurons: {one.mean_share:.2f}")
    caption = (
        f"Neurons of {found[0].layer} before adaptation that prefer different classes, those that "
        "tell the classes apart best. η² is the share of a neuron's variance over test pictures "
        "that lies between classes. "
        "made: a picture that maximises the neuron, by gradient ascent from the mean picture; "
        "highest and lowest: the test pictures with the largest and the smallest activation."
    )
    return Shown(f"neurons_{found[0].layer}", caption, figure, is_vector=False)


def _neuron_sheet(one: Neurons) -> Sheet:
    rows = []
    for neuron in one.neurons:
        tiles = [picture(image) for image in (neuron.made, *neuron.highest, *neuron.lowest)]
        rows.append(tuple(tiles))
    high, low = len(one.neurons[0].highest), len(one.neurons[0].lowest)
    return Sheet(
        tuple(rows),
        tuple(f"{neuron.number}\nη² {neuron.share:.2f}" for neuron in one.neurons),
        ("",) * (1 + high + low),
        (1, 1 + high),
        ((0, 0, "made"), (1, high, "highest"), (1 + high, high + low, "lowest")),
    )


def class_sheet(found: Sequence[Classes], support: Pictures, letters: Sequence[str]) -> Shown:
    """Return the pictures that maximise each class's score.

    Args:
        found: a row each.
        support: a support picture of each class.
        letters: of the classes.
    """
    rows: list[Row] = [("support", tuple(picture(image) for image in support))]
    rows += [
        (_row_name(one), tuple(picture(image) for image in one.made))
        for one in found
        if not one.is_blind
    ]
    caption = (
        "A support picture of each class of the first test task, and pictures that maximise the "
        "class's score before and after adaptation: gradient ascent from the mean picture on the "
        "score less an L2 and a total variation penalty." + _blind_words(found)
    )
    return _shown("classes", rows, letters, caption)


def saliency_sheet(found: Sequence[Classes], queries: Pictures, letters: Sequence[str]) -> Shown:
    """Return the saliency of a query of each class for its own score.

    Args:
        found: a row each.
        queries: float32 `[classes, channels, height, width]`.
        letters: of the classes.
    """
    rows: list[Row] = [("query", tuple(picture(image) for image in queries))]
    rows += [
        (
            _row_name(one),
            tuple(heat(values, image) for values, image in zip(one.saliency, queries, strict=True)),
        )
        for one in found
        if not one.is_blind
    ]
    caption = (
        "A query of each class of the first test task, and how much each of its pixels moves the "
        "score of its class: |∂score/∂pixel|, white 0, dark blue the largest of the map. The "
        "orange line is the outline of the drawing." + _blind_words(found)
    )
    return _shown("saliency", rows, letters, caption)


def _shown(name: str, rows: Sequence[Row], letters: Sequence[str], caption: str) -> Shown:
    sheet = Sheet(
        tuple(tiles for _, tiles in rows), tuple(words for words, _ in rows), tuple(letters)
    )
    cell = 0.8 if len(letters) <= 5 else 0.66
    width, height = frame(sheet, cell, _SIZE).inches(cell)
    figure, made = axes(1, 1, width + 0.1, height + 0.1)
    draw(made[0][0], sheet, cell, _SIZE)
    return Shown(name, caption, figure, is_vector=False)


def _row_name(one: Classes) -> str:
    return f"{one.name},\n{'after' if one.is_adapted else 'before'}"


def _blind_words(found: Sequence[Classes]) -> str:
    """Return a sentence about those whose scores see nothing; "": there is none."""
    names = [one.name for one in found if one.is_blind]
    if not names:
        return ""
    return (
        f" There is nothing of {' and '.join(names)} before adaptation: its last layer gives every "
        "picture the same scores."
    )
