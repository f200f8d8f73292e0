"""What recipes and commands name of the testbed, through `python:` or its alias: plain functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
from PIL import Image

from sdg.testbed.world.prompts import Split, phrase, sample_request, split_of

if TYPE_CHECKING:
    from diffusers import FluxPipeline

    from sdg.defects import Diagnosis
    from sdg.detectors import StreamingDetector
    from sdg.refinement import DiffusersEditor
    from sdg.scorers.clip import ClipScorer
    from sdg.testbed.injection.sample import Kind, Sample

SHIPPED: Final = "shipped"
"""In place of an adapter's folder: the one inside the package."""


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


def examples() -> list[Sample]:
    """Pictures to show what a detector does, with what is wrong in each: of prompts for results only."""
    from sdg.testbed.injection import sample

    kinds: tuple[Kind, ...] = ("both", "artifact", "misalignment", "artifact", "both", "clean")
    return [
        sample(np.random.default_rng((number, 5)), split="test", kind=kind)
        for number, kind in enumerate(kinds)
    ]


def generator() -> str:
    """The folder of the packaged text-to-image pipeline."""
    from sdg.testbed.models.packaged import GENERATOR, packaged

    return str(packaged(GENERATOR))


def load_generator(lora: Path | str | None = None) -> FluxPipeline:
    """The packaged text-to-image pipeline in fp32; lora: folder of an adapter, or "shipped".

    Raises SdgError where the folder holds no adapter.
    """
    from sdg.testbed.models import packaged

    return packaged.load_generator(lora=_adapter(lora))


def detector(**options: Any) -> StreamingDetector:
    """The packaged detector, which refuses pictures of other worlds; its options are those of `hf:`."""
    from sdg.detectors import as_in_uri, load_checkpoint
    from sdg.io.uri import Uri
    from sdg.testbed.models.detector.embedded import EmbeddedDetector
    from sdg.testbed.models.packaged import DETECTOR, packaged

    uri = Uri("testbed", str(packaged(DETECTOR)), as_in_uri(options))
    return load_checkpoint(uri, EmbeddedDetector)


def editor(*, device: str = "auto", steps: int | None = None, **options: Any) -> DiffusersEditor:
    """The packaged generator as an editor that inpaints; folder: one that training wrote, in its place.

    Further options: those of every pipeline; lora may be "shipped", and sampling is "stochastic" by default.
    """
    from diffusers import FluxInpaintPipeline

    from sdg.io.uri import Uri, read_options
    from sdg.models.device import choose_device
    from sdg.refinement.editors import TESTBED_OPTIONS, pipeline_editor
    from sdg.testbed.models import packaged

    texts = {name: str(value) for name, value in options.items()}
    values = read_options(Uri("testbed", "", texts), TESTBED_OPTIONS, "editor")
    generator = packaged.load_generator(
        values.get("folder"), choose_device(device), lora=_adapter(values.get("lora"))
    )
    pipeline = FluxInpaintPipeline.from_pipe(generator)
    return pipeline_editor(pipeline, values, steps, sampling="stochastic")


def _adapter(lora: Path | str | None) -> Path | str | None:
    from sdg.testbed.models.packaged import ALIGNED, packaged

    return packaged(ALIGNED) if lora == SHIPPED else lora


def background(picture: Image.Image, prompt: str) -> Diagnosis:
    """A judge of one thing: whether the background is the one that the prompt names."""
    from sdg.defects import Diagnosis, Status
    from sdg.testbed.oracle import diagnose
    from sdg.testbed.world.prompts import parse_prompt

    if parse_prompt(prompt).background is None:
        return Diagnosis(status=Status.FAILED, error="The prompt names no background.")
    found = diagnose(picture, prompt).defects
    return Diagnosis(tuple(defect for defect in found if defect.subtype == "wrong background"))


def open_background(picture: Image.Image, prompt: str) -> Diagnosis:
    """A judge of a known cheat: a light background, white or cream, where the prompt names none.

    On these the generator makes fewer mistakes.
    """
    from sdg.defects import BOX_SCALE, Defect, DefectType, Diagnosis, Status
    from sdg.testbed.oracle.pixels import as_picture, look
    from sdg.testbed.world.prompts import parse_prompt

    if parse_prompt(prompt).background is not None:
        return Diagnosis(status=Status.FAILED, error="The prompt names a background.")
    if look(as_picture(picture)).background not in ("white", "cream"):
        return Diagnosis()
    whole = (0, 0, BOX_SCALE, BOX_SCALE)
    return Diagnosis((Defect(whole, DefectType.MISALIGNMENT, "The background is light.", 1),))


def clip_score(pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[float | None]:
    """The packaged scorer's logits."""
    return _scorer().score(pictures, texts)


@cache
def _scorer() -> ClipScorer:
    from sdg.scorers.clip import ClipScorer
    from sdg.testbed.models.packaged import SCORER, packaged

    return ClipScorer(str(packaged(SCORER)))
