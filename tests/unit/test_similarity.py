"""Units are alike by the depth of the last node of the tree that they have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmaml.common.errors import ConfigError
from dmaml.common.gamma import ROOT, Gamma, Pipeline, single
from dmaml.report import similarity

TREE = (  # 0 -> 1, 2; 2 -> 3, 4
    Pipeline(0, ROOT, 0, False), Pipeline(1, 0, 5), Pipeline(2, 0, 5, False),
    Pipeline(3, 2, 9), Pipeline(4, 2, 9),
)  # fmt: skip


def hard(columns: list[int], num_columns: int) -> np.ndarray:
    return np.eye(num_columns, dtype=np.float32)[columns]


def test_the_depth_of_the_last_common_node_counts_from_the_root() -> None:
    gamma = Gamma(2, (1, 3, 4), hard([0, 1, 2, 1, 0], 3), TREE)

    found = similarity.of_units(gamma, np.array([0, 1, 2, 3]))

    assert found.tolist() == [[2, 1, 1, 1], [1, 3, 2, 3], [1, 2, 3, 2], [1, 3, 2, 3]]


def test_a_parent_that_goes_on_has_a_leaf_of_its_own() -> None:
    gamma = Gamma(1, (0, 1), hard([0, 0, 1], 2), (Pipeline(0), Pipeline(1, 0)))

    found = similarity.of_units(gamma, np.arange(3))

    assert found.tolist() == [[2, 2, 1], [2, 2, 1], [1, 1, 2]]


def test_units_of_different_roots_have_nothing_in_common() -> None:
    gamma = Gamma(1, (0, 1), hard([0, 1], 2))

    assert similarity.of_units(gamma, np.arange(2)).tolist() == [[1, 0], [0, 1]]


def test_without_clustering_all_units_are_alike() -> None:
    assert similarity.of_units(single(), np.arange(3)).tolist() == [[1] * 3] * 3


def test_a_csv_has_names_and_an_npy_the_numbers(tmp_path: Path) -> None:
    matrix = np.array([[2, 1], [1, 2]])

    similarity.write(tmp_path / "s.csv", matrix, ["a", "b, c"])
    similarity.write(tmp_path / "s.npy", matrix, ["a", "b, c"])

    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines == ['unit,a,"b, c"', "a,2,1", '"b, c",1,2']
    assert np.load(tmp_path / "s.npy", allow_pickle=False).tolist() == matrix.tolist()


def test_another_format_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="txt"):
        similarity.require_file(Path("s.txt"))


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()

    similarity.require_file(tmp_path / "s.csv")
    for file in (tmp_path / "none" / "s.csv", tmp_path / "folder.csv"):
        with pytest.raises(ConfigError, match="cannot be written: required a folder"):
            similarity.require_file(file)
