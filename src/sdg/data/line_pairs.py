"""Annotations and predictions read side by side, the same lines of both files, by several processes.

For files whose lines pair up as they stand, as those that `sdg diagnose` makes of annotations. The other
processes begin at once and need no numpy, so this one can load it meanwhile.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sdg.data.formats import Format, guess_format, line_reader
from sdg.data.gathering import Gathering, Packed
from sdg.data.lines import cuts, plain_annotation, plain_prediction
from sdg.defects import Status
from sdg.errors import SdgError
from sdg.io.forks import Crew, can_fork, cores
from sdg.io.jsonl import is_parquet, read_lines
from sdg.records import Path
from sdg.response.strict import BoxOrder

SMALLEST: Final = 1 << 24
"""Bytes of both files together below which one process is as quick."""
MOST: Final = 8
"""Processes at most: the numbers that follow the reading are one's work."""
_SHARES: Final = 20  # parts a process: so many more, so much less is waited for the last one


@dataclass(frozen=True, slots=True)
class Lines:
    """What some lines of both files say: paths of the images, and the defects of those to be evaluated."""

    paths: list[str]
    truth: Packed
    predicted: Packed
    statuses: Mapping[Status, int]
    repairs: Mapping[str, int]
    unknown: int  # images whose truth is not known


class Reading:
    """Two files that are being read, see `begin_reading`."""

    def __init__(
        self,
        truth: pathlib.Path,
        predictions: pathlib.Path,
        box_order: BoxOrder,
        processes: int,
        format: Format,
        places: list[tuple[range, range]],
    ) -> None:
        self.truth, self.predictions, self.box_order = truth, predictions, box_order
        self.processes = processes
        self._format, self._places = format, places
        self._crew = Crew(self._read_parts, len(places), processes)

    def lines(self) -> list[Lines] | None:
        """Every part, in the order of the files; None for a fault, and for lines that do not pair up."""
        found: dict[int, Lines] = {}
        for parts in self._crew.results():
            found |= parts or {}
        return [found[part] for part in range(len(self._places))] if len(found) == len(self._places) else None

    def _read_parts(self, tasks: Iterator[int]) -> dict[int, Lines]:
        found = {}
        for task in tasks:
            lines = self._read(self._places[task])
            if lines is None:
                for _ in tasks:  # what is left is of no use any more
                    pass
                return {}
            found[task] = lines
        return found

    def _read(self, place: tuple[range, range]) -> Lines | None:
        """One part; None where a line of one file has another path than that of the other, or a fault."""
        paths: list[str] = []
        true, found = Gathering(), Gathering()
        statuses, repairs = Counter[Status](), Counter[str]()
        unknown = 0
        read_truth, read_answer = line_reader(self._format), line_reader("predictions", self.box_order)
        files = self.truth, self.predictions
        try:
            lines = (read_lines(path, span) for path, span in zip(files, place, strict=True))
            for (_, line), (_, other) in zip(*lines, strict=True):
                path = _add_plain(line, other, true, found) if self.box_order == "xyxy" else None
                if path is not None:
                    paths.append(path)
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
        except (SdgError, OSError, ValueError):
            return None
        statuses[Status.OK] += len(paths) - statuses.total()  # those that were plain
        return Lines(paths, true.packed(), found.packed(), statuses, repairs, unknown)


def begin_reading(
    truth: Path,
    predictions: Path,
    *,
    box_order: BoxOrder = "xyxy",
    processes: int | None = None,
) -> Reading | None:
    """Begin to read two files in several processes; None where one process has to.

    That is for files that cannot be read, of unequal lengths or of other formats than JSON Lines, below
    SMALLEST bytes, and where there is but one core or no `fork`. processes: by default one a core, up to
    MOST.
    """
    processes = processes or min(MOST, cores())
    if processes < 2 or not can_fork():
        return None
    truth, predictions = pathlib.Path(truth), pathlib.Path(predictions)
    try:
        format = _format(truth, predictions)
        places = None if format is None else cuts(truth, predictions, processes * _SHARES)
        if format is None or places is None:
            return None
        return Reading(truth, predictions, box_order, processes, format, places)
    except (SdgError, OSError):
        return None


def _format(*files: pathlib.Path) -> Format | None:
    """That of the truth, where both files may be read so."""
    if any(is_parquet(file) or file.suffix.lower() == ".json" or not file.is_file() for file in files):
        return None
    if sum(file.stat().st_size for file in files) < SMALLEST:
        return None
    truth, predictions = files
    format = guess_format(truth)
    return format if format in ("sdg", "sdg30k") and guess_format(predictions) == "predictions" else None


def _add_plain(line: bytes, other: bytes, true: Gathering, found: Gathering) -> str | None:
    """Go on with an image that both files tell plainly, and give its path; else None, and nothing is done."""
    one, answer = plain_annotation(line), plain_prediction(other)
    if one is None or answer is None or one[0] != answer[0] or not true.add_plain(one[1]):
        return None
    if not found.add_plain(answer[1]):
        true.drop()
        return None
    return one[0]
