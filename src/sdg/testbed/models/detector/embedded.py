"""The embedded detector: packaged weights that say so when they are asked about another world."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from sdg.detectors.hf import TransformersDetector
from sdg.testbed.world.ood import ood_reason


class EmbeddedDetector(TransformersDetector):
    """A `TransformersDetector` of the testbed's weights; a picture or prompt of another world is `failed`.

    It would answer such a pair as confidently as any, and most often find it clean.
    """

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {**super().identity, "detector": "testbed"}

    def refusal(self, picture: Image.Image, prompt: str) -> str:
        return ood_reason(picture, prompt)
