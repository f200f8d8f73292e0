"""`union:ONE|OTHER`: what several detectors find, each defect once; such as a VLM and `ocr`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

from sdg.defects import Diagnosis, Status
from sdg.detectors.base import Stream, StreamingDetector, failed
from sdg.images import Pair
from sdg.io.asking import Ask, asked_over
from sdg.matching import same_defects
from sdg.response import render_response

SAME: Final = 0.1
"""IoU from which boxes of one type, matched to each other, are one defect: the lenient one of SDG-Eval."""


class UnionDetector(StreamingDetector):
    """Asks every detector about each pair and merges what they find, see `united`.

    A pair that one of them cannot diagnose has failed: what it would have found is not known. Raises
    ValueError for fewer than two.
    """

    def __init__(self, detectors: Sequence[StreamingDetector]) -> None:
        if len(detectors) < 2:
            raise ValueError(f"A union takes two detectors or more, not {len(detectors)}.")
        self._detectors = list(detectors)
        self.stored = any(detector.stored for detector in detectors)
        self.batch_size = max(detector.batch_size for detector in detectors)
        self.profile = next((one.profile for one in detectors if one.profile is not None), None)
        allowed = [detector.at_once for detector in detectors if detector.at_once is not None]
        self.at_once = min(allowed, default=None)

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        parts = [
            {f"{number}.{name}": value for name, value in detector.identity.items()}
            for number, detector in enumerate(self._detectors, start=1)
        ]
        return {"detector": "union"} | {name: value for part in parts for name, value in part.items()}

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        """In turns, each detector a pair further: one that waits for a server works meanwhile."""
        streams = [self._stream(detector, pairs, wanted) for detector in self._detectors]
        come: list[dict[int, Diagnosis]] = [{} for _ in streams]
        ended = [False] * len(streams)
        given = [0] * len(streams)
        while not all(ended):
            at = min((n for n, done in enumerate(ended) if not done), key=given.__getitem__)
            try:
                index, diagnosis = next(streams[at])
            except StopIteration:
                ended[at] = True
                continue
            given[at] += 1
            come[at][index] = diagnosis
            if all(index in of for of in come):
                yield index, self._diagnosis([of.pop(index) for of in come])
            elif any(done and index not in of for done, of in zip(ended, come, strict=True)):
                del come[at][index]  # another was stopped before it; nothing will come of this pair

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Those of the detector whose batches are the largest: those of the others mostly lie within them."""
        return min((detector.batches(pairs) for detector in self._detectors), key=len)

    def stop(self) -> bool:
        stopping = [detector.stop() for detector in self._detectors]  # all are told, whatever one says
        return all(stopping)

    def connected(self) -> AbstractAsyncContextManager[Ask[Diagnosis]] | None:
        """Connections to all of them; None where one is no server."""
        opened = [detector.connected() for detector in self._detectors]
        every = [one for one in opened if one is not None]
        return asked_over(_all_of(every), self._ask) if len(every) == len(opened) else None

    async def _ask(self, asks: Sequence[Ask[Diagnosis]], pair: Pair, index: int) -> Diagnosis:
        return self._diagnosis(await asyncio.gather(*(ask(pair, index) for ask in asks)))

    def _stream(
        self, detector: StreamingDetector, pairs: Sequence[Pair], wanted: Collection[int] | None
    ) -> Stream:
        if wanted is None or detector.stored or not self.stored:
            yield from detector.stream(pairs, wanted)
            return
        places = sorted(wanted)  # the others are there for the stored answers, and would go into its batches
        for place, diagnosis in detector.stream([pairs[place] for place in places]):
            yield places[place], diagnosis

    def _diagnosis(self, diagnoses: Sequence[Diagnosis]) -> Diagnosis:
        for diagnosis, detector in zip(diagnoses, self._detectors, strict=True):
            if not diagnosis.is_informative:
                name = detector.identity.get("detector", "one detector")
                return failed(f"{name}: {diagnosis.error or 'its answer cannot be read.'}")
        return united(diagnoses)


@asynccontextmanager
async def _all_of(
    opened: Sequence[AbstractAsyncContextManager[Ask[Diagnosis]]],
) -> AsyncIterator[list[Ask[Diagnosis]]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(one) for one in opened]


def united(diagnoses: Sequence[Diagnosis]) -> Diagnosis:
    """The defects of all diagnoses of one picture, each once.

    Each diagnosis is matched to what the earlier ones found (one Hungarian matching a type, by IoU); a pair
    of IoU SAME or more is one defect, told in the words of the earlier, with the importance of the higher.
    The status is the worst of all, `truncated` also where one has lost an item, which the rendered response
    does not show. The reasoning is the first that is not empty. Raises ValueError without any.
    """
    if not diagnoses:
        raise ValueError("A union needs at least one diagnosis.")
    defects = list(diagnoses[0].defects)
    for diagnosis in diagnoses[1:]:
        others = diagnosis.defects
        same = same_defects(defects, others, SAME)
        for row, column in same:
            kept, other = defects[row], others[column]
            known = [value for value in (kept.importance, other.importance) if value is not None]
            defects[row] = replace(
                kept,
                reason=kept.reason or other.reason,
                importance=max(known, default=None),
                subtype=kept.subtype or other.subtype,
            )
        taken = {column for _, column in same}
        defects += [other for column, other in enumerate(others) if column not in taken]
    statuses = [diagnosis.status for diagnosis in diagnoses]
    if not all(diagnosis.is_whole for diagnosis in diagnoses):
        statuses.append(Status.TRUNCATED)
    found = Diagnosis(
        defects=tuple(defects),
        reasoning=next((d.reasoning for d in diagnoses if d.reasoning), ""),
        status=max(statuses, key=list(Status).index),
        repairs=tuple(dict.fromkeys(name for diagnosis in diagnoses for name in diagnosis.repairs)),
    )
    return replace(found, raw=render_response(found)) if found.is_informative else found
