"""`dmaml data convert`: sets as their authors publish them, written in the exchange format.

| name | what is read | where it is published |
| --- | --- | --- |
| `cifar100` | `cifar-100-binary.tar.gz` | cs.toronto.edu/~kriz/cifar.html |
| `cifar10` | `cifar-10-binary.tar.gz` | cs.toronto.edu/~kriz/cifar.html |
| `mnist` | the folder of the four `*-ubyte` or `*-ubyte.gz` files | yann.lecun.com/exdb/mnist |

The binary forms hold no pickles. Nothing is downloaded here: the licences are between you and the
authors.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.errors import DataError, RunTimeError, UnknownNameError
from dmaml.worker.tasks import cifar10, cifar_fs, mnist
from dmaml.worker.tasks.cache import cache_dir, write_whole

Arrays = dict[str, Any]
_PIXELS: Final = 3 * 32 * 32
_IDX: Final = {"images": 3, "labels": 1}  # dimensions


def convert(name: str, original: Path, to: Path | None = None) -> Path:
    """Write a published set in the exchange format and return the file's path.

    Args:
        name: a key of `FORMATS`.
        original: the archive, or the folder of the files.
        to: a folder; default `data` in the user's cache, one of `locate.places`.

    Raises:
        UnknownNameError: no such set.
        DataError: the original is missing, damaged or another one.
        RunTimeError: the file cannot be written.
    """
    if name not in FORMATS:
        raise UnknownNameError("published set", name, tuple(FORMATS))
    file, read = FORMATS[name]
    try:
        arrays = read(original)
    except (OSError, KeyError, ValueError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{str(original)!r} is not {name} as published: {error}. Download it again "
            "(docs/tasks.md)."
        ) from None
    target = (to or cache_dir() / "data") / file
    try:
        write_whole(target, lambda out: np.savez_compressed(out, **arrays))
    except OSError as error:
        raise RunTimeError(
            f"{str(target)!r} cannot be written: {error.strerror}. Give another folder with --to."
        ) from error
    return target


def read_cifar100(archive: Path) -> Arrays:
    """Return the arrays of CIFAR-100; each record is superclass, class, picture.

    Raises:
        OSError, KeyError, ValueError, tarfile.TarError: damaged or another archive.
    """
    with tarfile.open(archive) as tar:
        train, test = (_records(tar, f"cifar-100-binary/{part}.bin", 2) for part in _PARTS)
        names = _lines(tar, "cifar-100-binary/fine_label_names.txt")
        groups = _lines(tar, "cifar-100-binary/coarse_label_names.txt")
    records = np.concatenate([train, test])
    labels, found = records[:, 1].astype(np.int32), records[:, 0].astype(np.int32)
    _, first = np.unique(labels, return_index=True)
    if len(first) != len(names):
        raise ValueError(f"found {len(first)} classes and {len(names)} names")
    return {
        "images": _images(records[:, 2:]),
        "labels": labels,
        "class_names": np.array(names),
        "superclasses": np.array(groups)[found[first]],
        "original_part": _parts(len(train), len(test)),
    }


def read_cifar10(archive: Path) -> Arrays:
    """Return the arrays of CIFAR-10; each record is class, picture.

    Raises:
        OSError, KeyError, ValueError, tarfile.TarError: damaged or another archive.
    """
    place = "cifar-10-batches-bin"
    with tarfile.open(archive) as tar:
        batches = [_records(tar, f"{place}/data_batch_{i}.bin", 1) for i in range(1, 6)]
        test = _records(tar, f"{place}/test_batch.bin", 1)
        names = _lines(tar, f"{place}/batches.meta.txt")
    records = np.concatenate([*batches, test])
    return {
        "images": _images(records[:, 1:]),
        "labels": records[:, 0].astype(np.int32),
        "class_names": np.array(names),
        "original_part": _parts(len(records) - len(test), len(test)),
    }


def read_mnist(folder: Path) -> Arrays:
    """Return the arrays of MNIST.

    Raises:
        OSError, ValueError, EOFError, zlib.error: a file that is missing or damaged.
    """
    images, labels = (
        [_idx(folder, part, what) for part in ("train", "t10k")] for what in ("images", "labels")
    )
    if [len(part) for part in images] != [len(part) for part in labels]:
        raise ValueError("it has not as many labels as pictures")
    return {
        "images": np.concatenate(images),
        "labels": np.concatenate(labels).astype(np.int32),
        "class_names": np.arange(10).astype(str),
        "original_part": _parts(*map(len, images)),
    }


_PARTS: Final = ("train", "test")
# name -> (the file that the sources look for, how the original is read)
FORMATS: Final[dict[str, tuple[str, Callable[[Path], Arrays]]]] = {
    "cifar100": (cifar_fs.FILE, read_cifar100),
    "cifar10": (cifar10.FILE, read_cifar10),
    "mnist": (mnist.FILE, read_mnist),
}


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name!r} in it is no file")
    return file.read()


def _records(tar: tarfile.TarFile, name: str, num_labels: int) -> NDArray[np.uint8]:
    size = num_labels + _PIXELS
    content = np.frombuffer(_member(tar, name), dtype=np.uint8)
    if len(content) == 0 or len(content) % size:
        raise ValueError(f"{name!r} has {len(content)} bytes, required records of {size}")
    return content.reshape(-1, size)


def _lines(tar: tarfile.TarFile, name: str) -> list[str]:
    return _member(tar, name).decode().split()


def _images(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _parts(train: int, test: int) -> NDArray[np.uint8]:
    return np.repeat(np.array([0, 1], dtype=np.uint8), (train, test))


def _idx(folder: Path, part: str, what: str) -> NDArray[np.uint8]:
    """Return an array of the IDX format: two zeros, 8 (bytes), dimensions, their sizes, data."""
    file = folder / f"{part}-{what}-idx{_IDX[what]}-ubyte"
    packed = file.with_name(file.name + ".gz")
    content = gzip.decompress(packed.read_bytes()) if packed.is_file() else file.read_bytes()
    if content[:4] != bytes([0, 0, 8, _IDX[what]]):
        raise ValueError(f"{file.name!r} is not in the IDX format")
    shape = np.frombuffer(content, dtype=">i4", count=_IDX[what], offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * _IDX[what]).reshape(shape)
