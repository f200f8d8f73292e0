"""Two files of lines for several processes: where to cut them, and lines read no further than scoring needs.

Each part of one has the same images as that of the other. Lines are read so where they are as released; of
any other the functions here give None: `line_reader` reads those, and says what is wrong with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from itertools import pairwise
from typing import Any, BinaryIO, Final

import orjson

from sdg.defects import Status
from sdg.io.files import open_binary
from sdg.io.jsonl import spans
from sdg.records import ESCAPE, NAMES, STORED, Path
from sdg.response.parsing import plain_response

WINDOW: Final = 1 << 22
"""Bytes before and after the same share of the other file in which a path is looked for, at most."""
_NEAR: Final = 1 << 18  # where it most often is


def cuts(one: Path, other: Path, parts: int) -> list[tuple[range, range]] | None:
    """The bytes of each part in both files; None where the files have not as many lines.

    The cuts are made where a path is found in both files, which takes no reading of all of them, and else by
    counting lines. Whether paths pair up is for the reader to see.
    Raises SdgError where a file cannot be read.
    """
    with open_binary(one) as file, open_binary(other) as second:
        sizes = [opened.seek(0, os.SEEK_END) for opened in (file, second)]
        starts = [(0, 0)]
        for part in range(1, parts):
            found = _same_image(file, second, *(size * part // parts for size in sizes))
            if found is None:
                return _by_lines(one, other, parts)
            starts.append(found)
    ends = [*starts, (sizes[0], sizes[1])]
    found_cuts = [(range(a, c), range(b, d)) for (a, b), (c, d) in pairwise(ends)]
    return found_cuts if all(map(all, found_cuts)) else _by_lines(one, other, parts)


def _by_lines(one: Path, other: Path, parts: int) -> list[tuple[range, range]] | None:
    (lines, found), (others, other_found) = (spans(path, parts) for path in (one, other))
    return list(zip(found, other_found, strict=True)) if lines == others >= parts else None


def _same_image(file: BinaryIO, other: BinaryIO, near: int, other_near: int) -> tuple[int, int] | None:
    """The begin of the first line after `near`, and that of the line of the same image in the other file."""
    file.seek(near)
    file.readline()
    start, path = file.tell(), _path(file.readline())
    if path is None:
        return None
    places = (_begin(other, path, other_near, min(window, WINDOW)) for window in (_NEAR, WINDOW))
    return next(((start, place) for place in places if place is not None), None)


def _begin(other: BinaryIO, path: str, other_near: int, window: int) -> int | None:
    """Where the line of an image begins, looked for around a place."""
    first = max(0, other_near - window)
    other.seek(first)
    block = other.read(other_near + window - first)
    for written in {orjson.dumps(path), json.dumps(path).encode()}:  # as it is, and escaped
        at = block.find(written)
        while at >= 0:
            begin = block.rfind(b"\n", 0, at) + 1
            end = block.find(b"\n", at)
            if (begin or not first) and _path(block[begin : end if end >= 0 else None]) == path:
                return first + begin
            at = block.find(written, at + 1)
    return None


def _path(line: bytes) -> str | None:
    try:
        value = orjson.loads(line)
    except ValueError:
        return None
    path = value.get("filepath") if isinstance(value, dict) else None
    return path if isinstance(path, str) else None


Plain = tuple[str, Any]
"""A path, and the JSON value of the defects, which is not looked at yet."""

_ANNOTATION_KEYS: Final = frozenset({"filepath", "caption", "ann_translated_bboxes", "ann_response"})
_PREDICTION_KEYS: Final = frozenset({"filepath", "caption", "response"})
_WHOLE: Final = (None, Status.OK.value, Status.REPAIRED.value)
_NAMING: Final = (str, int, type(None))
_TELLING: Final = frozenset({STORED, ESCAPE, "filename", "error", "refusal", "finish_reason"})


def plain_annotation(line: bytes) -> Plain | None:
    """Of a line of annotations that is made of what the release has, and of metadata without structure."""
    value = _object(line)
    if value is None or type(value.get("caption")) is not str or not _is_plain(value, _ANNOTATION_KEYS):
        return None
    return value["filepath"], value.get("ann_translated_bboxes")


def plain_prediction(line: bytes) -> Plain | None:
    """Of a line of predictions whose response needs no repair and was not cut off."""
    value = _object(line)
    if value is None or not _is_plain(value, _PREDICTION_KEYS) or value.get("status") not in _WHOLE:
        return None
    response, caption = value.get("response"), value.get("caption")
    if type(response) is not str or (caption is not None and type(caption) is not str):
        return None
    found = plain_response(response)
    return None if found is None else (value["filepath"], found[1])


def _object(line: bytes) -> dict[str, Any] | None:
    """The object of a line, which has a path."""
    try:
        value = orjson.loads(line)
    except ValueError:
        return None
    return value if type(value) is dict and type(value.get("filepath")) is str and value["filepath"] else None


def _is_plain(value: Mapping[str, Any], known: Set[str]) -> bool:
    """Whether all else in a line is metadata that no reader takes for something else, or refuses."""
    if value.keys() <= known:
        return True
    others = value.keys() - known
    return not others & _TELLING and all(
        (kind := type(value[key])) in _NAMING or (kind not in (dict, list) and key not in NAMES)
        for key in others
    )
