"""`replay:FILE.jsonl`: responses that are already there, read as if a detector had just given them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from sdg.defects import Diagnosis, Status
from sdg.detectors.base import Stream, StreamingDetector, failed, path_of
from sdg.images import Pair
from sdg.io import jsonl
from sdg.io.paths import PathIndex, claimed_twice, parts
from sdg.io.predictions import read_prediction

_FAILED = "The stored run got no answer for this image."
_Row = tuple[str, Diagnosis]
"""The caption of a line, "" where it is missing, and what came of it."""


class ReplayDetector(StreamingDetector):
    """Gives each image the response stored under its path; prompts tell apart two of the same image.

    file: JSON Lines with `filepath` (or `filename`), `caption` and what `sdg.io.predictions` reads:
    `response` and, as `sdg diagnose` writes them, `status` and `error`. require_think: whether a missing
    think block is a fault to report. An image is found by its path as stored, else by the end of its path,
    else by its bare name, and fails where that leaves a choice. Where less than the whole path that is
    stored agrees, the prompt has to: other pictures may have that name.
    Raises SdgError, naming the line, for a file that holds no responses.
    """

    stored = True

    def __init__(self, file: str | os.PathLike[str], *, require_think: bool = True) -> None:
        self._file = os.fspath(file)
        self._rows: defaultdict[str, list[_Row]] = defaultdict(list)
        for path, row in jsonl.read_with(file, partial(_row, require_think=require_think)):
            self._rows[path].append(row)
        self._index = PathIndex(self._rows)

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": "replay", "file": os.path.abspath(self._file)}  # noqa: PTH100 (keeps links)

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        paths = [path_of(image) for image, _ in pairs]
        found = {path: self._index.find(path) for path in paths if path is not None}
        unclear = claimed_twice((path, stored[0]) for path, stored in found.items() if len(stored) == 1)
        for index in range(len(pairs)) if wanted is None else sorted(wanted):
            path = paths[index]
            if path is None:
                yield (
                    index,
                    failed("A stored response is found by the image's path, and this image has none."),
                )
            elif not found[path]:
                yield index, failed(f"{self._file} holds no response for {path}.")
            elif len(found[path]) > 1:
                yield index, failed(f"{path} may be {' or '.join(found[path][:2])} of {self._file}.")
            elif found[path][0] in unclear and found[path][0] != path:
                yield index, failed(f"More than one image here may be {found[path][0]} of {self._file}.")
            else:
                yield index, self._diagnosis(path, found[path][0], pairs[index][1])

    def _diagnosis(self, path: str, stored: str, prompt: str) -> Diagnosis:
        rows = self._rows[stored]
        if len(rows) > 1:
            rows = [row for row in rows if row[0] == prompt]
            if len(rows) != 1:
                return failed(
                    f"{self._file} holds {'several responses' if rows else 'no response'} "
                    "for this image with this prompt."
                )
        caption, diagnosis = rows[0]
        whole = parts(stored)
        if caption.strip() not in ("", prompt.strip()) and parts(path)[-len(whole) :] != whole:
            return failed(f"{stored} of {self._file} is stored with another prompt than {path} has.")
        return diagnosis


def _row(value: Mapping[str, Any], require_think: bool) -> tuple[str, _Row]:
    record = read_prediction(value, require_think=require_think)
    diagnosis = record.diagnosis
    if diagnosis is None or diagnosis.status is Status.FAILED:
        diagnosis = failed((diagnosis and diagnosis.error) or _FAILED)
    return record.filepath, (record.prompt, diagnosis)
