"""Where data files are looked for, which ones are known, and how Omniglot is downloaded."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image

from dmaml.common.errors import DataError, RunTimeError, UnknownNameError
from dmaml.worker.tasks.cache import cache_dir, write_whole

LAKE: Final = "https://github.com/brendenlake/omniglot"
NON_COMMERCIAL: Final = "ImageNet terms: non-commercial research and education only"


@dataclass(frozen=True)
class DataSource:
    """One row of `dmaml data list`.

    Attributes:
        name: what `dmaml data path` and `fetch` take.
        source: what `task.source` takes.
        file: the data file; None for an embedded source.
        sha256: of the file as it was published with the project.
        licence: the terms of the pictures.
        origin: where they come from.
        can_fetch: `fetch` downloads it.
        path: where the file lies now; None where it was not found.
    """

    name: str
    source: str
    file: str | None
    sha256: str | None
    licence: str
    origin: str
    can_fetch: bool = False
    path: str | None = None


def _file(name: str, stem: str, sha256: str, licence: str, origin: str) -> DataSource:
    source = name.partition("/")[0]
    return DataSource(name, source, f"{stem}.npz", sha256, licence, origin, name == "omniglot")


_CATALOGUE: Final = (
    DataSource("glyphs", "glyphs", None, None, "Apache-2.0", "drawn by dmaml"),
    DataSource("textures", "textures", None, None, "Apache-2.0", "drawn by dmaml"),
    DataSource("sinusoid", "sinusoid", None, None, "Apache-2.0", "drawn by dmaml"),
    DataSource(
        "function_families", "function_families", None, None, "Apache-2.0", "drawn by dmaml"
    ),
    _file(
        "omniglot",
        "omniglot28",
        "140c8efd24fffed330cc9761893627ad2683966b99d9b16547776eb8b3f5d6ad",
        "MIT, Copyright (c) 2015 Brenden Lake",
        f"{LAKE}; Lake, Salakhutdinov, Tenenbaum, Science, 2015",
    ),
    _file(
        "miniimagenet",
        "miniimagenet28",
        "9522d99d83217d491548a7517d9db09e5b4574d35b2f90e395c52c21dce21f5b",
        NON_COMMERCIAL,
        "Vinyals et al., 2016; splits of Ravi and Larochelle, 2017",
    ),
    _file(
        "miniimagenet/84",
        "miniimagenet84_jpeg",
        "11b5df207e242be864c2823438ac01ecc5e36bfc924cd1d0386252be51a4fa51",
        NON_COMMERCIAL,
        "Vinyals et al., 2016; splits of Ravi and Larochelle, 2017",
    ),
    _file(
        "cifar_fs",
        "cifar100",
        "64572f7693a5c3fe4cf1fab40a27a7d67677b240ce51cf16b3eaf54883b7f05b",
        "none stated by the authors; for research with the citation",
        "Krizhevsky, 2009; splits of Bertinetto et al., 2019",
    ),
    _file(
        "fc100",
        "cifar100",
        "64572f7693a5c3fe4cf1fab40a27a7d67677b240ce51cf16b3eaf54883b7f05b",
        "none stated by the authors; for research with the citation",
        "Krizhevsky, 2009; splits of Oreshkin et al., 2018",
    ),
    _file(
        "cifar10",
        "cifar10",
        "1c3e455e6e205e3ccfe1ef768037bf769ad3bfd356002eba24ecbea9ca187247",
        "none stated by the authors; for research with the citation",
        "Krizhevsky, 2009",
    ),
    _file(
        "mnist",
        "mnist",
        "11269200916ca942a892c24a911fe10e59e793fd6f9ca549176365d499121b8b",
        "CC BY-SA 3.0",
        "LeCun, Cortes, Burges",
    ),
    _file(
        "fungi",
        "fungi12_28",
        "474d4610fdc173a0ed2c498c114fb88530eabf88313c700781364f585d042592",
        "Creative Commons, differs per photograph: non-commercial, with attribution",
        "iNaturalist, research grade observations in Sweden",
    ),
)

# SHA-256 of the two archives as tensorflow/datasets pins them (url_checksums/omniglot.txt)
ARCHIVES: Final = (
    ("images_background.zip", "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"),
    ("images_evaluation.zip", "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"),
)
# SHA-256 of the bytes of `images` in omniglot28.npz, uint8 [32460, 28, 28]
OMNIGLOT_PIXELS: Final = "e26469f5826cc15c23be06f87e760df377f4cdfaea1c3d93776c8ed38d8b32e3"
NUM_BACKGROUND: Final = 964


# --- places ---------------------------------------------------------------------------------


def places(data_dir: Path | None = None) -> tuple[Path, ...]:
    """Return the folders where data are looked for, first to last.

    These are data_dir (`--data-dir`), `$DMAML_DATA`, `data` in the user's cache (where `fetch`
    puts them) and `data` in the user's data folder.
    """
    variable = os.environ.get("DMAML_DATA")
    chosen = [data_dir, Path(variable) if variable else None, cache_dir() / "data"]
    chosen.append(Path(platformdirs.user_data_dir("dmaml")) / "data")
    return tuple(dict.fromkeys(place.expanduser() for place in chosen if place is not None))


def find(file: str, data_dir: Path | None = None) -> Path | None:
    """Return the first place's file of that name, or None."""
    paths = (place / file for place in places(data_dir))
    return next((path for path in paths if path.is_file()), None)


def find_folder(name: str, data_dir: Path | None = None) -> Path | None:
    """Return the first place's folder of that name, or None."""
    paths = (place / name for place in places(data_dir))
    return next((path for path in paths if path.is_dir()), None)


def locate(file: str, data_dir: Path | None = None, folder: str | None = None) -> Path:
    """Return the path of a data file.

    Args:
        file: its name.
        data_dir: where it is looked for first.
        folder: what the caller has looked for in its place, for the error.

    Raises:
        DataError: it is in none of the places; names them and the remedy.
    """
    path = find(file, data_dir)
    if path is None:
        looked = ", ".join(str(place) for place in places(data_dir))
        fetchable = [entry.name for entry in _CATALOGUE if entry.can_fetch and entry.file == file]
        instead = f" (or a folder {folder!r})" if folder else ""
        remedy = f"Run `dmaml data fetch {fetchable[0]}`, or set" if fetchable else "Set"
        raise DataError(
            f"data file {file!r}{instead} was not found in {looked}. {remedy} DMAML_DATA "
            "(or --data-dir) to the folder that holds it; docs/tasks.md says where data come from."
        )
    return path


def catalogue(data_dir: Path | None = None) -> tuple[DataSource, ...]:
    """Return every known source of tasks, with the path of its file where it was found."""
    return tuple(_located(entry, data_dir) for entry in _CATALOGUE)


def entry(name: str, data_dir: Path | None = None) -> DataSource:
    """Return the known source of that name.

    Raises:
        UnknownNameError: there is none.
    """
    for known in _CATALOGUE:
        if name in (known.name, known.file):
            return _located(known, data_dir)
    raise UnknownNameError("data source", name, tuple(known.name for known in _CATALOGUE))


def path_of(name: str, data_dir: Path | None = None) -> Path:
    """Return where the data of a known source lie (`dmaml data path NAME`).

    Raises:
        UnknownNameError: no such source.
        DataError: it is embedded and has no file, or the file was not found.
    """
    known = entry(name, data_dir)
    if known.file is None:
        raise DataError(f"source {name!r} is embedded: it is drawn from the seed and has no file.")
    return locate(known.file, data_dir)


def _located(known: DataSource, data_dir: Path | None) -> DataSource:
    path = None if known.file is None else find(known.file, data_dir)
    fields: dict[str, Any] = {**vars(known), "path": None if path is None else str(path)}
    return DataSource(**fields)


# --- download -------------------------------------------------------------------------------

Retrieve = Callable[[str, str, Path], Path]  # (address, sha256, folder) -> the file


def fetch(name: str, to: Path | None = None, retrieve: Retrieve | None = None) -> Path:
    """Download a known source into a folder of data files and return the file's path.

    Omniglot is taken from Lake's own archives (their digests are pinned), converted, and the
    pixels compared with the pinned digest of the ones that dmaml was tested with.

    Args:
        name: of the catalogue.
        to: the folder; default `data` in the user's cache, one of `places`.
        retrieve: downloads one file; default pooch.

    Raises:
        UnknownNameError: no such source.
        DataError: it cannot be downloaded by this command, or what came differs.
        RunTimeError: the network or the disk failed; running it again is safe.
    """
    known = entry(name)
    if not known.can_fetch or known.file is None:
        raise DataError(
            f"source {name!r} cannot be downloaded by dmaml (licence: {known.licence}; origin: "
            f"{known.origin}). docs/tasks.md says how to get it: put {known.file!r} into a folder "
            "and set DMAML_DATA to it."
            if known.file
            else f"source {name!r} is embedded: there is nothing to download."
        )
    target = (to or cache_dir() / "data") / known.file
    try:
        archives = [
            (retrieve or _pooch)(f"{LAKE}/raw/master/python/{file}", sha256, cache_dir() / "fetch")
            for file, sha256 in ARCHIVES
        ]
        arrays: dict[str, Any] = convert_omniglot(archives)
        verify_omniglot(arrays["images"])
        write_whole(target, lambda file: np.savez_compressed(file, **arrays))
    except OSError as error:  # those of requests among them
        raise RunTimeError(
            f"{name!r} could not be downloaded to {str(target)!r}: {error}. "
            "Check the network and the disk, then run it again."
        ) from error
    return target


def _pooch(address: str, sha256: str, folder: Path) -> Path:
    import pooch

    try:
        return Path(pooch.retrieve(address, f"sha256:{sha256}", path=folder))
    except ValueError as error:  # pooch's word for another digest
        raise DataError(f"{address} is not the file that was pinned: {error}") from error


def convert_omniglot(archives: Iterable[Path]) -> dict[str, NDArray[Any]]:
    """Return the arrays of omniglot28.npz from Lake's archives of 105x105 one-bit PNG files.

    Each picture is inverted (ink 255 on 0) and reduced to 28x28 with Pillow's Lanczos filter.
    Classes go by the official character number (the file name's first part), pictures by drawer.

    Raises:
        DataError: an archive that is damaged or holds no such pictures.
    """
    pictures = sorted(
        (found for archive in archives for found in _read_archive(archive)),
        key=lambda found: found[:2],
    )
    if not pictures:
        raise DataError("the archives hold no Omniglot pictures. Delete them and fetch again.")
    numbers = np.array([found[0] for found in pictures])
    characters, first, labels = np.unique(numbers, return_index=True, return_inverse=True)
    alphabets = [pictures[i][2] for i in first]
    is_evaluation = characters > NUM_BACKGROUND
    order = sorted(set(zip(is_evaluation.tolist(), alphabets, strict=True)))
    ids = {name: number for number, (_, name) in enumerate(order)}
    return {
        "images": np.stack([found[4] for found in pictures]),
        "labels": labels.astype(np.int32),
        "drawers": np.array([found[1] for found in pictures], dtype=np.int32),
        "class_names": np.array([f"{pictures[i][2]}/{pictures[i][3]}" for i in first]),
        "alphabets": np.array(alphabets),
        "alphabet_ids": np.array([ids[name] for name in alphabets], dtype=np.int32),
        "split": is_evaluation.astype(np.int32),
    }


_ENTRY: Final = re.compile(
    r"images_(?:background|evaluation)/([^/]+)/(character\d+)/(\d{4})_(\d{2})\.png"
)
Picture = tuple[int, int, str, str, NDArray[np.uint8]]  # number, drawer, alphabet, character, ink


def _read_archive(path: Path) -> Iterator[Picture]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if match := _ENTRY.fullmatch(name):
                    alphabet, character, number, drawer = match.groups()
                    ink = _reduce(archive.read(name))
                    yield int(number), int(drawer), alphabet, character, ink
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"archive {str(path)!r} is damaged: {error}. Delete it, fetch again."
        ) from (error)


def _reduce(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as picture:
        inverted = Image.fromarray(255 - np.asarray(picture.convert("L")))
    return np.asarray(inverted.resize((28, 28), Image.Resampling.LANCZOS))


def verify_omniglot(images: NDArray[np.uint8]) -> None:
    """Raise DataError unless these are the pixels that dmaml was tested with."""
    found = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
    if found != OMNIGLOT_PIXELS:
        raise DataError(
            f"the converted Omniglot pictures, shape {images.shape}, have SHA-256 {found}, "
            f"required {OMNIGLOT_PIXELS}. Update Pillow, or report it with Pillow's version."
        )
