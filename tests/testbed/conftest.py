"""What the tests of the testbed's data sets share."""

import numpy as np
import pytest
from PIL import Image

from sdg.testbed.world.layout import place
from sdg.testbed.world.prompts import parse_prompt
from sdg.testbed.world.renderer import render


@pytest.fixture(scope="session")
def draw_like_a_generator():
    """Stands in for `sample_pictures`: scenes of the prompts, blank for numbers that five divides."""

    def draw(pipeline, prompts, *, steps, seed, numbers):
        pictures = []
        for prompt, number in zip(prompts, numbers, strict=True):
            rng = np.random.default_rng([seed, number, steps])
            scene = render(place(parse_prompt(prompt), rng))
            pictures.append(Image.fromarray(scene if number % 5 else np.full_like(scene, 240)))
        return pictures

    return draw
