"""Flat buffers and protocol messages: number formats, checksums, chunks, conversions.

The only place, beside the adapters of both sides, that knows the generated code.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.errors import ProtocolError
from dmaml.common.items import ItemKind, Token, WorkItem
from dmaml.common.layout import MAX_TENSORS, Flat, Layout, TensorSpec
from dmaml.common.probes import Observation, Probe, ProbeKind
from dmaml.v1 import meta_model_pb2 as pb

MAX_UNARY_BYTES: Final = 4 * 1024**2
MAX_CHUNK_BYTES: Final = 1024**2
MAX_MESSAGE_BYTES: Final = MAX_UNARY_BYTES + 64 * 1024
PROTOCOL_VERSION: Final = 1

WIRE_DTYPES: Final = {
    "float32": pb.WIRE_DTYPE_FLOAT32,
    "bfloat16": pb.WIRE_DTYPE_BFLOAT16,
    "float16": pb.WIRE_DTYPE_FLOAT16,
}
_NAMES: Final = {number: name for name, number in WIRE_DTYPES.items()}


def wire_name(number: int) -> str:
    """Return the name of a wire number format.

    Raises:
        ProtocolError: unknown number.
    """
    try:
        return _NAMES[number]
    except KeyError:
        raise ProtocolError(
            f"wire dtype {number} is unknown. Known: {sorted(_NAMES.values())}."
        ) from None


def wire_bytes(dtype: str, num_elements: int) -> int:
    """Return the payload size of `num_elements` values in a wire number format."""
    return num_elements * (4 if dtype == "float32" else 2)


def encode(flat: Flat, dtype: str) -> memoryview:
    """Return the payload of a float32 buffer: little-endian, rounded to nearest even."""
    if dtype == "float32":
        return _bytes(np.ascontiguousarray(flat, dtype="<f4"))
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return _bytes(flat.astype("<f2"))
    bits = np.ascontiguousarray(flat, dtype="<f4").view(np.uint32)
    is_nan = np.isnan(flat)
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    rounded[is_nan] = 0x7FC0
    return _bytes(rounded.astype("<u2"))


def decode(payload: bytes | memoryview, dtype: str, num_elements: int) -> Flat:
    """Return the float32 buffer of a payload, without a copy where the format is float32.

    Raises:
        ProtocolError: the payload has another size.
    """
    expected = wire_bytes(dtype, num_elements)
    if len(payload) != expected:
        raise ProtocolError(f"payload has {len(payload)} bytes, required {expected}.")
    if dtype == "float32":
        return np.frombuffer(payload, dtype="<f4")
    if dtype == "float16":
        return np.frombuffer(payload, dtype="<f2").astype("<f4")
    return (np.frombuffer(payload, dtype="<u2").astype(np.uint32) << 16).view("<f4")


def crc32(payload: bytes | memoryview) -> int:
    """Return the CRC-32 of a payload."""
    return zlib.crc32(payload)


def chunks(payload: bytes | memoryview) -> Iterator[bytes]:
    """Yield the payload in messages of at most `MAX_CHUNK_BYTES`."""
    view = memoryview(payload)
    for start in range(0, len(view), MAX_CHUNK_BYTES):
        yield bytes(view[start : start + MAX_CHUNK_BYTES])


class Receiver:
    """Collects the chunks of one payload whose size is known beforehand."""

    def __init__(self, num_bytes: int, limit: int) -> None:
        if num_bytes > limit:
            raise ProtocolError(f"payload of {num_bytes} bytes announced, at most {limit} allowed.")
        self._buffer = np.empty(num_bytes, dtype=np.uint8)
        self._filled = 0

    def add(self, data: bytes) -> None:
        """Take the next chunk.

        Raises:
            ProtocolError: more bytes than announced.
        """
        if len(data) > MAX_CHUNK_BYTES:
            raise ProtocolError(
                f"chunk of {len(data)} bytes, at most {MAX_CHUNK_BYTES} are allowed."
            )
        end = self._filled + len(data)
        if end > self._buffer.size:
            raise ProtocolError(f"payload exceeds the {self._buffer.size} bytes announced.")
        self._buffer[self._filled : end] = np.frombuffer(data, dtype=np.uint8)
        self._filled = end

    def finish(self, checksum: int) -> memoryview | None:
        """Return the payload, or None when it is short or damaged."""
        view = _bytes(self._buffer)
        if self._filled != self._buffer.size or zlib.crc32(view) != checksum:
            return None
        return view


def layout_to_proto(layout: Layout) -> pb.Layout:
    """Return the message of a layout."""
    tensors = [pb.TensorSpec(name=spec.name, shape=spec.shape) for spec in layout.tensors]
    return pb.Layout(tensors=tensors, schema_hash=layout.schema_hash)


def layout_from_proto(message: pb.Layout) -> Layout:
    """Return the layout of a message.

    Raises:
        ProtocolError: too many tensors, bad shapes, or another hash than announced.
    """
    if len(message.tensors) > MAX_TENSORS:
        raise ProtocolError(f"layout refused: {len(message.tensors)} tensors.")
    layout = Layout(tuple(TensorSpec(t.name, tuple(t.shape)) for t in message.tensors))
    if layout.schema_hash != message.schema_hash:
        raise ProtocolError("layout refused: its schema_hash does not belong to its tensors.")
    return layout


def item_to_proto(item: WorkItem) -> pb.WorkItem:
    """Return the message of a work item."""
    return pb.WorkItem(
        kind=int(item.kind),
        round=item.round,
        pipeline=item.pipeline,
        slot=item.slot,
        part=item.part,
        index=item.index,
        base_version=item.base_version,
        gamma_version=item.gamma_version,
    )


def item_from_proto(message: pb.WorkItem) -> WorkItem:
    """Return the work item of a message.

    Raises:
        ProtocolError: unknown kind.
    """
    try:
        kind = ItemKind(message.kind)
    except ValueError:
        raise ProtocolError(f"work item of unknown kind {message.kind}.") from None
    return WorkItem(
        message.round,
        kind,
        message.pipeline,
        message.slot,
        message.part,
        message.index,
        message.base_version,
        message.gamma_version,
    )


def token_to_proto(token: Token) -> pb.Token:
    """Return the message of a fencing token."""
    return pb.Token(epoch=token.epoch, counter=token.counter)


def token_from_proto(message: pb.Token) -> Token:
    """Return the fencing token of a message."""
    return Token(message.epoch, message.counter)


def table_to_proto(name: str, values: NDArray[np.float64]) -> pb.MetricTable:
    """Return the message of a `[tasks, steps + 1]` table."""
    rows, columns = values.shape
    return pb.MetricTable(
        name=name, num_tasks=rows, num_columns=columns, values=values.ravel().tolist()
    )


def table_from_proto(message: pb.MetricTable) -> NDArray[np.float64]:
    """Return the `[tasks, steps + 1]` table of a message.

    Raises:
        ProtocolError: rows times columns is not the number of values.
    """
    values: NDArray[Any] = np.array(message.values, dtype=np.float64)
    if values.size != message.num_tasks * message.num_columns:
        raise ProtocolError(
            f"table {message.name!r}: {values.size} values for "
            f"{message.num_tasks} x {message.num_columns}."
        )
    return values.reshape(message.num_tasks, message.num_columns)


def probe_to_proto(probe: Probe) -> pb.Probe:
    """Return the message of what a PROBE round asks for."""
    return pb.Probe(
        kind=int(probe.kind),
        pipeline=probe.pipeline,
        samples=probe.samples,
        tasks=probe.tasks,
        dims=probe.dims,
    )


def probe_from_proto(message: pb.Probe) -> Probe:
    """Return what a PROBE round asks for.

    Raises:
        ProtocolError: unknown kind.
    """
    try:
        kind = ProbeKind(message.kind)
    except ValueError:
        raise ProtocolError(f"probe of unknown kind {message.kind}.") from None
    return Probe(kind, message.pipeline, message.samples, message.tasks, message.dims)


def observation_to_proto(observation: Observation) -> pb.ObservationHeader:
    """Return what describes an observation's values, which are the payload."""
    return pb.ObservationHeader(
        num_units=observation.num_units,
        units=observation.units.tolist(),
        num_columns=observation.values.shape[1],
    )


def observation_from_proto(message: pb.ObservationHeader, flat: Flat) -> Observation:
    """Return the observation of a header and its payload.

    Raises:
        ProtocolError: the sizes do not go together, or a unit is none of the source's.
    """
    require_observation(message, flat.size)
    columns = message.num_columns
    units = np.array(message.units, dtype=np.int64)
    rows = flat.size // columns if columns else 0
    return Observation(message.num_units, units, flat.reshape(rows, columns))


def require_observation(message: pb.ObservationHeader, num_elements: int) -> None:
    """Raise unless a header describes a payload of so many values; see `observation_from_proto`."""
    columns, groups = message.num_columns, len(message.units)
    rows = num_elements // columns if columns else 0
    if rows * columns != num_elements or (rows % groups if groups else rows):
        raise ProtocolError(
            f"observation refused: {num_elements} values for {groups} units in rows of {columns}."
        )
    if groups and max(message.units) >= message.num_units:
        raise ProtocolError(
            f"observation refused: unit {max(message.units)} of {message.num_units}."
        )


def _bytes(array: NDArray[Any]) -> memoryview:
    view: memoryview = array.data
    return view.cast("B")
