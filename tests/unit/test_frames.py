"""Payloads and messages: number formats, checksums, sizes, and what hostile messages meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmaml.common import frames
from dmaml.common.errors import ProtocolError
from dmaml.common.items import ItemKind, Outcome, RunState, Token, WorkItem
from dmaml.common.layout import MAX_TENSORS, Layout, TensorSpec
from dmaml.v1 import meta_model_pb2 as pb

LAYOUT = Layout((TensorSpec("w", (2, 3)), TensorSpec("b", ()), TensorSpec("c", (4,))))
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, 65504.0, 65520.0],
    dtype="<f4",
)  # fmt: skip


def random_floats() -> np.ndarray:
    """Return float32 values of every exponent, and ties of the upper sixteen bits."""
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    ties = (bits[:2000] & 0xFFFF0000) | 0x8000
    return np.concatenate([SPECIAL, bits.view("<f4"), ties.astype(np.uint32).view("<f4")])


# -- number formats --------------------------------------------------------------------------------


def test_float32_travels_bit_for_bit_and_without_a_copy():
    flat = random_floats()

    payload = frames.encode(flat, "float32")
    back = frames.decode(payload, "float32", flat.size)

    assert back.tobytes() == flat.tobytes()
    assert np.shares_memory(back, flat)


@pytest.mark.parametrize(("name", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.half)])
def test_half_formats_round_like_torch(name, dtype):
    flat = random_floats()

    back = frames.decode(frames.encode(flat, name), name, flat.size)

    expected = torch.from_numpy(flat.copy()).to(dtype).float().numpy()
    is_nan = np.isnan(expected)
    assert np.array_equal(np.isnan(back), is_nan)
    assert back[~is_nan].tobytes() == expected[~is_nan].tobytes()


@pytest.mark.parametrize(
    ("bits", "rounded"),
    [(0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0x3F808001, 0x3F81), (0x3F807FFF, 0x3F80)],
)
def test_bfloat16_ties_go_to_the_even_neighbour(bits, rounded):
    flat = np.array([bits], dtype=np.uint32).view("<f4")

    payload = frames.encode(flat, "bfloat16")

    assert int.from_bytes(payload, "little") == rounded


def test_payload_is_little_endian():
    assert bytes(frames.encode(np.array([1.0], dtype="<f4"), "float32")) == b"\x00\x00\x80\x3f"
    assert bytes(frames.encode(np.array([1.0], dtype="<f4"), "bfloat16")) == b"\x80\x3f"
    assert bytes(frames.encode(np.array([1.0], dtype="<f4"), "float16")) == b"\x00\x3c"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("num_elements", [0, 1, 7])
def test_payload_size_is_what_wire_bytes_says(dtype, num_elements):
    flat = np.ones(num_elements, dtype="<f4")

    payload = frames.encode(flat, dtype)

    assert len(payload) == frames.wire_bytes(dtype, num_elements)
    assert np.array_equal(frames.decode(payload, dtype, num_elements), flat)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_payload_of_another_size_is_refused(dtype):
    payload = bytes(frames.encode(np.ones(3, dtype="<f4"), dtype))

    with pytest.raises(ProtocolError, match="required"):
        frames.decode(payload[:-1], dtype, 3)
    with pytest.raises(ProtocolError, match="required"):
        frames.decode(payload, dtype, 4)


def test_unknown_wire_format_is_refused():
    assert frames.wire_name(pb.WIRE_DTYPE_BFLOAT16) == "bfloat16"
    with pytest.raises(ProtocolError, match="wire dtype 0 is unknown"):
        frames.wire_name(pb.WIRE_DTYPE_UNSPECIFIED)


# -- chunks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_bytes", [0, 1, 2**20, 2**20 + 1, 3 * 2**20 - 1])
def test_chunks_put_together_are_the_payload(num_bytes):
    payload = np.random.default_rng(1).bytes(num_bytes)
    receiver = frames.Receiver(num_bytes, limit=num_bytes)

    pieces = list(frames.chunks(payload))
    for piece in pieces:
        receiver.add(piece)
    view = receiver.finish(frames.crc32(payload))

    assert all(0 < len(piece) <= frames.MAX_CHUNK_BYTES for piece in pieces)
    assert bytes(view) == payload


def test_announced_size_beyond_the_limit_is_refused_before_anything_is_allocated():
    with pytest.raises(ProtocolError, match="at most 1000 allowed"):
        frames.Receiver(2**62, limit=1000)


def test_more_bytes_than_announced_are_refused():
    receiver = frames.Receiver(3, limit=10)
    receiver.add(b"ab")

    with pytest.raises(ProtocolError, match="exceeds the 3 bytes"):
        receiver.add(b"cd")


def test_short_payload_is_seen():
    receiver = frames.Receiver(3, limit=10)
    receiver.add(b"ab")

    assert receiver.finish(frames.crc32(b"ab")) is None


@pytest.mark.parametrize("position", [0, 50, 99])
def test_flipped_bit_is_seen(position):
    payload = bytearray(range(100))
    checksum = frames.crc32(payload)
    receiver = frames.Receiver(100, limit=100)

    payload[position] ^= 1
    receiver.add(bytes(payload))

    assert receiver.finish(checksum) is None


def test_crc32_is_the_standard_one():
    assert frames.crc32(b"123456789") == 0xCBF43926


# -- messages --------------------------------------------------------------------------------------


def test_layout_survives_its_message():
    message = pb.Layout.FromString(frames.layout_to_proto(LAYOUT).SerializeToString())

    assert frames.layout_from_proto(message) == LAYOUT


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        [("w", (2,)), ("w", (2,))],
        [("w", (0,))],
        [("w", (1,) * 17)],
        [("w", (2,))] * (MAX_TENSORS + 1),
    ],
)
def test_hostile_layout_is_refused(tensors):
    message = pb.Layout(tensors=[pb.TensorSpec(name=n, shape=s) for n, s in tensors])

    with pytest.raises(ProtocolError, match="layout refused"):
        frames.layout_from_proto(message)


def test_layout_with_the_hash_of_another_is_refused():
    message = frames.layout_to_proto(LAYOUT)
    message.tensors[0].shape[0] += 1

    with pytest.raises(ProtocolError, match="schema_hash"):
        frames.layout_from_proto(message)


def test_huge_shape_is_only_a_number():
    message = pb.Layout(tensors=[pb.TensorSpec(name="w", shape=[2**63] * 16)])
    message.schema_hash = Layout((TensorSpec("w", (2**63,) * 16),)).schema_hash

    layout = frames.layout_from_proto(message)

    assert layout.size == 2 ** (63 * 16)
    with pytest.raises(ProtocolError, match="found 3"):
        layout.require(3)


def test_work_item_and_token_survive_their_messages():
    item = WorkItem(2**40, ItemKind.EVALUATE, 3, 4, 5, 6, 2**41)
    token = Token(7, 2**50)

    assert frames.item_from_proto(frames.item_to_proto(item)) == item
    assert frames.token_from_proto(frames.token_to_proto(token)) == token


@pytest.mark.parametrize("kind", [0, 5, 99])
def test_item_of_unknown_kind_is_refused(kind):
    with pytest.raises(ProtocolError, match=f"unknown kind {kind}"):
        frames.item_from_proto(pb.WorkItem(kind=kind))


def test_table_survives_its_message():
    values = np.arange(6, dtype=np.float64).reshape(3, 2) / 7

    back = frames.table_from_proto(frames.table_to_proto("accuracy", values))

    assert np.array_equal(back, values)


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (0, 0), (2**31, 2**31)])
def test_table_of_another_size_is_refused(rows, columns):
    message = pb.MetricTable(name="x", num_tasks=rows, num_columns=columns, values=[1.0, 2.0])

    with pytest.raises(ProtocolError, match="2 values"):
        frames.table_from_proto(message)


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (ItemKind, pb.ItemKind, "ITEM_KIND_"),
        (Outcome, pb.PushOutcome, "PUSH_OUTCOME_"),
        (RunState, pb.RunState, "RUN_STATE_"),
    ],
)
def test_numbers_of_our_enumerations_are_those_of_the_protocol(ours, theirs, prefix):
    expected = {f"{prefix}{one.name}": int(one) for one in ours} | {f"{prefix}UNSPECIFIED": 0}

    assert dict(theirs.items()) == expected
