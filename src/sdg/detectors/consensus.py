"""Self-consistency, `looks=K` in a detector's URI: of K sampled answers, what enough of them agree on.

A look is one sampled answer. One greedy answer does not say how sure a model is; the share of K sampled
answers that find a defect does. A picture that all K find clean is clean more often than one that one does.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from sdg.defects import UNKNOWN_IMPORTANCE, Defect, Diagnosis, Status
from sdg.detectors.base import Stream, StreamingDetector, failed
from sdg.geometry import iou
from sdg.images import Pair
from sdg.io.asking import Ask, asked_over
from sdg.response import render_response

AGREE: Final = 0.375
"""Share of the looks (sampled answers) that must find a defect, by default; fewer are taken for chance."""
SAME: Final = 0.1
"""Mean IoU from which boxes of one type in different looks are one defect: the lenient one of SDG-Eval."""
_NEVER: Final = 1e6  # a distance: of boxes that are not the same defect, whatever their IoU


class ConsensusDetector(StreamingDetector):
    """Asks a detector that samples `looks` times about each pair and merges the answers, see `merged`.

    agree: share of the looks, 0 to 1, that must find a defect. A pair of which half the looks or more have no
    whole answer has failed, and so has one that the others find clean, where those without a whole answer
    are `agree` of all or more. Raises ValueError for fewer than two looks.
    """

    def __init__(self, detector: StreamingDetector, looks: int, agree: float = AGREE) -> None:
        if looks < 2:
            raise ValueError(f"A consensus takes two looks or more, not {looks}.")
        self._detector, self._looks, self._agree = detector, looks, agree
        self.batch_size, self.profile = max(1, detector.batch_size // looks), detector.profile
        self.at_once = None if detector.at_once is None else max(1, detector.at_once // looks)

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {**self._detector.identity, "looks": self._looks, "agree": self._agree}

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        looks = self._looks
        asked = [pair for pair in pairs for _ in range(looks)]
        each = None if wanted is None else {looks * one + look for one in wanted for look in range(looks)}
        come: dict[int, dict[int, Diagnosis]] = defaultdict(dict)
        for place, diagnosis in self._detector.stream(asked, each):
            index, look = divmod(place, looks)
            come[index][look] = diagnosis
            if len(come[index]) == looks:
                diagnoses = come.pop(index)
                # In the order asked, not the order come: the same looks give the same diagnosis.
                yield index, self._diagnosis([diagnoses[number] for number in range(looks)])

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Pairs whose looks share batches, directly or by others between them."""
        group: dict[int, list[int]] = {}
        for batch in self._detector.batches([pair for pair in pairs for _ in range(self._looks)]):
            joined: list[int] = []
            for index in dict.fromkeys(place // self._looks for place in batch):
                if (others := group.get(index, [index])) is not joined:
                    joined += others
                    group |= dict.fromkeys(others, joined)
        return list({id(members): members for members in group.values()}.values())

    def stop(self) -> bool:
        return self._detector.stop()

    def connected(self) -> AbstractAsyncContextManager[Ask[Diagnosis]] | None:
        opened = self._detector.connected()
        return None if opened is None else asked_over(opened, self._look)

    async def _look(self, ask: Ask[Diagnosis], pair: Pair, index: int) -> Diagnosis:
        places = range(index * self._looks, (index + 1) * self._looks)
        return self._diagnosis(await asyncio.gather(*(ask(pair, place) for place in places)))

    def _diagnosis(self, diagnoses: Sequence[Diagnosis]) -> Diagnosis:
        read = [diagnosis for diagnosis in diagnoses if diagnosis.is_whole]
        if 2 * len(read) > len(diagnoses):
            found = merged(read, self._agree)
            # Looks without a whole answer, if they are enough to agree on a defect, leave clean unproven.
            if found.defects or not _enough(len(diagnoses) - len(read), len(diagnoses), self._agree):
                return found
        why = next((diagnosis.error for diagnosis in diagnoses if diagnosis.error), "")
        few = f"Only {len(read)} of {len(diagnoses)} looks gave a whole answer."
        return failed(f"{few} {why}".rstrip())


def merged(looks: Sequence[Diagnosis], agree: float = AGREE) -> Diagnosis:
    """One diagnosis of one picture out of several whole ones, each with the same weight.

    Boxes of one type in different looks whose mean IoU is at least SAME are one defect (average linkage, so
    the order of looks and of boxes does not matter). Its box is the median of theirs, its reason that of
    the box most like the others, its importance the mean over all looks, where one without it counts 0. So
    the importances sum to what a look finds on average, less what fewer than `agree` of them find, which is
    left out. Most important first; the reasoning is that of the look most like the result.
    Raises ValueError without looks.
    """
    if not looks:
        raise ValueError("A consensus needs at least one diagnosis.")
    found = [(number, defect) for number, look in enumerate(looks) for defect in look.defects]
    support = np.zeros(len(looks))  # a look's boxes in the result, less its others
    defects = []
    for members in _clusters(found):
        kept = _enough(len(members), len(looks), agree)
        for member in members:
            support[found[member][0]] += 1 if kept else -1
        if kept:
            defects.append(_joined([found[member][1] for member in members], len(looks)))
    mended = tuple(dict.fromkeys(name for look in looks for name in look.repairs))
    found_by_all = Diagnosis(
        defects=tuple(sorted(defects, key=lambda defect: -(defect.importance or 0))),
        reasoning=looks[int(np.argmax(support))].reasoning,
        status=Status.REPAIRED if mended else Status.OK,
        repairs=mended,
    )
    # What files of predictions hold is the text of an answer.
    return replace(found_by_all, raw=render_response(found_by_all))


def _enough(some: int, looks: int, agree: float) -> bool:
    """Whether so many of the looks are the share `agree` of them, which 7 of 25 are of 0.28."""
    return some >= agree * looks - 1e-9


def _clusters(found: Sequence[tuple[int, Defect]]) -> list[list[int]]:
    """Places of the boxes that are one defect: of one type, no two of the same look."""
    if len(found) < 2:
        return [[place] for place in range(len(found))]
    distance = 1 - iou([defect.box for _, defect in found], [defect.box for _, defect in found])
    look = np.array([number for number, _ in found])
    kind = np.array([defect.type.value for _, defect in found])
    distance[(look[:, None] == look) | (kind[:, None] != kind)] = _NEVER
    np.fill_diagonal(distance, 0)
    labels = fcluster(linkage(squareform(distance), "average"), 1 - SAME, "distance")
    clusters: dict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        clusters[label].append(place)
    return list(clusters.values())


def _joined(members: Sequence[Defect], looks: int) -> Defect:
    boxes = np.array([defect.box for defect in members])
    # Floor, not round: half-even rounding could make two medians that differ by 1 the same.
    box: NDArray[np.int64] = np.floor(np.median(boxes, axis=0)).astype(np.int64)
    typical = members[int(np.argmax(iou(boxes, boxes).sum(1)))]
    known = [defect.importance for defect in members]
    importance = None
    if any(value is not None for value in known):
        total = sum(UNKNOWN_IMPORTANCE if value is None else value for value in known)
        importance = max(1, round(total / looks))
    x0, y0, x1, y1 = (int(value) for value in box)
    return Defect((x0, y0, x1, y1), typical.type, typical.reason, importance, typical.subtype)
