"""What every detector has in common: pairs of image and prompt in, a Diagnosis of each out, in order.

`python:MODULE.FUNCTION` is the smallest of them: a function of a picture and its prompt.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sdg.defects import Diagnosis, Status
from sdg.errors import SdgError, described, quoted
from sdg.images import Pair, Source, array_picture, rgb_picture
from sdg.io.asking import Ask, asked_over
from sdg.io.predictions import reads_as
from sdg.prompting import PromptProfile
from sdg.response import render_response

_LOG = logging.getLogger("sdg.detectors")

Stream = Iterator[tuple[int, Diagnosis]]
"""Indices of pairs and their diagnoses, in whatever order they come."""


class Detector(Protocol):
    """Anything that diagnoses pairs of image and prompt."""

    def diagnose(self, pairs: Sequence[Pair]) -> list[Diagnosis]:
        """One Diagnosis for each pair, in their order."""
        ...


class StreamingDetector(ABC):
    """A detector that hands out each result as soon as it has it; what `load_detector` returns."""

    stored: bool = False
    """Whether answers are looked up by path, for which all paths of a run have to be given, whichever of them
    are wanted."""

    batch_size: int = 1
    """Pairs that it works on at a time; of more given at once, one batch waits for the other."""

    profile: PromptProfile | None = None
    """What its model is told; None where it is told nothing."""

    at_once: int | None = None
    """Pairs at a time that the user allows to be asked for over `connected`; None for any number."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str | int | float]:
        """Every setting that answers depend on, for a bulk run to refuse to continue with others."""

    @abstractmethod
    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        """Index and diagnosis of each wanted pair (of all by default), in whatever order they come.

        `pairs` is the whole run also when few of them are wanted, so that batches are what they would be
        in a full run. A pair that cannot be diagnosed gives a `failed` diagnosis, never an error.
        """

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Indices of the pairs, each once, batch by batch: what costs no more asked for apart from the rest.

        Each pair by itself by default.
        """
        return [[place] for place in range(len(pairs))]

    def stop(self) -> bool:
        """Let every stream end soon by itself, with a diagnosis of each pair that is answered by then.

        False where a stream can only be broken off. May be called from a signal's handler.
        """
        return False

    def connected(self) -> AbstractAsyncContextManager[Ask[Diagnosis]] | None:
        """Connections over which single pairs are asked for: a diagnosis for (pair, its index), as they come.

        None where a model runs here, which takes batches.
        """
        return None

    def diagnose(self, pairs: Sequence[Pair]) -> list[Diagnosis]:
        """One Diagnosis for each (image, prompt), in their order.

        image: a path, a PIL image or an array of pixels, see `sdg.images.Array`. A pair that is none, cannot
        be read or gets no answer has status `failed`, and its `error` says why, as does the log
        "sdg.detectors"; one bad pair never raises, whatever its type.
        Raises SdgError for what concerns every pair, such as memory too small for the batch.
        """
        found: dict[int, Diagnosis] = {}
        asked: dict[int, Pair] = {}
        for index, pair in enumerate(pairs):
            try:
                asked[index] = _checked(pair)
            except SdgError as error:
                found[index] = failed(str(error))
        places = list(asked)
        for place, diagnosis in self.stream(list(asked.values())) if asked else ():
            found[places[place]] = diagnosis
        for index, diagnosis in sorted(found.items()):
            if diagnosis.error:
                _LOG.warning(
                    "%s: %s", name_of(asked[index][0] if index in asked else None, index), diagnosis.error
                )
        assert len(found) == len(pairs), "a detector streams a diagnosis for every pair"
        return [found[index] for index in range(len(pairs))]


def _checked(pair: object) -> Pair:
    """The pair as detectors take it, arrays as pictures; raises SdgError where it is none."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise SdgError(f"A pair is an image and its prompt, not {quoted(pair)}.")
    image, prompt = pair
    if not isinstance(prompt, str):
        raise SdgError(f"A prompt is text, not {type(prompt).__name__}.")
    if isinstance(image, np.ndarray):
        return array_picture(image), prompt
    if isinstance(image, Image.Image):
        return image, prompt
    try:
        path = os.fspath(image)
    except Exception:  # of a class of the user's
        path = None
    if not isinstance(path, str):
        raise SdgError(f"An image is a path, a PIL image or an array, not {type(image).__name__}.")
    return image, prompt


def failed(reason: str) -> Diagnosis:
    """The diagnosis of a pair that got no answer."""
    return Diagnosis(status=Status.FAILED, error=reason)


def path_of(image: Source | None) -> str | None:
    """The path an image was given by or opened from; None for a picture that never was a file."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    return str(getattr(image, "filename", "")) or None


def name_of(image: Source | None, index: int) -> str:
    """What to call an image in a message."""
    return path_of(image) or f"image {index}"


class FunctionDetector(StreamingDetector):
    """Calls a function of (picture, prompt), which returns a Diagnosis, once for each pair.

    name: what the function is called in messages and in manifests. A pair for which it raises has failed. A
    text `raw` that does not read as the diagnosis, such as that of a detector whose defects the function has
    filtered, is written anew. Raises SdgError where it returns no Diagnosis.
    """

    def __init__(self, name: str, function: Callable[..., Diagnosis]) -> None:
        self._name, self._function = name, function

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": "python", "function": self._name}

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        for index in range(len(pairs)) if wanted is None else sorted(wanted):
            yield index, self._diagnosis(*pairs[index])

    def _diagnosis(self, image: Source, prompt: str) -> Diagnosis:
        try:
            picture = rgb_picture(image)
        except SdgError as error:
            return failed(str(error))
        try:
            found = self._function(picture, prompt)
        except Exception as error:
            return failed(f"{self._name}: {described(error)}")
        return _with_text(found, self._name)


class MadeDetector(StreamingDetector):
    """Whatever object with `stream` a class or a function of the user's made, as a whole detector.

    name: what it is called in messages, and in manifests where it has no identity of its own. What else it
    lacks is as of any detector, such as no batches. A text `raw` that does not read as the diagnosis is
    written anew, as of a function. Raises SdgError where it streams what is no Diagnosis.
    """

    def __init__(self, name: str, made: Any) -> None:
        self._name, self._made = name, made
        self.stored, self.batch_size = self._own("stored", False), self._own("batch_size", 1)
        self.profile, self.at_once = self._own("profile", None), self._own("at_once", None)

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        identity: Mapping[str, str | int | float] = self._own(
            "identity", {"detector": "python", "function": self._name}
        )
        return identity

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        for index, found in self._made.stream(pairs, wanted):
            yield index, self._diagnosis(found)

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        batches: list[list[int]] = self._own("batches", super().batches)(pairs)
        return batches

    def stop(self) -> bool:
        return bool(self._own("stop", super().stop)())

    def connected(self) -> AbstractAsyncContextManager[Ask[Diagnosis]] | None:
        opened = self._own("connected", super().connected)()
        return None if opened is None else asked_over(opened, self._ask)

    async def _ask(self, ask: Ask[Diagnosis], pair: Pair, index: int) -> Diagnosis:
        return self._diagnosis(await ask(pair, index))

    def _own(self, name: str, otherwise: Any) -> Any:
        return getattr(self._made, name, otherwise)

    def _diagnosis(self, found: object) -> Diagnosis:
        return _with_text(found, self._name, self.profile is None or self.profile.answer.think)


def _with_text(found: object, name: str, require_think: bool = True) -> Diagnosis:
    """A diagnosis with the text that files of predictions hold alone: its own, if that reads as it does.

    Raises SdgError where it is none; name: of what returned it.
    """
    if not isinstance(found, Diagnosis):
        raise SdgError(f"{name} returned {type(found).__name__}, not a Diagnosis.")
    if not found.is_informative or (found.raw and reads_as(found.raw, found, require_think=require_think)):
        return found
    # The text shows nothing of an item that was lost.
    status = found.status if found.is_whole else Status.TRUNCATED
    return replace(found, status=status, raw=render_response(found))
