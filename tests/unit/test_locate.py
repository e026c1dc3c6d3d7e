from __future__ import annotations

import hashlib
import io
import os
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmaml.common.errors import DataError, RunTimeError, UnknownNameError
from dmaml.worker.tasks import locate

DATA = os.environ.get("DMAML_DATA", "")
needs_omniglot = pytest.mark.skipif(
    not all(Path(DATA, f"omniglot{x}.npz").is_file() for x in ("28", "105_bits")),
    reason="needs omniglot28.npz and omniglot105_bits.npz in $DMAML_DATA",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DMAML_DATA", str(tmp_path / "variable"))
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / "user" / name))
    return tmp_path


def put(folder: Path, name: str = "omniglot28.npz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")
    return folder / name


def test_places_are_tried_in_their_order(home: Path) -> None:
    order = [home / "given", home / "variable", home / "cache" / "data", home / "user/dmaml/data"]

    assert list(locate.places(home / "given")) == order
    for place in reversed(order):
        expected = put(place)
        assert locate.locate("omniglot28.npz", home / "given") == expected


def test_an_empty_variable_is_no_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMAML_DATA", "")

    assert locate.places()[0] == home / "cache" / "data"


def test_a_missing_file_is_told_with_the_places_and_the_remedy(home: Path) -> None:
    with pytest.raises(DataError) as caught:
        locate.locate("omniglot28.npz")

    text = str(caught.value)
    assert "'omniglot28.npz' was not found in" in text
    assert all(str(place) in text for place in locate.places())
    assert "Run `dmaml data fetch omniglot`, or set DMAML_DATA" in text


def test_a_file_that_cannot_be_fetched_is_not_said_to_be(home: Path) -> None:
    with pytest.raises(DataError, match=r"\. Set DMAML_DATA \(or --data-dir\)") as caught:
        locate.locate("cifar100.npz")

    assert "fetch" not in str(caught.value)


def test_the_catalogue_tells_what_was_found(home: Path) -> None:
    expected = put(home / "variable", "mnist.npz")

    rows = {row.name: asdict(row) for row in locate.catalogue()}

    assert rows["mnist"]["path"] == str(expected)
    assert rows["mnist"]["source"] == "mnist"
    assert rows["omniglot"]["path"] is None
    assert rows["omniglot"]["can_fetch"]
    assert rows["glyphs"]["file"] is None
    assert all(row["licence"] and row["origin"] for row in rows.values())


@pytest.mark.parametrize("name", ["omniglot", "omniglot28.npz"])
def test_path_of_takes_names_and_files(home: Path, name: str) -> None:
    expected = put(home / "variable")

    assert locate.path_of(name) == expected


def test_path_of_an_embedded_source_is_refused() -> None:
    with pytest.raises(DataError, match="'glyphs' is embedded"):
        locate.path_of("glyphs")


def test_an_unknown_name_is_told_with_a_near_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'omniglot'"):
        locate.path_of("omniglott")


@pytest.mark.skipif(not Path(DATA, "mnist.npz").is_file(), reason="needs the files of $DMAML_DATA")
def test_the_files_have_the_digests_of_the_catalogue() -> None:
    for row in locate.catalogue(Path(DATA)):
        if row.path is not None:
            assert hashlib.sha256(Path(row.path).read_bytes()).hexdigest() == row.sha256


# --- download -------------------------------------------------------------------------------


def png(ink: np.ndarray[Any, Any]) -> bytes:
    """Return a one-bit PNG file, black ink on white, as in Lake's archives."""
    file = io.BytesIO()
    Image.fromarray((1 - ink) * np.uint8(255)).convert("1").save(file, "png")
    return file.getvalue()


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def small_archives(folder: Path) -> list[Path]:
    noise = np.random.default_rng(0).integers(0, 2, (8, 105, 105), dtype=np.uint8)
    background = {
        f"images_background/{alphabet}/character01/{number:04}_{drawer:02}.png": png(
            noise[number + drawer]
        )
        for alphabet, number in (("Zulu", 1), ("Greek", 2))
        for drawer in (2, 1)
    }
    junk = {"__MACOSX/images_background/Greek/character01/._0002_01.png": b"", "README": b"hello"}
    evaluation = {"images_evaluation/Angelic/character01/0965_01.png": png(noise[7])}
    return [
        write_archive(folder / "images_background.zip", {**background, **junk}),
        write_archive(folder / "images_evaluation.zip", evaluation),
    ]


def test_archives_become_the_arrays_of_the_exchange_format(tmp_path: Path) -> None:
    arrays = locate.convert_omniglot(small_archives(tmp_path))

    assert arrays["images"].shape == (5, 28, 28)
    assert arrays["labels"].tolist() == [0, 0, 1, 1, 2]
    assert arrays["drawers"].tolist() == [1, 2, 1, 2, 1]
    assert arrays["split"].tolist() == [0, 0, 1]
    assert arrays["class_names"].tolist() == [f"{a}/character01" for a in arrays["alphabets"]]
    assert arrays["alphabets"].tolist() == ["Zulu", "Greek", "Angelic"]
    assert arrays["alphabet_ids"].tolist() == [1, 0, 2]  # in the order of the alphabet, by part


@needs_omniglot
def test_conversion_of_real_characters_gives_our_pixels(tmp_path: Path) -> None:
    with np.load(Path(DATA, "omniglot105_bits.npz"), allow_pickle=False) as bits:
        packed, names = bits["images_packed"], bits["class_names"]
    with np.load(Path(DATA, "omniglot28.npz"), allow_pickle=False) as ours:
        expected, alphabets = ours["images"], ours["alphabets"]
    kept = [0, 500, 963, 964, 1622]
    parts: dict[str, dict[str, bytes]] = {"background": {}, "evaluation": {}}
    rows = [20 * number + drawer for number in kept for drawer in range(20)]
    for row in rows:
        part = "background" if row < 20 * 964 else "evaluation"
        ink = np.unpackbits(packed[row], count=11025).reshape(105, 105)
        name = f"images_{part}/{names[row // 20]}/{row // 20 + 1:04}_{row % 20 + 1:02}.png"
        parts[part][name] = png(ink)
    archives = [write_archive(tmp_path / f"{part}.zip", parts[part]) for part in parts]

    arrays = locate.convert_omniglot(archives)

    assert (arrays["images"] == expected[rows]).all()
    assert arrays["class_names"].tolist() == names[kept].tolist()
    assert arrays["alphabets"].tolist() == alphabets[kept].tolist()
    assert arrays["split"].tolist() == [0, 0, 0, 1, 1]


@needs_omniglot
def test_the_pinned_pixels_are_those_of_our_file() -> None:
    with np.load(Path(DATA, "omniglot28.npz"), allow_pickle=False) as ours:
        locate.verify_omniglot(ours["images"])


def test_fetch_asks_for_the_pinned_archives_and_writes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    archives = {path.name: path for path in small_archives(tmp_path)}
    pixels = hashlib.sha256(locate.convert_omniglot(archives.values())["images"].tobytes())
    monkeypatch.setattr(locate, "OMNIGLOT_PIXELS", pixels.hexdigest())

    def retrieve(address: str, sha256: str, folder: Path) -> Path:
        asked.append((address.rpartition("/")[2], sha256))
        return archives[asked[-1][0]]

    path = locate.fetch("omniglot", None, retrieve)

    assert asked == list(locate.ARCHIVES)
    assert path == locate.locate("omniglot28.npz")
    with np.load(path, allow_pickle=False) as written:
        assert written["images"].shape == (5, 28, 28)


def test_fetched_pictures_that_differ_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    archives = iter(small_archives(tmp_path))

    with pytest.raises(DataError, match=r"have SHA-256 [0-9a-f]{64}, required e26469f5"):
        locate.fetch("omniglot", tmp_path / "to", lambda *_: next(archives))

    assert not (tmp_path / "to").exists()


def test_a_failing_network_is_a_failure_at_run_time(tmp_path: Path) -> None:
    def offline(*_: object) -> Path:
        raise ConnectionError("no route to host")

    with pytest.raises(RunTimeError, match=r"no route to host\. Check the network") as caught:
        locate.fetch("omniglot", tmp_path, offline)

    assert caught.value.exit_code == 1


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images_background.zip"
    path.write_bytes(b"PK\x03\x04 and no more")

    with pytest.raises(DataError, match=r"images_background\.zip' is damaged"):
        locate.convert_omniglot([path])


@pytest.mark.parametrize(
    ("name", "words"),
    [("cifar10", "cannot be downloaded by dmaml"), ("glyphs", "nothing to download")],
)
def test_what_cannot_be_fetched_is_told(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        locate.fetch(name)
