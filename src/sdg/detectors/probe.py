"""Asking a detector's server about one picture, before a run depends on it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Final

from PIL import Image

from sdg.detectors import load_detector
from sdg.detectors.base import StreamingDetector
from sdg.errors import SdgError, quoted
from sdg.io.chat import require_served
from sdg.io.uri import split_options
from sdg.models.vlm import LETTERS

PIXELS: Final = 28
"""Side of the part of a picture that is a token, at least, in today's vision-language models."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How a server answered about a picture: after how many seconds, and what it reads at most."""

    seconds: float
    tokens: int | None


def gradient(width: int, height: int) -> Image.Image:
    """A picture to ask about."""
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


def is_served(uri: str) -> bool:
    """Whether a detector or scorer is asked over HTTP, and so can be asked from anywhere."""
    return uri.partition(":")[0] in ("openai", "unified-reward", "remote")


def key_of(uri: str) -> str:
    """The API key of a URI, as its detector reads it."""
    return os.environ.get(split_options(uri)[1].get("key", "OPENAI_API_KEY"), "")


def probe_detector(uri: str, picture: Image.Image, prompt: str) -> Answered:
    """Load a served detector, and ask it once; raises SdgError where a run would get nothing from it."""
    detector = load_detector(uri, attempts=1)
    base_url, _, model = split_options(uri)[0].partition(":")[2].partition("#")
    tokens = require_served(base_url, key_of(uri), model)
    if tokens is not None:
        _require_room(detector, tokens, picture, prompt)
    began = time.monotonic()
    (diagnosis,) = detector.diagnose([(picture, prompt)])
    if diagnosis.error:
        raise SdgError(f"{base_url}: {diagnosis.error}")
    if not diagnosis.is_informative:
        raise SdgError(
            f"{model} answers, and not as a detector of this wording: {quoted(diagnosis.raw)}; "
            "name its profile."
        )
    return Answered(time.monotonic() - began, tokens)


def _require_room(detector: StreamingDetector, tokens: int, picture: Image.Image, prompt: str) -> None:
    """Raise SdgError where a question and the longest answer are more than the server reads."""
    profile = detector.profile
    assert profile is not None
    width, height = profile.image.fit(*picture.size)
    words = len(profile.system) + len(profile.template or "") + len(prompt)
    question = (width // PIXELS) * (height // PIXELS) + words // LETTERS
    if question + profile.generation.max_new_tokens > tokens:
        raise SdgError(
            f"The server reads {tokens:,} tokens (--max-model-len of vLLM); a question takes about "
            f"{question:,} and an answer up to {profile.generation.max_new_tokens:,}, by the profile."
        )
