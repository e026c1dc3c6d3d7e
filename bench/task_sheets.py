"""Draw contact sheets of task sources: `python bench/task_sheets.py [docs/images] [--all]`.

`textures.png`: a row per material, eight textures and four more drawings of the first one.
`sources.png`: a row per source of pictures. `mixed.png`: the same tasks of a mixture as they are,
in grey, and rank-equalised.

The sheets that are published show sets that may be handed on (omniglot, mnist, and what is drawn).
`--all` adds the others, for your own eyes; sources without files are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dmaml.common.config import from_mapping
from dmaml.common.errors import DataError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.tasks import build, materials
from dmaml.worker.tasks.textures import NOISE, draw

SIZE, GAP, MARGIN = 42, 2, 96  # pixels: a picture, between two, and for the names
COLUMNS = 12
FREE = ("omniglot", "mnist", "glyphs", "textures")
RESTRICTED = ("miniimagenet", "cifar_fs", "fc100", "cifar10", "fungi")
MIXTURE = ("omniglot", "mnist", "textures")

Uint8 = NDArray[np.uint8]


def pictures(task: dict[str, Any], count: int, seed: int = 2) -> Uint8:
    """Return `count` pictures of as many classes of a source, uint8 `[count, C, H, W]`."""
    source = build(from_mapping({"task": task}))
    streams = [stream(seed, Kind.EVALUATE, task=number) for number in range(count)]
    batch = source.sample(streams, source.split("train"), 2, 1, 1)
    return np.rint(batch.support_x[:, 0] * 255).astype(np.uint8)


def sheet(rows: dict[str, Uint8]) -> Image.Image:
    """Return rows of pictures, each with its name on the left."""
    width = MARGIN + max(map(len, rows.values())) * (SIZE + GAP)
    page = Image.new("RGB", (width, len(rows) * (SIZE + GAP)), "white")
    pen = ImageDraw.Draw(page)
    for line, (name, row) in enumerate(rows.items()):
        top = line * (SIZE + GAP)
        pen.text((4, top + SIZE // 2 - 5), name, fill="black")
        for column, one in enumerate(row):
            planes = np.repeat(one, 3, axis=0) if len(one) == 1 else one
            picture = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
            resized = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
            page.paste(resized, (MARGIN + column * (SIZE + GAP), top))
    return page


def texture_rows(count: int = len(materials.RECIPES)) -> dict[str, Uint8]:
    """Return textures of a material of each recipe, and four drawings of the first of them."""
    textures, bank = materials.textures(), materials.bank()
    rows = {}
    for material in range(count):
        own = np.flatnonzero(textures.material == material)
        classes = np.concatenate([own[: COLUMNS - 4], np.repeat(own[0], 4)])
        noise = stream(0, Kind.SOURCE, index=material).uniform(len(classes), NOISE)
        rows[f"material {material + 1:02d}"] = draw(textures, bank, classes, noise, SIZE)
    return rows


def source_rows(names: Sequence[str]) -> dict[str, Uint8]:
    """Return pictures of every source whose files are there."""
    rows = {}
    for name in names:
        try:
            rows[name] = pictures({"source": name}, COLUMNS)
        except DataError as error:
            print(f"{name} left out: {error}", file=sys.stderr)
    if "miniimagenet" in rows:
        rows["miniimagenet 84"] = pictures({"source": "miniimagenet", "image_size": 84}, COLUMNS)
    return rows


def mixed_rows(names: Sequence[str]) -> dict[str, Uint8]:
    """Return pictures of a mixture before and after, a row for each of its sources."""
    ways: dict[str, dict[str, Any]] = {
        "as it is": {},
        "grey": {"channels": 1},
        "equalised": {"channels": 1, "equalise": True},
    }
    rows = {}
    for name, options in ways.items():
        task = {"source": "mixed", "options": {"sources": list(names), **options}}
        source = build(from_mapping({"task": task}))
        assert source.origin is not None
        train = source.split("train")
        for number, origin in enumerate(names):
            own = train[source.origin[train] == number]
            streams = [stream(1, Kind.EVALUATE, task=task) for task in range(COLUMNS)]
            batch = source.sample(streams, own, 2, 1, 1)
            row = np.rint(batch.support_x[:, 0] * 255).astype(np.uint8)
            rows[f"{origin}\n{name}"] = row
    return rows


def main(folder: Path, restricted: Sequence[str]) -> None:
    """Write the three sheets."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (
        ("textures", texture_rows()),
        ("sources", source_rows((*FREE, *restricted))),
        ("mixed", mixed_rows((*MIXTURE, *restricted[:2]))),
    ):
        file = folder / f"{name}.png"
        sheet(rows).quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
        print(f"{file}: {file.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    folders = [one for one in sys.argv[1:] if one != "--all"]
    main(Path(folders[0] if folders else "docs/images"), RESTRICTED if "--all" in sys.argv else ())
