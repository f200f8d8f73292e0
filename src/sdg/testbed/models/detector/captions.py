"""What the base model is told and says: grounded captions, and diagnoses in the profile of the testbed.

A caption lists everything in a picture with its box, in the style of the answer's JSON. It teaches to find
things before the same words and numbers are asked of a diagnosis.
"""

from __future__ import annotations

from typing import Final

from sdg.defects import DefectType
from sdg.prompting import Generation, ImageLimits, PromptProfile
from sdg.testbed.injection import Sample
from sdg.testbed.injection.boxes import to_defect_box
from sdg.testbed.world.words import noun

REQUEST: Final = "List every object and flaw with its box."
"""Asks for a caption; the prompts of pictures never read so."""


def embedded_profile() -> PromptProfile:
    """How the embedded detector is asked: the bare prompt, for its task is always the same."""
    return PromptProfile(
        name="testbed",
        system="",
        template="{caption}",
        image=ImageLimits(max_pixels=128 * 128, longest_side=128),
        generation=Generation(max_new_tokens=384),
    )


def caption(sample: Sample) -> str:
    """Objects from left to right, then artifacts, each with box and name, one a line."""
    size = sample.picture.shape[0]
    found = [(to_defect_box(o.box, size), noun(o.colour, o.shape)) for o in sample.objects]
    found.sort(key=lambda item: (item[0][0] + item[0][2], item[0][1] + item[0][3]))
    flaws = sample.diagnosis.of_type(DefectType.ARTIFACT)
    found += [(defect.box, defect.subtype or "artifact") for defect in flaws]
    if not found:
        return "[]"
    lines = [f'  {{"box_2d": {list(box)}, "label": "{name}"}}' for box, name in found]
    return "[\n" + ",\n".join(lines) + "\n]"
