"""What a detector is: pairs of image and prompt in, one Diagnosis for each out, in the same order."""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from PIL import Image

from sdg.defects import Diagnosis, Status
from sdg.errors import SdgError
from sdg.images import as_rgb, load_image

Source = str | os.PathLike[str] | Image.Image
"""An image: its file, or a picture in memory."""
Pair = tuple[Source, str]
"""An image and the prompt it was generated from."""

_LOG = logging.getLogger("sdg.detectors")
_LOADING: Final = threading.Lock()


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
    """Whether answers are found by their images' paths, which is only certain beside all paths of a run."""

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


def picture(image: Source) -> Image.Image:
    """The image of a pair as 8-bit RGB, transparency laid on white; raises SdgError if it cannot be read."""
    if isinstance(image, (str, os.PathLike)):
        return load_image(image)
    if not isinstance(image, Image.Image):
        raise SdgError(f"An image is a path or a PIL image, not {type(image).__name__}.")
    with _LOADING:  # a file that is opened only is read here, which no two threads may do at once
        return image if image.mode == "RGB" and _is_loaded(image) else as_rgb(image, "The image")


def _is_loaded(image: Image.Image) -> bool:
    """Whether the pixels are in memory already, and some are there."""
    return type(image) is Image.Image and image.width > 0 and image.height > 0


def path_of(image: Source) -> str | None:
    """The path an image was given by or opened from; None for a picture that never was a file."""
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or None
    return os.fspath(image)


def name_of(image: Source, index: int) -> str:
    """What to call an image in a message."""
    return path_of(image) or f"image {index}"
