"""TFRecord files of tf.train.Example, read without TensorFlow.

A record is its length (u64, little-endian), that length's masked CRC-32C, the payload, and the payload's.
Lengths are bounded and checksums checked before anything is made of the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.errors import SdgError, installed
from sdg.io.files import open_binary
from sdg.records import Path

LONGEST: Final = 64 * 2**20
"""Bytes of the longest record that is read; one of RichHF-18K has about 2 MB."""
_EXTRA: Final = ("TFRecord files are read with the extra `bench`", "bench")
_HEADER: Final = struct.Struct("<QI")
_CHECK: Final = struct.Struct("<I")
_TYPES: Final[Mapping[int, np.dtype[Any]]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    9: np.dtype("<i8"),
}
"""tf.DType -> numpy's, of the types a map may be stored in."""

Feature = list[bytes] | NDArray[np.float32] | NDArray[np.int64]


def read_examples(path: Path) -> Iterator[Mapping[str, Feature]]:
    """The features of each tf.train.Example of a file, by name.

    Raises SdgError, naming the file and the record, for a record that is cut off or damaged, is longer than
    LONGEST, or holds no Example; and where the libraries of the `bench` extra are missing.
    """
    for number, payload in enumerate(_payloads(path), 1):
        try:
            yield _features(payload)
        except ValueError as error:
            raise _damaged(path, number, str(error)) from None


def stored_array(feature: Feature) -> NDArray[Any]:
    """An array stored as floats or integers, row by row, or as one tensor by `tf.io.serialize_tensor`.

    (N,) of plain numbers, else in the tensor's own shape. Raises ValueError where it is neither.
    """
    if isinstance(feature, np.ndarray):
        return feature
    if len(feature) != 1:
        raise ValueError(f"one tensor is expected, not {len(feature)}")
    tensor = _parse("TensorProto", feature[0])
    if tensor.dtype not in _TYPES:
        raise ValueError(f"tensors of type {tensor.dtype} are not read")
    dtype, shape = _TYPES[tensor.dtype], [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        if len(tensor.tensor_content) % dtype.itemsize:
            raise ValueError("a tensor's content is no whole number of elements")
        values: NDArray[Any] = np.frombuffer(tensor.tensor_content, dtype)
    else:
        field = {1: tensor.float_val, 2: tensor.double_val, 9: tensor.int64_val}.get(
            tensor.dtype, tensor.int_val
        )
        given = np.array(field)
        values = given.astype(dtype)
        if dtype.kind != "f" and (given != values).any():
            raise ValueError("a tensor holds integers beyond those of its type")
    wanted = int(np.prod(shape, dtype=object)) if min(shape, default=1) >= 0 else -1
    if values.size == 1 < wanted <= LONGEST:  # as TensorFlow stores a constant
        return np.full(shape, values[0])
    if wanted != values.size:
        raise ValueError(f"a tensor of shape {shape} holds {values.size} elements")
    return values.reshape(shape)


def _payloads(path: Path) -> Iterator[bytes]:
    crc32c = _crc32c()

    def right(data: bytes, mask: int) -> bool:
        value = crc32c(data)
        rotated = (value >> 15 | value << 17) & 0xFFFFFFFF
        return (rotated + 0xA282EAD8) & 0xFFFFFFFF == mask

    with open_binary(path) as file:
        number = 0
        while header := file.read(_HEADER.size):
            number += 1
            if len(header) < _HEADER.size:
                raise _damaged(path, number, "it is cut off")
            length, check = _HEADER.unpack(header)
            if not right(header[:8], check):
                raise _damaged(path, number, "its length's checksum is wrong; is this a TFRecord file?")
            if length > LONGEST:
                raise _damaged(path, number, f"it has {length:,} bytes, more than {LONGEST:,}")
            payload, end = file.read(length), file.read(_CHECK.size)
            if len(payload) < length or len(end) < _CHECK.size:
                raise _damaged(path, number, "it is cut off")
            if not right(payload, _CHECK.unpack(end)[0]):
                raise _damaged(path, number, "its checksum is wrong")
            yield payload


def _features(payload: bytes) -> dict[str, Feature]:
    found: dict[str, Feature] = {}
    for entry in _parse("Example", payload).features.feature:
        kind = entry.value.WhichOneof("kind")
        if kind == "bytes_list":
            found[entry.key] = list(entry.value.bytes_list.value)
        elif kind == "float_list":
            found[entry.key] = np.array(entry.value.float_list.value, np.float32)
        elif kind == "int64_list":
            found[entry.key] = np.array(entry.value.int64_list.value, np.int64)
    return found


def _damaged(path: Path, number: int, why: str) -> SdgError:
    return SdgError(f"{path}, record {number}: {why}.")


def _crc32c() -> Any:
    with installed(*_EXTRA):
        import google_crc32c
    return google_crc32c.value


def _parse(message: str, payload: bytes) -> Any:
    """A message of the names in `_messages`; raises ValueError where the bytes are none."""
    from google.protobuf.message import DecodeError

    try:
        return _messages()[message].FromString(payload)
    except DecodeError:
        raise ValueError(f"the bytes are no {message}") from None


@cache
def _messages() -> dict[str, Any]:
    """Classes of the few messages that are read, by the fields of TensorFlow's published .proto files."""
    with installed(*_EXTRA):
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    kinds = descriptor_pb2.FieldDescriptorProto
    scalar = {
        "bytes": kinds.TYPE_BYTES,
        "float": kinds.TYPE_FLOAT,
        "double": kinds.TYPE_DOUBLE,
        "int32": kinds.TYPE_INT32,
        "int64": kinds.TYPE_INT64,
        "string": kinds.TYPE_STRING,
    }
    # message -> (field, number, type, repeated); an entry of the map of features is a message like another.
    fields: dict[str, list[tuple[str, int, str, bool]]] = {
        "BytesList": [("value", 1, "bytes", True)],
        "FloatList": [("value", 1, "float", True)],
        "Int64List": [("value", 1, "int64", True)],
        "Feature": [
            ("bytes_list", 1, "BytesList", False),
            ("float_list", 2, "FloatList", False),
            ("int64_list", 3, "Int64List", False),
        ],
        "Entry": [("key", 1, "string", False), ("value", 2, "Feature", False)],
        "Features": [("feature", 1, "Entry", True)],
        "Example": [("features", 1, "Features", False)],
        "Dim": [("size", 1, "int64", False)],
        "Shape": [("dim", 2, "Dim", True)],
        "TensorProto": [
            ("dtype", 1, "int32", False),
            ("tensor_shape", 2, "Shape", False),
            ("tensor_content", 4, "bytes", False),
            ("float_val", 5, "float", True),
            ("double_val", 6, "double", True),
            ("int_val", 7, "int32", True),
            ("int64_val", 10, "int64", True),
        ],
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="sdg/tfrecord.proto", package="sdg.tfrecord", syntax="proto3"
    )
    for name, parts in fields.items():
        message = file.message_type.add(name=name)
        if name == "Feature":
            message.oneof_decl.add(name="kind")
        for field, number, kind, repeated in parts:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if kind in scalar:
                added.type = scalar[kind]
            else:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".sdg.tfrecord.{kind}"
            if name == "Feature":
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"sdg.tfrecord.{name}"))
        for name in fields
    }
