"""SDG-Eval of two files of lines by several processes: each reads and scores the same lines of both.

For files whose lines pair up as they stand, as those that `sdg diagnose` makes of annotations. Whatever is
out of the ordinary is left to one process, which says what it is.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdg.data.formats import Format, guess_format, line_reader
from sdg.defects import Status
from sdg.errors import SdgError
from sdg.evaluation.columns import TYPES, Gathering
from sdg.evaluation.lines import cuts, plain_annotation, plain_prediction
from sdg.evaluation.metrics import Count
from sdg.evaluation.resampling import bootstrap_sums
from sdg.evaluation.result import Scores
from sdg.evaluation.scoring import Matching, count_table, pair
from sdg.evaluation.sdg_eval import scores_of
from sdg.io.jsonl import is_parquet, read_lines
from sdg.records import Path
from sdg.response.strict import BoxOrder

S = TypeVar("S")
T = TypeVar("T")

SMALLEST: Final = 1 << 24
"""Bytes of both files together below which one process is as quick."""
MOST: Final = 8
"""Processes at most: the numbers that follow the reading are one's work."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What came of some lines of both files: their paths, and the counts of the images evaluated."""

    paths: list[str]
    table: NDArray[np.float64]
    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Files:
    truth: Path
    truth_format: Format
    predictions: Path
    box_order: BoxOrder
    matching: Matching


def evaluate_in_parts(
    truth: Path,
    predictions: Path,
    *,
    box_order: BoxOrder = "xyxy",
    matching: Matching = "hungarian",
    bootstrap: int = 0,
    seed: int = 0,
    processes: int | None = None,
) -> Scores | None:
    """The scores that `evaluate` gives two files without an embedder; None where one process has to.

    That is for a fault, for lines that do not pair up in order, for other formats than JSON Lines, below
    SMALLEST bytes, and where there is but one core or no `fork`. processes: by default one a core, up to
    MOST.
    """
    processes = processes or min(MOST, _cores())
    if processes < 2 or not hasattr(os, "fork") or sys.platform == "darwin" or threading.active_count() > 1:
        return None
    try:
        files = _files(truth, predictions, box_order, matching)
        if files is None:
            return None
        places = cuts(truth, predictions, processes)
        if places is None:
            return None
        found = _forked(partial(_read, files), places)
    except (SdgError, OSError):
        return None
    parts = [part for part in found if part is not None]
    paths = [path for part in parts for path in part.paths]
    if len(parts) < processes or len(set(paths)) < len(paths):
        return None
    table = np.concatenate([part.table for part in parts])
    drawn = _resampled(table, bootstrap, seed, processes)
    if drawn is None:
        return None
    return scores_of(table, _added([part.status for part in parts]), matching, None, bootstrap, seed, drawn)


def _files(truth: Path, predictions: Path, box_order: BoxOrder, matching: Matching) -> _Files | None:
    places = [pathlib.Path(path) for path in (truth, predictions)]
    if any(is_parquet(path) or path.suffix.lower() == ".json" or not path.is_file() for path in places):
        return None
    if sum(path.stat().st_size for path in places) < SMALLEST:
        return None
    format = guess_format(truth)
    if format not in ("sdg", "sdg30k") or guess_format(predictions) != "predictions":
        return None
    return _Files(truth, format, predictions, box_order, matching)


def _forked(function: Callable[[S], T], arguments: Sequence[S]) -> list[T | None]:
    """What a function makes of each, every one in a process, the first in this; None where one came to grief.

    By `os.fork`: `multiprocessing` takes longer to load than reading a megabyte of lines.
    """
    running = []
    for argument in arguments[1:]:
        reader, writer = os.pipe()
        process = os.fork()
        if not process:
            _answer(writer, function, argument)
        os.close(writer)
        running.append((process, reader))
    found: list[T | None] = [function(arguments[0])]
    for process, reader in running:
        with os.fdopen(reader, "rb") as pipe:
            content = pipe.read()
        os.waitpid(process, 0)
        try:
            found.append(pickle.loads(content))
        except (EOFError, pickle.UnpicklingError):
            found.append(None)
    return found


def _answer(writer: int, function: Callable[[S], T], argument: S) -> NoReturn:
    """Write the result and end, without anything that the parent does at its end."""
    try:
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(function(argument), pipe, pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)


def _read(files: _Files, cut: tuple[range, range]) -> _Part | None:
    """One part; None where a line of one file has another path than that of the other, or a fault."""
    paths: list[str] = []
    true, found = Gathering(), Gathering()
    statuses, repairs = Counter[Status](), Counter[str]()
    unknown = 0
    read_truth, read_answer = line_reader(files.truth_format), line_reader("predictions", files.box_order)
    try:
        lines = (
            read_lines(path, span) for path, span in zip((files.truth, files.predictions), cut, strict=True)
        )
        for (_, line), (_, other) in zip(*lines, strict=True):
            path = _add_plain(line, other, true, found) if files.box_order == "xyxy" else None
            if path is not None:
                paths.append(path)
                statuses[Status.OK] += 1
                continue
            one, answer = read_truth(line), read_answer(other)
            if one.filepath != answer.filepath or one.diagnosis is None or answer.diagnosis is None:
                return None
            paths.append(one.filepath)
            statuses[answer.diagnosis.status] += 1
            repairs.update(answer.diagnosis.repairs)
            if not one.diagnosis.is_informative:
                unknown += 1
            elif answer.diagnosis.status is not Status.FAILED:
                true.add(one.diagnosis.defects)
                found.add(answer.diagnosis.defects)
    except (SdgError, ValueError):
        return None
    truth, predicted = true.columns(), found.columns()
    table = count_table(truth, predicted, pair(truth, predicted, files.matching, None), len(true))
    status = {
        "images": len(paths),
        "evaluated": len(true),
        **{str(status): statuses[status] for status in Status},
        "unknown_truth": unknown,
        "repairs": dict(repairs),
    }
    return _Part(paths, table, status)


def _add_plain(line: bytes, other: bytes, true: Gathering, found: Gathering) -> str | None:
    """Go on with an image that both files tell plainly, and give its path; else None, and nothing is done."""
    one, answer = plain_annotation(line), plain_prediction(other)
    if one is None or answer is None or one[0] != answer[0] or not true.add_plain(one[1]):
        return None
    if not found.add_plain(answer[1]):
        true.drop()
        return None
    return one[0]


def _resampled(
    table: NDArray[np.float64], resamples: int, seed: int, processes: int
) -> NDArray[np.float64] | None:
    """The sums of bootstrap resamples, (resamples, len(TYPES) * len(Count)), made by all processes."""
    if not len(table):
        return np.zeros((resamples, len(TYPES) * len(Count)))
    flat = table.reshape(len(table), -1)
    # Whoever sums later resamples draws the earlier ones too, which takes about a third of the time.
    shares = np.cumsum([0, *(0.68**at for at in range(processes))])
    cuts = np.round(shares / shares[-1] * resamples).astype(int).tolist()
    rows = [range(*cut) for cut in pairwise(cuts)]
    parts = _forked(lambda of: bootstrap_sums(flat, resamples, seed, of), rows)
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == processes else None


def _added(statuses: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = {name: sum(one[name] for one in statuses) for name in statuses[0] if name != "repairs"}
    repairs = sum((Counter(one["repairs"]) for one in statuses), Counter[str]())
    return {**numbers, "repairs": dict(sorted(repairs.items()))}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
