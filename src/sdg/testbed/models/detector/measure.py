"""SDG-Eval of the base model on injected pictures it was not trained on, while it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from sdg.defects import Diagnosis
from sdg.embeddings import TokenF1
from sdg.models.vlm import LoadedModel
from sdg.testbed.injection import sample
from sdg.testbed.models.detector.captions import embedded_profile
from sdg.training.evaluate import score

Case = tuple[Image.Image, str, Diagnosis]


def held_out(count: int, seed: int) -> list[Case]:
    """Injected pictures of the validation split, with prompt and true diagnosis."""
    rng = np.random.default_rng((seed, 4711))
    drawn = [sample(rng, split="validation") for _ in range(count)]
    return [(Image.fromarray(one.picture), one.prompt, one.diagnosis) for one in drawn]


def score_base(model: Any, processor: Any, cases: list[Case]) -> dict[str, float]:
    """SDG-Eval of the model's greedy answers, by the names that SFT logs."""
    profile = embedded_profile()
    answers = dict(LoadedModel(model, processor, profile, 64).answers([case[:2] for case in cases]))
    found = score([answers[n] for n in range(len(cases))], [case[2] for case in cases], profile, TokenF1())
    return {name: round(value, 4) for name, value in found.items()}
