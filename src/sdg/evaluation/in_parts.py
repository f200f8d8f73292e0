"""SDG-Eval of two files of lines by several processes, see `sdg.data.line_pairs`.

Whatever is out of the ordinary is left to one process, which says what it is.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.ma  # numpy's quantile loads it; here there is time
import numpy.random
from numpy.typing import NDArray

from sdg.data.line_pairs import Lines, Reading
from sdg.defects import Status
from sdg.evaluation.columns import TYPES, unpacked
from sdg.evaluation.metrics import Count
from sdg.evaluation.resampling import Drawn, bootstrap_sums, chunks, draw
from sdg.evaluation.result import Scores
from sdg.evaluation.scoring import Matching, count_table, pair
from sdg.evaluation.sdg_eval import scores_of
from sdg.io.forks import Baton, Crew


def evaluate_in_parts(
    reading: Reading, *, matching: Matching = "hungarian", bootstrap: int = 0, seed: int = 0
) -> Scores | None:
    """The scores that `evaluate` gives two files without an embedder; None where one process has to.

    That is for a fault, for lines that do not pair up in order, and where a process was killed.
    """
    parts = reading.lines()
    if parts is None:
        return None
    paths = [path for part in parts for path in part.paths]
    if len(set(paths)) < len(paths):
        return None
    try:
        table = _scored(parts, matching, reading.processes)
        drawn = None if table is None else _resampled(table, bootstrap, seed, reading.processes)
    except OSError:  # no memory to share, no pipe
        return None
    if table is None or drawn is None:
        return None
    return scores_of(table, _status(parts, len(table)), matching, None, bootstrap, seed, drawn)


def _scored(parts: Sequence[Lines], matching: Matching, processes: int) -> NDArray[np.float64] | None:
    """The table of counts of all images evaluated, see `count_table`, each process scoring some parts."""
    ends = np.cumsum([0, *(len(part.truth.ends) for part in parts)]).tolist()
    table = _shared((ends[-1], len(TYPES), len(Count)))
    cuts = [len(parts) * share // processes for share in range(processes + 1)]

    def work(tasks: Iterator[int]) -> bool:
        for task in tasks:
            first, last = cuts[task : task + 2]
            truth = unpacked([part.truth for part in parts[first:last]])
            predicted = unpacked([part.predicted for part in parts[first:last]])
            rows = slice(ends[first], ends[last])
            pairs = pair(truth, predicted, matching, None)
            table[rows] = count_table(truth, predicted, pairs, ends[last] - ends[first])
        return True

    return table if all(Crew(work, processes, processes).results()) else None


def _shared(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Zeros that this process and those it makes from now on have in common."""
    size = math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(1, 8 * size)), np.float64, size).reshape(shape)


def _resampled(
    table: NDArray[np.float64], resamples: int, seed: int, processes: int
) -> NDArray[np.float64] | None:
    """The sums of bootstrap resamples, (resamples, len(TYPES) * len(Count)), made by all processes."""
    if not len(table):
        return np.zeros((resamples, len(TYPES) * len(Count)))
    flat = table.reshape(len(table), -1)
    sums = _shared((resamples, flat.shape[1]))
    drawn = _Draws(resamples, len(table), seed)

    def work(_: Iterator[int]) -> bool:
        bootstrap_sums(flat, resamples, seed, drawn, sums)
        return True

    with closing(drawn):
        return sums if all(Crew(work, 0, processes).results()) else None


class _Draws:
    """The resamples of all processes: whoever is free draws the next ones, on from where the last one left.

    The generator's state goes from hand to hand, so that each number is drawn just once.
    """

    def __init__(self, resamples: int, images: int, seed: int) -> None:
        self._chunks, self._images = chunks(resamples, images), images
        self._rng = np.random.default_rng(seed)
        self._baton = Baton(self._to_bytes(0))

    def __iter__(self) -> Iterator[Drawn]:
        while True:
            with self._baton.held() as content:
                at = self._from_bytes(content[:])
                if at == len(self._chunks):
                    return
                part = self._chunks[at]
                drawn = draw(self._rng, part, self._images)
                content[:] = self._to_bytes(at + 1)
            yield part, drawn

    def _to_bytes(self, following: int) -> bytes:
        state = self._rng.bit_generator.state
        numbers = following, state["state"]["state"], state["has_uint32"], state["uinteger"]
        return b"".join(number.to_bytes(16, "little") for number in numbers)

    def _from_bytes(self, content: bytes) -> int:
        numbers = (int.from_bytes(content[at : at + 16], "little") for at in range(0, 64, 16))
        following, state, has_uint32, uinteger = numbers
        generator = self._rng.bit_generator
        here = {**generator.state["state"], "state": state}
        generator.state = {**generator.state, "state": here, "has_uint32": has_uint32, "uinteger": uinteger}
        return following

    def close(self) -> None:
        """Give back what it took."""
        self._baton.close()


def _status(parts: Sequence[Lines], evaluated: int) -> dict[str, Any]:
    statuses = sum((Counter(part.statuses) for part in parts), Counter[Status]())
    repairs = sum((Counter(part.repairs) for part in parts), Counter[str]())
    return {
        "images": sum(len(part.paths) for part in parts),
        "evaluated": evaluated,
        **{str(status): statuses[status] for status in Status},
        "unknown_truth": sum(part.unknown for part in parts),
        "repairs": dict(sorted(repairs.items())),
    }
