"""Scalar scorers of pictures: base rewards of alignment, and measures it is watched and compared by.

URIs: `clip:FOLDER_OR_ID[?processor=ID]`, `p-real:FOLDER_OR_ID`, `unified-reward:BASE_URL#MODEL`, `ocr`,
`remote:http://localhost:PORT`, `python:MODULE.FUNCTION`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from PIL import Image

from sdg.errors import SdgError, described, quoted
from sdg.io.uri import (
    PYTHON,
    count,
    made_by,
    parse_uri,
    read_options,
    require_made,
    require_place,
    seconds,
    text,
)

Scores = list[float | None]
"""One a picture; None where it could not be scored, which is never the same as a score of 0."""


_FORMS: Final = {
    "clip": "clip:FOLDER_OR_ID",
    "p-real": "p-real:FOLDER_OR_ID",
    "unified-reward": "unified-reward:BASE_URL#MODEL",
    "ocr": "ocr",
    "remote": "remote:http://localhost:PORT",
    "python": "python:MODULE.FUNCTION",
}
_OPTIONS: Final[Mapping[str, Mapping[str, Callable[[str], Any]]]] = {
    "clip": {"processor": text},
    "p-real": {},
    "ocr": {},
    "unified-reward": {"parallel": count, "timeout": seconds, "profile": text},
    "remote": {"batch": count, "timeout": seconds, "attempts": count},
}
"""Scheme -> the options its URI may have, and what reads each."""


class Scorer(Protocol):
    """Anything that scores pictures against their prompts."""

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """One score a picture, in order; raises SdgError only for what concerns every picture."""
        ...


class FunctionScorer:
    """A function of (pictures, prompts) as a scorer; name: what it is called in messages."""

    def __init__(self, function: Callable[..., Sequence[float | None]], name: str = "The scorer") -> None:
        self.function, self.name = function, name

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """What the function returns; raises SdgError where it raises, or gives no score a picture."""
        try:
            found = self.function(list(pictures), list(prompts))
            scores = [None if score is None else float(score) for score in found]
        except SdgError:
            raise
        except Exception as error:
            raise SdgError(f"{self.name} failed ({described(error)}).") from error
        if len(scores) != len(pictures):
            raise SdgError(f"{self.name} returned {len(scores)} scores for {len(pictures)} pictures.")
        return scores


def require_scorer(uri: str) -> None:
    """Raise SdgError where a URI names no scorer, or a function that is not there; nothing is loaded."""
    parsed = parse_uri(uri, "scorer", _FORMS)
    if parsed.scheme == PYTHON:
        require_made(parsed, 2, device="cpu")
    else:
        read_options(parsed, _OPTIONS[parsed.scheme], "scorer")


def load_scorer(uri: str, device: str = "cpu") -> Scorer:
    """The scorer a URI names, with its weights on `device`; raises SdgError where there is none.

    python:MODULE.FUNCTION is a function of (pictures, prompts) that returns one score a picture, None where
    it could not be scored; or a class, or a function of keyword arguments alone, that makes a Scorer of the
    options. unified-reward: has the options timeout, parallel and profile: a TOML file, "release" for the
    authors' wording, or "default" for ours.
    """
    parsed = parse_uri(uri, "scorer", _FORMS)
    if parsed.scheme == PYTHON:
        return made_by(parsed, 2, partial(FunctionScorer, name=str(parsed)), "score", device=device)
    scheme, place = parsed.scheme, parsed.place
    values = read_options(parsed, _OPTIONS[scheme], "scorer")
    if scheme == "ocr":
        from sdg.models.ocr import reader

        return FunctionScorer(reader().spelling, "ocr")
    if scheme == "remote":
        from sdg.scorers.remote import RemoteScorer

        return RemoteScorer(place, **values)
    if scheme != "unified-reward":
        require_place(place, "; check the path, or name a model on a hub as ORG/NAME.")
    if scheme == "p-real":
        from sdg.scorers.real import RealScorer

        return RealScorer(place, device)
    if scheme == "clip":
        from sdg.scorers.clip import ClipScorer

        return ClipScorer(place, device=device, **values)
    from sdg.prompting.chat import given_profile
    from sdg.prompting.release import unified_reward_profile
    from sdg.scorers.unified_reward import OWN, UnifiedReward

    base_url, _, model = place.partition("#")
    if not model:
        raise SdgError(f"{quoted(uri)} names no model; write unified-reward:BASE_URL#MODEL?timeout=60.")
    profile = given_profile(values.pop("profile", None), lambda: OWN, unified_reward_profile)
    return UnifiedReward(base_url, model, profile=profile, **values)
