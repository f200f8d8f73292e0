"""Score roll-outs while the next ones are drawn: base reward and detector, each in a thread of its own.

A chunk is scored as it was drawn, in order, so that results do not depend on timing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from PIL import Image

from sdg.defects import Diagnosis
from sdg.detectors.base import Detector
from sdg.errors import SdgError
from sdg.images import Pair
from sdg.scorers import Scorer, Scores


@dataclass(frozen=True, slots=True)
class Score:
    """What is known of one picture: its base reward and its defects, None where there is no information."""

    reward: float | None
    diagnosis: Diagnosis | None  # also None where no detector was asked


class PendingScores:
    """Scores of a chunk that is being worked on."""

    def __init__(self, count: int, rewards: Future[Scores], found: Future[list[Diagnosis]] | None) -> None:
        self.count, self.rewards, self.found = count, rewards, found

    def result(self) -> list[Score]:
        """Wait for the scores, one a picture; raises what the scorer or the detector raised.

        A diagnosis that is not informative (no response, or an unreadable one) becomes None.
        """
        rewards = self.rewards.result()
        found: Sequence[Diagnosis | None] = [None] * self.count
        if self.found is not None:
            found = [diagnosis if diagnosis.is_informative else None for diagnosis in self.found.result()]
        return [Score(*pair) for pair in zip(rewards, found, strict=True)]


class Scoring:
    """Two threads, one for the base reward and one for the detector, each taking chunks in order."""

    def __init__(self, reward: Scorer, detector: Detector | None) -> None:
        self.reward, self.detector = reward, detector
        self._rewards = ThreadPoolExecutor(1, thread_name_prefix="reward")
        self._found = ThreadPoolExecutor(1, thread_name_prefix="detector")

    def submit(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> PendingScores:
        """Begin to score a chunk, and return at once."""
        rewards = self._rewards.submit(self.reward.score, pictures, prompts)
        found = None
        if self.detector is not None:
            pairs: list[Pair] = list(zip(pictures, prompts, strict=True))
            found = self._found.submit(self.detector.diagnose, pairs)
        return PendingScores(len(pictures), rewards, found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._rewards, self._found):
            pool.shutdown(wait=True, cancel_futures=True)


def check_failures(scores: Sequence[Score], max_failed: float, *, detector: bool) -> None:
    """Raise SdgError when more than `max_failed` of all pictures lack a reward or, if asked, a diagnosis."""
    for what, missing in (
        ("base reward", sum(score.reward is None for score in scores)),
        ("detector", sum(score.diagnosis is None for score in scores) if detector else 0),
    ):
        if missing > max_failed * len(scores):
            raise SdgError(
                f"The {what} gave nothing usable for {missing} of {len(scores)} pictures, more than the "
                f"share of {max_failed:g} that reward.max_failed allows; see to its server, then --resume."
            )
