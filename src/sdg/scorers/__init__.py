"""Scalar scorers of pictures: base rewards of alignment, and measures it is watched and compared by.

URIs: `clip:FOLDER_OR_ID[?processor=ID]`, `p-real:FOLDER_OR_ID`, `unified-reward:BASE_URL#MODEL`,
`python:MODULE.FUNCTION`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from PIL import Image

from sdg.errors import SdgError, quoted, shortened
from sdg.io.files import is_folder
from sdg.io.named import SCHEME, named_function
from sdg.io.uri import DetectorUri, count, is_path, read_options, seconds, split_address, text

Scores = list[float | None]
"""One a picture; None where it could not be scored, which is never the same as a score of 0."""


_OPTIONS: Final[Mapping[str, Mapping[str, Callable[[str], Any]]]] = {
    "clip": {"processor": text},
    "p-real": {},
    "unified-reward": {"parallel": count, "timeout": seconds},
}
"""Scheme -> the options its URI may have, and what reads each."""


class Scorer(Protocol):
    """Anything that scores pictures against their prompts."""

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """One score a picture, in order; raises SdgError only for what concerns every picture."""
        ...


class FunctionScorer:
    """A function of (pictures, prompts) as a scorer."""

    def __init__(self, function: Callable[..., Sequence[float | None]]) -> None:
        self.function = function

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """What the function returns."""
        return list(self.function(list(pictures), list(prompts)))


def load_scorer(uri: str, device: str = "cpu") -> Scorer:
    """The scorer a URI names, with its weights on `device`; raises SdgError where there is none."""
    if uri.startswith(SCHEME):
        return FunctionScorer(named_function(uri, called_with=2))
    scheme, _, rest = uri.partition(":")
    place, options = split_address(rest)
    if not place or scheme not in _OPTIONS:
        raise SdgError(
            f"{quoted(uri)} is no scorer; scorers are clip:FOLDER_OR_ID, p-real:FOLDER_OR_ID, "
            "unified-reward:BASE_URL#MODEL and python:MODULE.FUNCTION."
        )
    values = read_options(DetectorUri(scheme, place, options), _OPTIONS[scheme], "scorer")
    if scheme != "unified-reward" and is_path(place) and not is_folder(place):
        where = shortened(place, 80)
        raise SdgError(f"There is no folder {where}; check the path, or name a model on a hub as ORG/NAME.")
    if scheme == "p-real":
        from sdg.scorers.real import RealScorer

        return RealScorer(place, device)
    if scheme == "clip":
        from sdg.scorers.clip import ClipScorer

        return ClipScorer(place, device=device, **values)
    from sdg.scorers.unified_reward import UnifiedReward

    base_url, _, model = place.partition("#")
    if not model:
        raise SdgError(f"{quoted(uri)} names no model; write unified-reward:BASE_URL#MODEL?timeout=60.")
    return UnifiedReward(base_url, model, **values)
