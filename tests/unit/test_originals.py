"""Sets as published, converted to the exchange format."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import from_mapping
from dmaml.common.errors import DataError, UnknownNameError
from dmaml.worker.tasks import build
from dmaml.worker.tasks.base import SPLITS
from dmaml.worker.tasks.originals import convert
from dmaml.worker.tasks.published import CIFAR_FS, FC100

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DMAML_DATA", raising=False)


def noise(*shape: int) -> Any:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def records(images: Any, *labels: Any) -> bytes:
    """Return rows of label bytes and then red, green and blue, as in the binary archives."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    columns = [np.asarray(label, dtype=np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, planes], axis=1).tobytes()


def idx(values: Any) -> bytes:
    return (
        bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()
    )


def cifar100(path: Path) -> tuple[Path, Any]:
    names, groups = sorted(np.concatenate(CIFAR_FS)), sorted(np.concatenate(FC100))
    labels = RANDOM.permutation(np.repeat(np.arange(100), 2))
    images = noise(200, 32, 32, 3)
    place = "cifar-100-binary"
    members = {
        f"{place}/train.bin": records(images[:150], labels[:150] // 5, labels[:150]),
        f"{place}/test.bin": records(images[150:], labels[150:] // 5, labels[150:]),
        f"{place}/fine_label_names.txt": "\n".join(names).encode() + b"\n",
        f"{place}/coarse_label_names.txt": "\n".join(groups).encode() + b"\n",
    }
    return write_tar(path / "cifar-100-binary.tar.gz", members), images


def test_cifar100_becomes_the_file_of_both_its_sources(tmp_path: Path) -> None:
    original, images = cifar100(tmp_path)

    file = convert("cifar100", original)

    with np.load(file) as made:
        assert (made["images"] == images).all()
        assert made["original_part"].tolist() == [0] * 150 + [1] * 50
        assert made["superclasses"][:7].tolist() == ["aquatic_mammals"] * 5 + ["fish"] * 2
    for name, sizes in (("cifar_fs", [64, 16, 20]), ("fc100", [60, 20, 20])):
        source = build(from_mapping({"task": {"source": name}}))  # found in the cache
        assert [len(source.split(part)) for part in SPLITS] == sizes


def test_cifar10_has_its_batches_in_order(tmp_path: Path) -> None:
    images, labels = noise(60, 32, 32, 3), np.tile(np.arange(10), 6)
    place = "cifar-10-batches-bin"
    files = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    members = {
        f"{place}/{file}": records(images[10 * i : 10 * i + 10], labels[:10])
        for i, file in enumerate(files)
    }
    members[f"{place}/batches.meta.txt"] = b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n"

    file = convert("cifar10", write_tar(tmp_path / "10.tar.gz", members), tmp_path)

    assert file == tmp_path / "cifar10.npz"
    with np.load(file) as made:
        assert (made["images"] == images).all()
        assert (made["labels"] == labels).all()
        assert made["class_names"].tolist() == list("abcdefghij")
        assert made["original_part"].tolist() == [0] * 50 + [1] * 10


def test_mnist_is_read_from_its_four_files_packed_or_not(tmp_path: Path) -> None:
    images, labels = noise(70, 28, 28), np.tile(np.arange(10, dtype=np.uint8), 7)
    for part, rows in (("train", slice(60)), ("t10k", slice(60, 70))):
        packed = gzip.compress(idx(images[rows]))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(packed)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels[rows]))

    file = convert("mnist", tmp_path)

    with np.load(file) as made:
        assert (made["images"] == images).all()
        assert (made["labels"] == labels).all()
        assert made["original_part"].sum() == 10
    assert build(from_mapping({"task": {"source": "mnist", "n_way": 10}})).num_units == 30


def test_another_or_a_damaged_original_is_told_in_a_sentence(tmp_path: Path) -> None:
    original, _ = cifar100(tmp_path)
    torn = tmp_path / "torn.tar.gz"
    torn.write_bytes(original.read_bytes()[:50_000])
    short = write_tar(tmp_path / "short.tar.gz", {"cifar-100-binary/train.bin": b"123"})
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"no idx")

    for name, path, words in (
        ("cifar100", tmp_path / "nothing.tar.gz", "No such file"),
        ("cifar100", torn, "end"),
        ("cifar10", original, "data_batch_1.bin' not found"),
        ("cifar100", short, "has 3 bytes, required records of 3074"),
        ("mnist", tmp_path, "'train-images-idx3-ubyte' is not in the IDX format"),
        ("mnist", tmp_path / "nowhere", "No such file"),
    ):
        with pytest.raises(DataError, match=f"is not {name} as published: .*{words}") as caught:
            convert(name, path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar100'"):
        convert("cifar-100", original)
