"""Draw the picture of the README: a testbed scene with known defects, drawn by the project's own overlay.

Run `python docs/make_pictures.py` from anywhere; the same code gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sdg.images import draw_overlay, save_image
from sdg.testbed.injection.sample import sample

PICTURES = Path(__file__).resolve().parent / "pictures"
SEED = 5  # both types of defect, four subtypes, three tiers


def overview() -> Image.Image:
    """A picture of both kinds of defect beside its prompt and the reasons."""
    drawn = sample(np.random.default_rng(SEED), kind="both", size=768)
    picture = Image.fromarray(drawn.picture)
    return draw_overlay(picture, drawn.diagnosis.defects, legend="right", caption=drawn.prompt)


if __name__ == "__main__":
    sys.stdout.write(f"{save_image(overview(), PICTURES / 'overview.png')}\n")
