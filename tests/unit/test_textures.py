"""The embedded materials: their bank of noise, drawings and episodes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.tasks import materials
from dmaml.worker.tasks.base import SPLITS
from dmaml.worker.tasks.textures import NOISE, TextureSource, content_digest, draw

BANK, TEXTURES = materials.bank(), materials.textures()
# Change these together with textures.VERSION: results before and after cannot be compared.
CONTENT = "9bba691efc36c2c897827a207f5881e7d4c07a553d599e7d80bb66055728088e"

DRAWINGS = "de34c5b3d12add0edf5ad8e658e772b1da23d9ab4c2c6196bbf05c6dea4d5040"


def source(seed: int = 1, **task: Any) -> TextureSource:
    return TextureSource(
        from_mapping({"run": {"seed": seed}, "task": {"source": "textures", **task}})
    )


def drawn(classes: list[int], size: int = 28, seed: int = 0) -> Any:
    noise = stream(seed, Kind.TRAIN).uniform(len(classes), NOISE)
    return draw(TEXTURES, BANK, np.array(classes), noise, size)


def test_the_textures_are_the_ones_that_results_were_made_with() -> None:
    assert content_digest(TEXTURES, BANK, 28) == CONTENT
    assert hashlib.sha256(drawn(list(range(480))).tobytes()).hexdigest() == DRAWINGS


def test_every_field_of_the_bank_takes_all_values_equally_often() -> None:
    assert BANK.shape == (6, materials.SIDE, materials.SIDE)
    for number, field in enumerate(BANK):
        if number == materials.PLATES:
            assert len(np.unique(field)) == 120  # one value for each plate
            continue
        counts, _ = np.histogram(field, bins=16, range=(0, 1))
        np.testing.assert_allclose(counts / field.size, 1 / 16, rtol=0.02)


def test_the_fields_repeat_without_a_seam() -> None:
    for number in (materials.CLOUDS, materials.BLOBS, materials.CELLS):
        field = BANK[number]
        across_the_seam = np.abs(field[0] - field[-1]).mean()
        elsewhere = np.abs(np.diff(field, axis=0)).mean()
        assert across_the_seam < 2 * elsewhere


def test_a_drawing_does_not_depend_on_its_company() -> None:
    classes = list(range(0, 480, 3))
    noise = stream(0, Kind.TRAIN).uniform(len(classes), NOISE)

    together = draw(TEXTURES, BANK, np.array(classes), noise, 28)

    alone = draw(TEXTURES, BANK, np.array(classes[-1:]), noise[-1:], 28)
    assert (together[-1] == alone[0]).all()


def test_drawings_of_a_texture_differ_and_are_in_colour() -> None:
    pictures = drawn([7] * 20)

    assert len(np.unique(pictures.reshape(20, -1), axis=0)) == 20
    assert (pictures[:, 0] != pictures[:, 2]).mean() > 0.5


def test_the_same_numbers_give_the_same_piece_at_any_size() -> None:
    classes = [0, 10, 30, 70, 90]  # of coarse materials: fine ones alias

    small, large = drawn(classes, 28), drawn(classes, 84)

    reduced = large.reshape(5, 3, 28, 3, 28, 3).mean((3, 5))
    for a, b in zip(small, reduced, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.8


def test_a_class_is_told_from_others_by_its_pixels_statistics() -> None:
    """Nearest mean of colour and contrast, five classes of one material each; chance is 0.2."""
    classes = [5, 25, 45, 65, 85]
    support, query = drawn(classes * 5), drawn(classes * 20, seed=1)

    def features(pictures: Any) -> Any:
        return np.concatenate([pictures.mean((2, 3)), pictures.std((2, 3))], axis=1)

    means = features(support).reshape(5, 5, -1).mean(0)
    apart = np.linalg.norm(features(query)[:, None] - means, axis=2)
    accuracy = (apart.argmin(1) == np.tile(np.arange(5), 20)).mean()
    assert accuracy > 0.5


def test_materials_are_divided_whole() -> None:
    made = source()

    names = [{made.unit_name(int(u)).split("/")[0] for u in made.split(s)} for s in SPLITS]

    assert [len(part) for part in names] == [30, 8, 10]
    assert len(set.union(*names)) == 48
    assert made.num_units == 480


def test_image_size_is_the_size() -> None:
    made = source(image_size=32)

    assert made.input_shape == (3, 32, 32)
    assert made.digest != source().digest


def test_divisions_of_omniglot_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'vinyals' with task.source 'textures'.*default"):
        source(splits="vinyals")
