"""Teach the vision tower to see before it learns to speak: dense targets for every 16-pixel cell.

For each merged patch: the colour, shape and box of the object in it, which of its four 8-pixel patches were
tampered with, the kind of artifact and its box. The heads are thrown away afterwards.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from sdg.defects import BOX_SCALE, DefectType
from sdg.models.device import cpu_autocast
from sdg.testbed.injection import ARTIFACTS
from sdg.testbed.models.detector.build import HIDDEN, MERGE, PATCH, SIZE
from sdg.testbed.world.scene import COLOURS, SHAPES

CELLS: Final = SIZE // (PATCH * MERGE)
"""Merged patches along a side."""

_COLOUR_INDEX = {colour: i + 1 for i, colour in enumerate(COLOURS)}
_SHAPE_INDEX = {shape: i + 1 for i, shape in enumerate(SHAPES)}
_ARTIFACT_INDEX = {subtype: i + 1 for i, subtype in enumerate(ARTIFACTS["core"])}
# Widths of the head's outputs, in order.
_PARTS: Final = {
    "colour": len(COLOURS) + 1,
    "shape": len(SHAPES) + 1,
    "box": 4,
    "tampered": MERGE * MERGE,
    "artifact": len(_ARTIFACT_INDEX) + 1,
    "artifact_box": 4,
}


def patchify(pictures: Tensor) -> Tensor:
    """(B, SIZE, SIZE, 3) bytes to the processor's patches (B·256, 384): merge blocks first, −1..1."""
    count = len(pictures)
    blocks = pictures.view(count, CELLS, MERGE, PATCH, CELLS, MERGE, PATCH, 3)
    # (B, cell row, cell column, row in cell, column in cell, channel, y, x)
    blocks = blocks.permute(0, 1, 4, 2, 5, 7, 3, 6).float().div(127.5).sub(1)
    twice = blocks.unsqueeze(6).expand(*blocks.shape[:6], 2, PATCH, PATCH)  # a still is two equal frames
    return twice.reshape(count * (CELLS * MERGE) ** 2, 3 * 2 * PATCH * PATCH)


def dense_targets(sample: Any) -> dict[str, NDArray[Any]]:
    """Targets of one injected sample, each with a first axis of CELLS² in row-major order."""
    cells = CELLS * CELLS
    step = SIZE // CELLS
    owner = sample.object_map.reshape(CELLS, step, CELLS, step).transpose(0, 2, 1, 3).reshape(cells, -1)
    things = sample.scene.things
    share = np.stack([(owner == i).mean(1) for i in range(len(things))] or [np.zeros(cells)])
    main, covered = share.argmax(0), share.max(0) > 0.1
    middle = (np.arange(CELLS) + 0.5) * step
    centre = np.stack(np.meshgrid(middle, middle, indexing="xy"), -1).reshape(cells, 2)
    centre4 = np.concatenate([centre, centre], 1)
    colour = np.zeros(cells, np.int64)
    shape = np.zeros(cells, np.int64)
    box = np.zeros((cells, 4), np.float32)
    if things:
        colours = np.array([_COLOUR_INDEX[t.colour] for t in things])
        shapes = np.array([_SHAPE_INDEX[t.shape] for t in things])
        bounds = np.array([seen.box for seen in sample.objects], np.float32)
        colour[covered] = colours[main[covered]]
        shape[covered] = shapes[main[covered]]
        box[covered] = (bounds[main[covered]] - centre4[covered]) / (SIZE / 4)
    half = step // MERGE
    mask = sample.artifact_mask.reshape(CELLS, MERGE, half, CELLS, MERGE, half)
    tampered = mask.mean((2, 5)).transpose(0, 2, 1, 3).reshape(cells, MERGE * MERGE) > 0.12
    kind = np.zeros(cells, np.int64)
    artifact_box = np.zeros((cells, 4), np.float32)
    for defect in sample.diagnosis.of_type(DefectType.ARTIFACT):
        x0, y0, x1, y1 = (c * SIZE / BOX_SCALE for c in defect.box)
        inside = tampered.any(1)
        inside &= (centre[:, 0] > x0 - half) & (centre[:, 0] < x1 + half)
        inside &= (centre[:, 1] > y0 - half) & (centre[:, 1] < y1 + half)
        kind[inside] = _ARTIFACT_INDEX.get(defect.subtype or "", 0)
        artifact_box[inside] = (np.array([x0, y0, x1, y1]) - centre4[inside]) / (SIZE / 4)
    return {
        "colour": colour,
        "shape": shape,
        "box": box,
        "tampered": tampered.astype(np.float32),
        "artifact": kind,
        "artifact_box": artifact_box,
    }


class DenseReader(nn.Module):
    """A vision tower with one linear head over its merged patches."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        super().__init__()
        self.visual = model.model.visual
        self.norm = nn.LayerNorm(HIDDEN)
        self.head = nn.Linear(HIDDEN, sum(_PARTS.values()))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Bytes (B, SIZE, SIZE, 3) to outputs (B, CELLS², width) by name."""
        count = len(pictures)
        grid = torch.tensor([[1, CELLS * MERGE, CELLS * MERGE]]).expand(count, 3)
        seen = self.visual(patchify(pictures), grid_thw=grid).pooler_output
        return self.read(self.head(self.norm(seen)).view(count, CELLS * CELLS, -1))

    @staticmethod
    def read(outputs: Tensor) -> dict[str, Tensor]:
        """The head's outputs (…, width) by name."""
        return dict(zip(_PARTS, outputs.float().split(list(_PARTS.values()), -1), strict=True))


def dense_loss(reader: DenseReader, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """`dense_losses` of what a reader makes of a batch's pictures."""
    with cpu_autocast():
        out = reader(batch["pictures"])
    return dense_losses(out, batch)


def dense_losses(out: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum of the heads' losses; cells with an artifact weigh more, for they are few."""
    colour, shape, artifact = batch["colour"], batch["shape"], batch["artifact"]
    covered, hurt = colour > 0, artifact > 0
    parts = {
        "colour": F.cross_entropy(out["colour"].flatten(0, 1), colour.flatten()),
        "shape": F.cross_entropy(out["shape"].flatten(0, 1), shape.flatten()),
        "box": _box_loss(out["box"], batch["box"], covered),
        "tampered": F.binary_cross_entropy_with_logits(
            out["tampered"], batch["tampered"], pos_weight=torch.tensor(3.0)
        ),
        "artifact": F.cross_entropy(
            out["artifact"].flatten(0, 1),
            artifact.flatten(),
            weight=torch.tensor([1.0] + [3.0] * len(_ARTIFACT_INDEX)),
        ),
        "artifact_box": _box_loss(out["artifact_box"], batch["artifact_box"], hurt),
    }
    loss = torch.stack([*parts.values()]).sum()
    with torch.no_grad():
        found, true = out["tampered"] > 0, batch["tampered"] > 0
        parts |= {
            "shape_right": (out["shape"].argmax(-1) == shape)[covered].float().mean(),
            "colour_right": (out["colour"].argmax(-1) == colour)[covered].float().mean(),
            "mask_iou": (found & true).sum() / (found | true).sum().clamp(min=1),
            "artifact_right": (out["artifact"].argmax(-1) == artifact)[hurt].float().mean(),
        }
    return {"loss": loss, **parts}


def _box_loss(predicted: Tensor, true: Tensor, where: Tensor) -> Tensor:
    return F.smooth_l1_loss(predicted[where], true[where], beta=0.05) if where.any() else predicted.sum() * 0
