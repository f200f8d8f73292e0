"""Scalar scorers of pictures: base rewards of alignment, and measures it is watched and compared by.

URIs: `clip:FOLDER_OR_ID[?processor=ID]`, `p-real:FOLDER_OR_ID`, `unified-reward:BASE_URL#MODEL`,
`python:MODULE.FUNCTION`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qsl

from PIL import Image

from sdg.errors import SdgError
from sdg.io.named import SCHEME, named_function
from sdg.io.uri import is_path

Scores = list[float | None]
"""One a picture; None where it could not be scored, which is never the same as a score of 0."""


_OPTIONS: Final = {"clip": ("processor",), "p-real": (), "unified-reward": ("parallel", "timeout")}
"""Scheme -> the options its URI may have."""


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
        return FunctionScorer(named_function(uri))
    scheme, _, rest = uri.partition(":")
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query))
    if not place or scheme not in _OPTIONS:
        raise SdgError(
            f"{uri!r} is no scorer; scorers are clip:FOLDER_OR_ID, p-real:FOLDER_OR_ID, "
            "unified-reward:BASE_URL#MODEL and python:MODULE.FUNCTION."
        )
    if unknown := sorted(set(options) - set(_OPTIONS[scheme])):
        has = ", ".join(_OPTIONS[scheme]) or "none"
        raise SdgError(f"The {scheme} scorer has no option {unknown[0]!r}; it has {has}.")
    if scheme != "unified-reward" and is_path(place) and not Path(place).is_dir():
        raise SdgError(f"There is no folder {place}; check the path, or name a model on a hub as ORG/NAME.")
    if scheme == "p-real":
        from sdg.scorers.real import RealScorer

        return RealScorer(place, device)
    if scheme == "clip":
        from sdg.scorers.clip import ClipScorer

        return ClipScorer(place, device=device, processor=options.get("processor"))
    from sdg.scorers.unified_reward import UnifiedReward

    base_url, _, model = place.partition("#")
    if not model:
        raise SdgError(f"{uri!r} names no model; write unified-reward:BASE_URL#MODEL?timeout=60.")
    try:
        timeout, parallel = float(options.get("timeout", 120)), int(options.get("parallel", 16))
    except ValueError:
        raise SdgError(f"{uri!r}: timeout is a number of seconds, parallel a number of requests.") from None
    return UnifiedReward(base_url, model, timeout=timeout, parallel=parallel)
