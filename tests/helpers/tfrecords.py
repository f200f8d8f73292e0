"""Writes TFRecords of tf.train.Example byte by byte, with a checksum of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), bit by bit as the polynomial says, masked as TFRecords have it."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def tensor(values: np.ndarray[Any, Any]) -> bytes:
    """A serialised TensorProto with its content as bytes, as tf.io.serialize_tensor writes it."""
    kind = {"f": 1, "u": 4, "i": 9}[values.dtype.kind]
    shape = b"".join(_field(2, b"\x08" + _varint(size)) for size in values.shape)
    return b"\x08" + _varint(kind) + _field(2, shape) + _field(4, values.tobytes())


def example(features: Mapping[str, bytes | Sequence[float] | Sequence[int]]) -> bytes:
    """A tf.train.Example: bytes, floats or integers by name."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = _field(1, _field(1, value))
        elif all(isinstance(each, int) for each in value):
            feature = _field(3, _field(1, b"".join(_varint(each) for each in value)))  # type: ignore[arg-type]
        else:
            feature = _field(2, _field(1, np.asarray(value, "<f4").tobytes()))
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def record(payload: bytes) -> bytes:
    """One record with its checksums."""
    length = struct.pack("<Q", len(payload))
    return (
        length
        + struct.pack("<I", masked_crc32c(length))
        + payload
        + struct.pack("<I", masked_crc32c(payload))
    )


def write(path: Path, examples: Iterable[Mapping[str, Any]]) -> Path:
    """A file of examples."""
    path.write_bytes(b"".join(record(example(features)) for features in examples))
    return path
