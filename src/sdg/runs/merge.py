"""The shards of one run as one file of predictions, once it is sure that they are one run and whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdg.errors import SdgError, path_end, quoted
from sdg.io import jsonl
from sdg.io.predictions import has_answer
from sdg.runs.begin import read_settings, refuse_changes
from sdg.runs.journal import Key, Row, manifest_of, partial_of

_NAME: Final = re.compile(r"part-(\d+)-of-(\d+)\.[a-z]+")


@dataclass(frozen=True, slots=True)
class Merged:
    """How many lines were written, and how many of them got no answer, as readers of predictions see it.

    unknown: parts without their run's settings beside them, of which nobody can say that they are of one run.
    """

    lines: int
    failed: int
    unknown: int


def merge(parts: Sequence[Path], out: Path, expected: Iterable[Key] | None = None) -> Merged:
    """Write the lines of all parts, in their order, to `out`.

    expected: path and prompt of every image that the run is about. Raises SdgError where a part of a numbered
    set is missing or there twice, where one is unfinished or was made with other settings than the first,
    where an image is in two of them, and where images and `expected` differ; nothing is written then.
    """
    for part in parts:
        if not part.is_file():
            raise SdgError(f"{path_end(str(part))} is no file; give the parts that `sdg diagnose` wrote.")
    _require_all(parts)
    unknown = _require_one_run(parts)
    failed = 0
    seen: set[Key] = set()

    def rows() -> Iterator[Row]:
        nonlocal failed
        for part in parts:
            for row in jsonl.read_objects(part):
                key = _key(part, row)
                if key in seen:
                    raise SdgError(f"{quoted(key[0])} is twice in these parts, in {part} again.")
                seen.add(key)
                failed += not has_answer(row)
                yield row
        if expected is not None:
            _compare(seen, set(expected))

    if out.exists():
        raise SdgError(f"{out} exists already; name another output.")
    return Merged(jsonl.write_objects(out, rows()), failed, unknown)


def _require_all(parts: Sequence[Path]) -> None:
    """Numbered parts are one set and all there."""
    found = [(part, match) for part in parts if (match := _NAME.fullmatch(part.name))]
    if not found:
        return
    counts = {int(match[2]) for _, match in found}
    if settings := [part for part in parts if part.name.endswith(".run.json")]:
        raise SdgError(f"{settings[0]} holds settings and is no part; leave such files out, as part-*.jsonl.")
    if len(counts) > 1 or len(found) < len(parts):
        raise SdgError(f"{parts[0]} and the others are not parts of one set; give those of one run.")
    numbers = sorted(int(match[1]) for _, match in found)
    if lacking := sorted(set(range(1, max(counts) + 1)) - set(numbers)):
        raise SdgError(
            f"Of {max(counts)} parts {', '.join(map(str, lacking[:5]))} is missing; run that shard."
        )
    if len(set(numbers)) < len(numbers):
        raise SdgError("A part is given twice; give each once.")


def _require_one_run(parts: Sequence[Path]) -> int:
    """How many parts have no settings to compare; raises SdgError where those of two differ."""
    unknown = 0
    first: dict[str, Any] | None = None
    for part in parts:
        if partial_of(part).exists():
            raise SdgError(f"{part} is unfinished; go on with it by --resume.")
        if not manifest_of(part).exists():
            unknown += 1
            continue
        settings = {"detector": read_settings(part, manifest_of(part)).get("detector")}
        if first is not None:
            refuse_changes(part, settings, first)
        first = first or settings
    return unknown


def _key(part: Path, row: Row) -> Key:
    path, prompt = row.get("filepath"), row.get("caption")
    if not isinstance(path, str) or not isinstance(prompt, str) or "response" not in row:
        raise SdgError(f"{part} holds no predictions of `sdg diagnose`.")
    return path, prompt


def _compare(seen: set[Key], expected: set[Key]) -> None:
    for keys, what in ((expected - seen, "no line"), (seen - expected, "a line, but is no input")):
        if keys:
            more = f" (and {len(keys) - 1:,} more)" if len(keys) > 1 else ""
            raise SdgError(
                f"{quoted(min(keys)[0])}{more} has {what}; give all parts of one run and its inputs."
            )
