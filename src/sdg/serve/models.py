"""The models behind a server: a detector and base rewards, asked for many callers at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sdg.defects import Diagnosis
from sdg.detectors.base import StreamingDetector, failed
from sdg.errors import SdgError, first_line, shortened
from sdg.images import Pair, rgb_picture
from sdg.io.asking import Askable
from sdg.scorers import Scorer, Scores
from sdg.scorers.weighted import ScaledScorer, WeightedSum
from sdg.serve.bounds import Refusal, SentImage, sent_image
from sdg.serve.lanes import BatchLane, Connected, Lane, ServerLane
from sdg.serve.reward_rows import Rewarded

R = TypeVar("R")
SCORED_AT_ONCE: Final = 16
"""Pictures that a scorer in memory gets at a time."""
_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """Counters of one server, as Prometheus reads them, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("sdg_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.items = Counter(
            "sdg_items", "Pictures, by the detector's status.", ["status"], registry=registry
        )
        self.waiting = Gauge("sdg_waiting_items", "Pictures worked on or waiting.", registry=registry)
        self.seconds = Histogram(
            "sdg_request_seconds", "From headers to answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.batches = Histogram(
            "sdg_batch_pictures", "Pictures of a batch.", ["model"], buckets=_SIZES, registry=registry
        )

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)


class Models:
    """A detector and scorers with a line of callers each, and a bound on all of them.

    most: pictures that are worked on or wait; one more is refused with 429. Raises SdgError for a detector
    that answers by path (`replay:`, `heatmap:`).
    """

    def __init__(
        self, detector: StreamingDetector, scorers: Sequence[Scorer], most: int, measures: Measures
    ) -> None:
        if detector.stored:
            raise SdgError("This detector looks answers up by the path of a picture, so it cannot be served.")
        self.profile = detector.profile
        self.has_reward = bool(scorers)
        self._most, self._out, self._measures = most, 0, measures
        self._last_wait = 1.0
        seen = measures.batches.labels
        self._detector: Lane[Diagnosis] = _lane(
            detector, partial(_streamed, detector), detector.batch_size, seen("detector").observe
        )
        scaled = [ScaledScorer(scorer, 1.0) for scorer in scorers]
        self._sum = WeightedSum([(one, 1.0) for one in scaled])
        self._scorers: list[Lane[float | None]] = [
            _lane(one, partial(_scored, one), SCORED_AT_ONCE, seen(f"scorer {number}").observe)
            for number, one in enumerate(scaled, start=1)
        ]

    @property
    def retry_after(self) -> int:
        """Seconds after which there may be room: what the last request took, to twice that.

        Drawn, so that all who are refused at once do not come back at once.
        """
        return min(60, max(1, round(self._last_wait * random.uniform(1, 2))))

    def require_room(self, items: int = 1) -> None:
        """Raises Refusal where so many more may not wait."""
        if self._out + items > self._most:
            raise Refusal(429, f"{self._out} pictures wait already", **{"Retry-After": str(self.retry_after)})

    async def ask(
        self, items: Sequence[dict[str, Any]], *, rewards: bool
    ) -> tuple[list[Diagnosis], list[Rewarded]]:
        """The diagnosis of each item and, if asked for, its scalar reward; raises Refusal where it is full.

        A picture that cannot be read costs itself alone. Cancelled, it leaves out what has not begun.
        """
        self.require_room(len(items))
        self._count(len(items))
        begun = asyncio.get_running_loop().time()
        lanes: list[Lane[Any]] = [self._detector, *(self._scorers if rewards else ())]
        futures: list[tuple[Lane[Any], Future[Any]]] = []
        try:
            pictures = await asyncio.to_thread(lambda: [_readable(item.pop("image")) for item in items])
            pairs = [(picture, item["prompt"]) for picture, item in zip(pictures, items, strict=True)]
            columns: list[list[Any]] = []
            for lane in lanes:
                column: list[Any] = []
                for picture, prompt in pairs:
                    if isinstance(picture, SentImage):
                        future = lane.submit((picture, prompt))
                        futures.append((lane, future))
                        column.append(asyncio.shield(asyncio.wrap_future(future)))
                    else:
                        column.append(_raising(picture))
                columns.append(column)
            results = [await asyncio.gather(*column, return_exceptions=True) for column in columns]
        except asyncio.CancelledError:
            for lane, future in reversed(futures):  # or each would leave its place to the next of these
                lane.give_up(future)
            raise
        finally:
            self._count(-len(items))
            self._last_wait = asyncio.get_running_loop().time() - begun
        diagnoses = [self._diagnosis(result) for result in results[0]]
        for diagnosis in diagnoses:
            self._measures.items.labels(diagnosis.status.value).inc()
        return diagnoses, self._rewarded(results[1:], len(items)) if rewards else []

    def close(self) -> None:
        """Let every lane end."""
        self._detector.close()
        for lane in self._scorers:
            lane.close()

    def _count(self, items: int) -> None:
        self._out += items
        self._measures.waiting.set(self._out)

    def _diagnosis(self, result: Diagnosis | BaseException) -> Diagnosis:
        if isinstance(result, BaseException):
            return failed(_reason(result))
        return result

    def _rewarded(self, columns: Sequence[Sequence[Any]], items: int) -> list[Rewarded]:
        parts: list[Scores] = [
            [None if isinstance(score, BaseException) else score for score in column] for column in columns
        ]
        found = []
        for place, total in enumerate(self._sum.summed(parts, items)):
            why = next(
                (column[place] for column in columns if isinstance(column[place], BaseException)), None
            )
            reason = _reason(why) if why is not None else "a scorer gave no score"
            found.append(Rewarded(total) if total is not None else Rewarded(None, reason))
        return found


def _lane(
    model: Askable, run: Callable[[list[Pair]], Sequence[R]], size: int, seen: Callable[[int], object]
) -> Lane[R]:
    """The lane of a model: to its server where it has one, in batches otherwise."""
    if model.connected() is not None:
        return ServerLane(cast("Connected[R]", model.connected), model.at_once)
    return BatchLane(run, size, seen)


def _streamed(detector: StreamingDetector, pairs: list[Pair]) -> list[Diagnosis]:
    found = dict(detector.stream(pairs))
    return [found[place] for place in range(len(pairs))]


def _scored(scorer: ScaledScorer, pairs: list[Pair]) -> Scores:
    return scorer.score([rgb_picture(image) for image, _ in pairs], [prompt for _, prompt in pairs])


def _readable(text: str) -> SentImage | SdgError:
    try:
        return sent_image(text)
    except SdgError as error:
        return error


async def _raising(error: BaseException) -> None:
    raise error


def _reason(error: BaseException) -> str:
    """Why there is no result, in one sentence."""
    if isinstance(error, SdgError):
        return shortened(str(error), 300)
    if isinstance(error, asyncio.CancelledError):
        return "The server is stopping."
    return shortened(f"{type(error).__name__}: {first_line(error)}", 300)
