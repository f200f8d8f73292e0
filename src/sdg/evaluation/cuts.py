"""Where to cut two files of lines, so that each part of one has the same images as that of the other."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import BinaryIO, Final

import orjson

from sdg.io.files import open_binary
from sdg.io.jsonl import spans
from sdg.records import Path

WINDOW: Final = 1 << 22
"""Bytes before and after the same share of the other file in which a path is looked for."""


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
    first = max(0, other_near - WINDOW)
    other.seek(first)
    block = other.read(other_near + WINDOW - first)
    for written in {orjson.dumps(path), json.dumps(path).encode()}:  # as it is, and escaped
        at = block.find(written)
        while at >= 0:
            begin = block.rfind(b"\n", 0, at) + 1
            end = block.find(b"\n", at)
            if (begin or not first) and _path(block[begin : end if end >= 0 else None]) == path:
                return start, first + begin
            at = block.find(written, at + 1)
    return None


def _path(line: bytes) -> str | None:
    try:
        value = orjson.loads(line)
    except ValueError:
        return None
    path = value.get("filepath") if isinstance(value, dict) else None
    return path if isinstance(path, str) else None
