"""JSON Lines, one object a line, streamed: a file of a million lines never sits in memory whole.

Every fault names the file, the line and the reason. A file that is Parquet by its name has rows for lines. At
the end: files that are one JSON document, read whole and written in pieces as the records stream by.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar

import orjson

from sdg.errors import SdgError
from sdg.io.files import atomic_writer, open_binary, read_text
from sdg.io.parquet import rows, write_predictions
from sdg.records import Part, Path, Record

S = TypeVar("S")
T = TypeVar("T")

_BLOCK = 1 << 20  # bytes read at a time where lines are counted
_BOM = b"\xef\xbb\xbf"


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its name."""
    return os.fspath(path).lower().endswith(".parquet")


def read_with(path: Path, convert: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """`convert(object)` of each line; a ValueError it raises becomes an SdgError with file and line.

    Raises SdgError at the first line that is not a JSON object in UTF-8, and for an empty file.
    """
    return _read(path, convert, lambda line: convert(parse_object(line)))


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON object of each line; raises SdgError as `read_with` does."""
    return read_with(path, lambda value: value)


def first_object(path: Path) -> dict[str, Any]:
    """The first line that is an object, so that a fault in an earlier one is listed among the others.

    Raises SdgError, as `read_with` does, where there is none.
    """
    for _, line in () if is_parquet(path) else read_lines(path):
        try:
            return parse_object(line)
        except ValueError:
            continue
    return next(read_objects(path))  # says what is wrong with the first


def read_records(path: Path, convert: Callable[[dict[str, Any]], Record]) -> Iterator[Record]:
    """The same as `read_with`, in less time."""
    return _read(path, convert, partial(read_record, convert=convert))


def read_record(line: bytes, convert: Callable[[dict[str, Any]], Record]) -> Record:
    """The record of one line; raises ValueError for a fault.

    By way of orjson, which takes half the time, but for faults, which `parse_object` words, and for metadata:
    orjson makes floats of integers beyond 64 bits.
    """
    try:
        value = orjson.loads(line)
        record = convert(value) if type(value) is dict else None
    except ValueError:
        record = None
    return convert(parse_object(line)) if record is None or record.metadata else record


def parts(path: Path, convert: Callable[[dict[str, Any]], Record]) -> Iterator[Part]:
    """Each line as a part of its own, for `validate`; raises SdgError where there are no lines at all."""
    what, values, make = _places(path, convert, lambda line: convert(parse_object(line)))
    for number, value in values:
        yield f"{what} {number}", partial(lambda value: (make(value),), value)


def _read(path: Path, convert: Callable[[dict[str, Any]], T], read: Callable[[bytes], T]) -> Iterator[T]:
    what, values, make = _places(path, convert, read)
    for number, value in values:
        try:
            made = make(value)
        except ValueError as error:
            raise SdgError(f"{path}, {what} {number}: {error}") from None
        yield made


def _places(
    path: Path, convert: Callable[[dict[str, Any]], T], read: Callable[[bytes], T]
) -> tuple[str, Iterator[tuple[int, Any]], Callable[[Any], T]]:
    """What a file's places are called, each with its number, and what makes a value of one."""
    return ("row", rows(path), convert) if is_parquet(path) else ("line", read_lines(path), read)


def spans(path: Path, parts: int) -> tuple[int, list[range]]:
    """How many lines a file has, and the bytes of each of so many parts, whose lines are as many or one more.

    Files with as many lines are cut at the same lines.
    """
    ends, blocks = 0, [0]  # lines that end before each block, and in all
    with open_binary(path) as file:
        while block := file.read(_BLOCK):
            ends += block.count(b"\n")
            blocks.append(ends)
        size = file.tell()
        starts = [0]
        for part in range(1, parts):
            wanted = ends * part // parts
            place = max(0, bisect_left(blocks, wanted) - 1)
            file.seek(place * _BLOCK)
            found, block = blocks[place], file.read(_BLOCK)
            at = 0
            while found < wanted:
                at = block.index(b"\n", at) + 1
                found += 1
            starts.append(place * _BLOCK + at)
    return ends, [range(start, stop) for start, stop in zip(starts, [*starts[1:], size], strict=True)]


def read_lines(path: Path, span: range | None = None) -> Iterator[tuple[int, bytes]]:
    """Line number (from 1) and bytes of each line that is not blank, without a byte-order mark.

    span: the bytes to read, see `spans`; lines are counted from there.
    Raises SdgError where the file is missing, a folder, unreadable or empty.
    """
    empty = True
    with open_binary(path) as file:
        lines: Iterable[bytes] = file
        if span is not None:
            file.seek(span.start)
            lines = _until(file, len(span))
        for number, line in enumerate(lines, start=1):
            if number == 1 and line.startswith(_BOM) and not (span and span.start):
                line = line[len(_BOM) :]
            if line and not line.isspace():
                empty = False
                yield number, line
    if empty:
        raise SdgError(f"{path} is empty; one JSON object a line is needed.")


def _until(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    for line in lines:
        if size <= 0:
            return
        size -= len(line)
        yield line


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object on one line; raises ValueError with the reason, in one sentence."""
    try:
        text = line.decode("utf-8").rstrip("\r\n")  # else the end of a line that is cut off is the fault
        value = DECODER.decode(text)
    except UnicodeDecodeError:
        raise ValueError("This is not UTF-8 text; save the file as UTF-8.") from None
    except json.JSONDecodeError as error:
        position = min(error.pos, len(text.rstrip())) + 1
        what = error.msg.removesuffix(" at")  # Python's own, of some faults
        raise ValueError(f"This is not JSON: {what} at character {position}.") from None
    except RecursionError:
        raise ValueError("This is JSON nested too deeply to be read.") from None
    if not isinstance(value, dict):
        raise ValueError('A line holds one JSON object, such as {"filepath": "a.png", …}.')
    return value


def _reject(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number; write null.")


DECODER: Final = json.JSONDecoder(parse_constant=_reject)
"""Reads JSON as its standard has it, without Python's NaN and Infinity."""


def write_with(path: Path, values: Iterable[S], convert: Callable[[S], Mapping[str, Any]]) -> int:
    """Write `convert(value)` of each value, one a line, all of them or no file; returns how many.

    What is Parquet by its name holds lines of predictions.
    Raises SdgError where the file cannot be written, or `convert` or JSON refuse a value (ValueError).
    """
    if is_parquet(path):
        return write_predictions(path, values, convert)
    count = 0
    with atomic_writer(path) as file:
        for count, value in enumerate(values, start=1):
            try:
                line = dump_object(convert(value))
            except ValueError as error:
                raise SdgError(f"{path}, record {count}: {error}") from None
            file.write(line)
    return count


def write_objects(path: Path, objects: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON objects as `write_with` does; returns how many. Raises SdgError."""
    return write_with(path, objects, lambda value: value)


def dump_object(value: Mapping[str, Any]) -> bytes:
    """One JSON line in UTF-8, newline included; raises ValueError for what JSON cannot hold."""
    try:
        return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can hold it, but only escaped
        return (json.dumps(value, allow_nan=False) + "\n").encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"This cannot be written as JSON: {error}.") from None


def load_document(path: Path) -> Any:
    """The JSON value a file holds; raises SdgError where the file is missing, empty or no JSON."""
    text = read_text(path)
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")  # as above
        raise SdgError(f"{path} is not JSON: {what} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise SdgError(f"{path} is JSON nested too deeply to be read.") from None
    except ValueError as error:
        raise SdgError(f"{path} is not JSON: {error}") from None


class ListWriter:
    """Writes the elements of a JSON list one by one, a line each; path: what the file will be called."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.count = 0
        self._file, self._path = file, path

    def add(self, value: Mapping[str, Any]) -> None:
        """Write one more element; raises SdgError where JSON cannot hold it."""
        self.count += 1
        try:
            line = dump_object(value)
        except ValueError as error:
            raise SdgError(f"Element {self.count} of {self._path}: {error}") from None
        self._file.write((b"\n" if self.count == 1 else b",\n") + line[:-1])
