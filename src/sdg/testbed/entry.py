"""What the testbed's alignment recipes name: prompts, generator and scorer, as plain functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, get_args

import numpy as np
from PIL import Image

from sdg.testbed.world.prompts import Split, phrase, sample_request, split_of

if TYPE_CHECKING:
    from sdg.scorers.clip import ClipScorer


def prompts(split: Split = "train", count: int = 4096, seed: int = 0) -> list[str]:
    """Different prompts of one split; what they ask for is in no other split, whatever its wording.

    split: "train", "validation" (for monitors, which choose a checkpoint) or "test" (for results).
    """
    if split not in get_args(Split):
        raise ValueError(f"Splits are {', '.join(get_args(Split))}, not {split!r}.")
    rng = np.random.default_rng((seed, get_args(Split).index(split), 4))
    found: dict[str, None] = {}
    while len(found) < count:
        request = sample_request(rng)
        if split_of(request) == split:
            found[phrase(request, rng)] = None
    return list(found)


def generator() -> str:
    """The folder of the packaged text-to-image pipeline."""
    from sdg.testbed.models.packaged import GENERATOR, packaged

    return str(packaged(GENERATOR))


def clip_score(pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[float | None]:
    """The packaged scorer's logits."""
    return _scorer().score(pictures, texts)


@cache
def _scorer() -> ClipScorer:
    from sdg.scorers.clip import ClipScorer
    from sdg.testbed.models.packaged import SCORER, packaged

    return ClipScorer(str(packaged(SCORER)))
