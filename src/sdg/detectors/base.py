"""What every detector has in common: pairs of image and prompt in, a Diagnosis of each out, in order."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from PIL import Image

from sdg.defects import Diagnosis, Status
from sdg.images import Pair, Source

_LOG = logging.getLogger("sdg.detectors")


class Detector(Protocol):
    """Anything that diagnoses pairs of image and prompt."""

    def diagnose(self, pairs: Sequence[Pair]) -> list[Diagnosis]:
        """One Diagnosis for each pair, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one pair: its diagnosis and, where that is `failed`, why, in one sentence."""

    diagnosis: Diagnosis
    error: str = ""


class StreamingDetector(ABC):
    """A detector that hands out each result as soon as it has it; what `load_detector` returns."""

    stored: ClassVar[bool] = False
    """Whether answers are looked up by path, for which all paths of a run have to be given at once."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str | int | float]:
        """Every setting that answers depend on, for a bulk run to refuse to continue with others."""

    @abstractmethod
    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        """Index and outcome of each wanted pair (of all by default), in whatever order they come.

        `pairs` is the whole run also when few of them are wanted, so that batches are what they would be
        in a full run. A pair that cannot be diagnosed gives a `failed` outcome, never an error.
        """

    def stop(self) -> bool:
        """Let every stream end soon by itself, with an outcome of each pair that is answered by then.

        False where a stream can only be broken off. May be called from a signal's handler.
        """
        return False

    def diagnose(self, pairs: Sequence[Pair]) -> list[Diagnosis]:
        """One Diagnosis for each (image, prompt), in their order.

        image: a path or a PIL image. One that cannot be read, or gets no answer, has status `failed`, and
        the reason goes to the log "sdg.detectors"; one bad pair never raises.
        Raises SdgError for what concerns every pair, such as memory too small for the batch.
        """
        found: list[Diagnosis | None] = [None] * len(pairs)
        for index, outcome in self.stream(pairs):
            found[index] = outcome.diagnosis
            if outcome.error:
                _LOG.warning("%s: %s", name_of(pairs[index][0], index), outcome.error)
        assert None not in found, "a detector streams an outcome for every pair"
        return [diagnosis for diagnosis in found if diagnosis is not None]


def failed(reason: str) -> Outcome:
    """The outcome of a pair that got no answer."""
    return Outcome(Diagnosis(status=Status.FAILED), reason)


def path_of(image: Source) -> str | None:
    """The path an image was given by or opened from; None for a picture that never was a file."""
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or None
    return os.fspath(image)


def name_of(image: Source, index: int) -> str:
    """What to call an image in a message."""
    return path_of(image) or f"image {index}"
