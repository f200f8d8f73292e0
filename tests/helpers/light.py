"""A detector that needs numpy alone, for tests that start processes."""

import numpy as np
from PIL import Image

from sdg import Defect, Diagnosis


def bright(picture: Image.Image, prompt: str) -> Diagnosis:
    """An artifact in the left half, the more important the brighter the picture."""
    level = round(float(np.asarray(picture).mean()) / 2.55)
    return Diagnosis((Defect((0, 0, 500, 1000), "artifact", prompt, level),) if level else ())
