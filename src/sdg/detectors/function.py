"""`python:MODULE.FUNCTION`: a function of a picture and its prompt, used as a detector."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from sdg.defects import Diagnosis
from sdg.detectors.base import StreamingDetector, failed
from sdg.errors import SdgError, first_line
from sdg.images import Pair, Source, rgb_picture
from sdg.response import render_response


class FunctionDetector(StreamingDetector):
    """Calls a function of (picture, prompt), which returns a Diagnosis, once for each pair.

    name: what the function is called in messages and in manifests. A pair for which it raises SdgError or
    ValueError has failed. Raises SdgError where it raises anything else, or returns no Diagnosis.
    """

    def __init__(self, name: str, function: Callable[..., Diagnosis]) -> None:
        self._name, self._function = name, function

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": "python", "function": self._name}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        for index in range(len(pairs)) if wanted is None else sorted(wanted):
            yield index, self._diagnosis(*pairs[index])

    def _diagnosis(self, image: Source, prompt: str) -> Diagnosis:
        try:
            found = self._function(rgb_picture(image), prompt)
        except (SdgError, ValueError) as error:
            return failed(f"{self._name}: {first_line(error)}")
        except Exception as error:  # the function is at fault, and not this pair
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise SdgError(f"{self._name} failed ({reason}).") from error
        if not isinstance(found, Diagnosis):
            raise SdgError(f"{self._name} returned {type(found).__name__}, not a Diagnosis.")
        if found.raw or not found.is_informative:
            return found
        return replace(found, raw=render_response(found))  # files of predictions hold the text
