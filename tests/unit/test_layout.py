"""Named tensors <-> one flat buffer."""

from __future__ import annotations

import numpy as np
import pytest

from dmaml.common.errors import ProtocolError
from dmaml.common.layout import Layout, TensorSpec


def arrays() -> dict[str, np.ndarray]:
    return {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.float32(7.0).reshape(()),
        "a": np.array([8.0, 9.0], dtype=np.float32),
    }


def test_tensors_lie_one_after_another_in_the_order_of_the_mapping():
    layout = Layout.of(arrays())

    flat = layout.flatten(arrays())

    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert flat.dtype == np.dtype("<f4")
    assert (layout.size, layout.num_bytes) == (9, 36)


def test_views_are_views():
    layout = Layout.of(arrays())
    flat = layout.flatten(arrays())

    layout.views(flat)["w"][1, 2] = 50.0

    assert flat[5] == 50.0
    assert {n: v.shape for n, v in layout.views(flat).items()} == {"w": (2, 3), "b": (), "a": (2,)}


def test_flatten_takes_a_transposed_tensor_by_value():
    layout = Layout((TensorSpec("w", (3, 2)),))

    assert layout.flatten({"w": arrays()["w"].T}).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    "other",
    [
        Layout((TensorSpec("v", (2, 3)),)),
        Layout((TensorSpec("w", (3, 2)),)),
        Layout((TensorSpec("w", (6,)),)),
        Layout((TensorSpec("w", (2, 3)), TensorSpec("b", ()))),
    ],
)
def test_hash_tells_names_and_shapes_apart(other):
    assert other.schema_hash != Layout((TensorSpec("w", (2, 3)),)).schema_hash


def test_hash_depends_on_the_order():
    one, two = TensorSpec("a", (1,)), TensorSpec("b", (1,))

    assert Layout((one, two)).schema_hash != Layout((two, one)).schema_hash


def test_missing_or_changed_tensor_is_named():
    layout = Layout.of(arrays())

    with pytest.raises(ProtocolError, match=r"tensor 'b': required shape \(\), found nothing"):
        layout.flatten({"w": arrays()["w"]})
    with pytest.raises(ProtocolError, match=r"required shape \(2, 3\), found \(3, 2\)"):
        layout.flatten(arrays() | {"w": arrays()["w"].T})


def test_buffer_of_another_size_is_refused():
    with pytest.raises(ProtocolError, match="required 9 float32 values, found 8"):
        Layout.of(arrays()).views(np.zeros(8, dtype=np.float32))


@pytest.mark.parametrize(
    "tensors",
    [
        (),
        (TensorSpec("w", (1,)), TensorSpec("w", (1,))),
        (TensorSpec("w", (2, 0)),),
        (TensorSpec("w", (-1,)),),
        (TensorSpec("w", (1,) * 17),),
    ],
)
def test_impossible_layout_is_refused(tensors):
    with pytest.raises(ProtocolError, match="layout refused"):
        Layout(tensors)
