"""Pictures with their boxes as panels of their own in W&B and TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from sdg.defects import BOX_SCALE, Defect, DefectType, Diagnosis
from sdg.errors import shortened
from sdg.overlay import draw_overlay

MOST: Final = 50
"""Pictures of one step, at most: each is a file on the tracker's server."""
_NAME: Final = "samples"
_CLASSES: Final = {number: kind.value for number, kind in enumerate(DefectType)}


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture, its prompt and what was found; diagnosis None is not known."""

    picture: Image.Image
    prompt: str
    diagnosis: Diagnosis | None


def track_panels(trackers: Iterable[Any], panels: Sequence[Panel], step: int) -> None:
    """Send the first MOST panels to each of Accelerate's trackers that shows pictures."""
    shown = panels[:MOST]
    for tracker in trackers:
        if not shown:
            return
        if tracker.name == "wandb":
            import wandb

            images = [
                wandb.Image(one.picture, caption=shortened(one.prompt, 300), boxes=wandb_boxes(one.diagnosis))
                for one in shown
            ]
            tracker.tracker.log({_NAME: images}, step=step)
        elif tracker.name == "tensorboard":
            for number, one in enumerate(shown):
                defects = one.diagnosis.defects if one.diagnosis else ()
                drawn = draw_overlay(one.picture, defects, legend="right", caption=one.prompt)
                pixels = np.asarray(drawn)  # (H, W, 3) uint8
                tracker.writer.add_image(f"{_NAME}/{number}", pixels, step, dataformats="HWC")


def wandb_boxes(diagnosis: Diagnosis | None) -> dict[str, Any] | None:
    """The boxes of a `wandb.Image`: position as shares of the sides, importance as score, reason as caption.

    None where nothing is known, so that such a picture does not look clean.
    """
    if diagnosis is None:
        return None
    data = [_wandb_box(defect) for defect in diagnosis.defects]
    return {"defects": {"box_data": data, "class_labels": _CLASSES}}


def _wandb_box(defect: Defect) -> dict[str, Any]:
    x0, y0, x1, y1 = (value / BOX_SCALE for value in defect.box)
    box: dict[str, Any] = {
        "position": {"minX": x0, "maxX": x1, "minY": y0, "maxY": y1},
        "class_id": list(DefectType).index(defect.type),
        "box_caption": shortened(defect.reason, 300) or defect.type.value,
    }
    if defect.importance is not None:
        box["scores"] = {"importance": defect.importance}
    return box
