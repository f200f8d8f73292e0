"""JSON Lines, one object a line, streamed: a file of a million lines never sits in memory whole.

Every fault names the file, the line and the reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sdg.data.files import atomic_writer, open_binary
from sdg.errors import SdgError

T = TypeVar("T")
Path = str | os.PathLike[str]

_BOM = b"\xef\xbb\xbf"


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and JSON object of each line; blank lines are skipped.

    Raises SdgError at the first line that is not a JSON object in UTF-8, and for an empty file.
    """
    return _convert(path, lambda value: value)


def read_with(path: Path, convert: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """`convert(object)` of each line; a ValueError it raises becomes an SdgError with file and line."""
    for _, value in _convert(path, convert):
        yield value


def _convert(path: Path, convert: Callable[[dict[str, Any]], T]) -> Iterator[tuple[int, T]]:
    for number, line in read_lines(path):
        try:
            value = convert(parse_object(line))
        except ValueError as error:
            raise SdgError(f"{path}, line {number}: {error}") from None
        yield number, value


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number (from 1) and bytes of each line that is not blank, without a byte-order mark.

    Raises SdgError where the file is missing, a folder, unreadable or empty.
    """
    empty = True
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(_BOM):
                line = line[len(_BOM) :]
            if line and not line.isspace():
                empty = False
                yield number, line
    if empty:
        raise SdgError(f"{path} is empty; one JSON object a line is needed.")


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object on one line; raises ValueError with the reason, in one sentence."""
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("This is not UTF-8 text; save the file as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"This is not JSON: {error.msg} at character {error.pos + 1}.") from None
    except RecursionError:
        raise ValueError("This is JSON nested too deeply to be read.") from None
    if not isinstance(value, dict):
        raise ValueError('A line holds one JSON object, such as {"filepath": "a.png", …}.')
    return value


def _reject(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number; write null.")


_DECODER = json.JSONDecoder(parse_constant=_reject)


def write_objects(path: Path, objects: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, all of them or no file; returns how many.

    Raises SdgError where the file cannot be written or a value is not a JSON one.
    """
    count = 0
    with atomic_writer(path) as file:
        for value in objects:
            try:
                file.write(dump_object(value))
            except ValueError as error:
                raise SdgError(f"{path}, line {count + 1}: {error}") from None
            count += 1
    return count


def dump_object(value: Mapping[str, Any]) -> bytes:
    """One JSON line in UTF-8, newline included; raises ValueError for what JSON cannot hold."""
    try:
        return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can hold it, but only escaped
        return (json.dumps(value, allow_nan=False) + "\n").encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"This cannot be written as JSON: {error}.") from None
