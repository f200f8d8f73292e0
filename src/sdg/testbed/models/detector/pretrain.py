"""The detector's base model from nothing: first it learns to see, then to speak."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from diffusers import AutoencoderKL

from sdg.errors import SdgError
from sdg.testbed.models.detector.build import new_model
from sdg.testbed.models.detector.rows import base_tokenizer
from sdg.testbed.models.detector.see import train_vision
from sdg.testbed.models.detector.speak import train_language
from sdg.testbed.models.loop import Run

Stage = Literal["see", "speak", "both"]


def pretrain(
    out: Path,
    *,
    stage: Stage = "both",
    see_steps: int,
    speak_steps: int,
    seeing: Path | None = None,
    vae: AutoencoderKL | None = None,
    seed: int = 0,
    resume: bool = False,
    max_minutes: float,
) -> Path:
    """Run the stages asked for in out/see and out/speak; returns the folder of the last one's result.

    seeing: a tower for stage speak, by default that of out. max_minutes: for both stages together. Raises
    SdgError where time is up between the two, and as `train_vision` and `train_language` do.
    """
    began = time.monotonic()
    tower = seeing or out / "see" / "seeing"
    if stage == "see" or (stage == "both" and seeing is None):
        model = new_model(base_tokenizer(), seed)
        train_vision(model, Run(out / "see", see_steps, seed, resume, max_minutes), vae=vae)
    if stage == "see":
        return tower
    left = max_minutes - (time.monotonic() - began) / 60
    if left <= 0:
        raise SdgError("Time is up before the model could learn to speak; go on with --resume.")
    train_language(tower, Run(out / "speak", speak_steps, seed, resume, left), vae=vae)
    return out / "speak" / "detector"
