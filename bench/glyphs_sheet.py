"""Draw the contact sheet of `glyphs`: `python bench/glyphs_sheet.py [docs/glyphs.png]`.

Each row is one alphabet: a drawing of each of its first characters, then further drawings of its
first two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dmaml.common.seeds import Kind, stream
from dmaml.worker.tasks import alphabets
from dmaml.worker.tasks.glyphs import NOISE, draw
from dmaml.worker.tasks.strokes import SIZE, Uint8

ROWS = 16  # alphabets
CHARACTERS = 16
AGAIN = 5  # further drawings of each of the first two characters
ZOOM = 2
GAP, WIDE_GAP = 3, 12  # pixels before zooming
PAPER = 48


def row(pictures: Uint8) -> Uint8:
    """Put pictures `[N, SIZE, SIZE]` side by side, with a wide gap where a new group begins."""
    wide = {CHARACTERS, CHARACTERS + AGAIN}
    parts = []
    for place, picture in enumerate(pictures):
        if place:
            parts.append(np.full((SIZE, WIDE_GAP if place in wide else GAP), PAPER, np.uint8))
        parts.append(picture)
    return np.concatenate(parts, axis=1)


def sheet() -> Uint8:
    """Return the whole picture, uint8 `[height, width]`."""
    characters, alphabet = alphabets.characters()
    rows = []
    for number in range(ROWS):
        own = np.flatnonzero(alphabet == number)
        again = np.repeat(own[:2], AGAIN)
        classes = np.concatenate([own[:CHARACTERS], again])
        noise = stream(1, Kind.TEST, index=number).uniform(len(classes), NOISE)
        one = row(draw(characters, classes, noise)[:, 0])
        rows += [np.full((GAP, one.shape[1]), PAPER, np.uint8), one]
    whole = np.pad(np.concatenate(rows[1:]), GAP, constant_values=PAPER)
    return whole.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def main() -> None:
    """Write the sheet to the path of the first argument."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/glyphs.png")
    Image.fromarray(sheet()).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
