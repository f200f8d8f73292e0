"""SDG-Eval of two files of lines by several processes: each reads and scores the same lines of both.

For files whose lines pair up as they stand, as those that `sdg diagnose` makes of annotations. Whatever is
out of the ordinary is left to one process, which says what it is.
"""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.data.formats import Format, guess_format, read_span
from sdg.errors import SdgError
from sdg.evaluation.join import collector_paused, slim
from sdg.evaluation.result import Scores
from sdg.evaluation.scoring import Matching
from sdg.evaluation.sdg_eval import evaluate, scores_of
from sdg.io.jsonl import is_parquet, spans
from sdg.records import Path
from sdg.response.strict import BoxOrder

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
        (lines, cuts), (others, other_cuts) = (spans(path, processes) for path in (truth, predictions))
        if lines != others or lines < processes:
            return None
        found = _forked(files, list(zip(cuts, other_cuts, strict=True)))
    except (SdgError, OSError):
        return None
    parts = [part for part in found if part is not None]
    paths = [path for part in parts for path in part.paths]
    if len(parts) < processes or len(set(paths)) < len(paths):
        return None
    table = np.concatenate([part.table for part in parts])
    return scores_of(table, _added([part.status for part in parts]), matching, None, bootstrap, seed)


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


def _forked(files: _Files, cuts: list[tuple[range, range]]) -> list[_Part | None]:
    """The parts, the first of them read here."""
    context: Any = multiprocessing.get_context("fork")
    running = []
    for cut in cuts[1:]:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(theirs, files, cut), daemon=True)
        process.start()
        theirs.close()
        running.append((process, ours))
    found = [_read(files, cuts[0])]
    for process, ours in running:
        try:
            found.append(ours.recv())
        except EOFError:  # it was killed
            found.append(None)
        process.join()
    return found


def _send(pipe: Connection, files: _Files, cut: tuple[range, range]) -> None:
    pipe.send(_read(files, cut))


def _read(files: _Files, cut: tuple[range, range]) -> _Part | None:
    """One part; None where a line of one file has another path than that of the other, or a fault."""
    true, guess, paths = [], [], []
    try:
        with collector_paused():
            pairs = zip(
                read_span(files.truth, files.truth_format, cut[0]),
                read_span(files.predictions, "predictions", cut[1], files.box_order),
                strict=True,
            )
            for one, other in pairs:
                if one.filepath != other.filepath or one.diagnosis is None or other.diagnosis is None:
                    return None
                paths.append(one.filepath)
                true.append(slim(one.diagnosis))
                guess.append(slim(other.diagnosis))
            scored = evaluate(true, guess, matching=files.matching)
    except (SdgError, ValueError):
        return None
    return _Part(paths, scored.details.table[scored.details.evaluated], dict(scored.status))


def _added(statuses: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = {name: sum(one[name] for one in statuses) for name in statuses[0] if name != "repairs"}
    repairs = sum((Counter(one["repairs"]) for one in statuses), Counter[str]())
    return {**numbers, "repairs": dict(sorted(repairs.items()))}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
