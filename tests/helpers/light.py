"""A detector that needs numpy alone, for tests that start processes."""

from typing import ClassVar, NoReturn

import numpy as np
from PIL import Image

from sdg import Defect, Diagnosis


class Broken:
    """A detector that has a fault of its own."""

    identity: ClassVar = {"detector": "broken"}

    def stream(self, pairs: object, wanted: object = None) -> NoReturn:
        """Raises ZeroDivisionError."""
        raise ZeroDivisionError("no light at all")


def bright(picture: Image.Image, prompt: str) -> Diagnosis:
    """An artifact in the left half, the more important the brighter the picture."""
    level = round(float(np.asarray(picture).mean()) / 2.55)
    return Diagnosis((Defect((0, 0, 500, 1000), "artifact", prompt, level),) if level else ())
