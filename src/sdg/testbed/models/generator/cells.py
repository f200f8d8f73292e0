"""What lies in each 16-pixel cell of a scene: the transformer's middle learns it beside the flow.

A transformer that must say what its noisy tokens will show learns to draw sooner (REPA, arXiv 2410.06940,
aligns its middle with another network's features; here the truth itself is known). The head is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sdg.testbed.world.scene import CANVAS, COLOURS, SHAPES, Scene

CELLS: Final = 8
"""Cells along a side, one a token of the transformer."""
_STEP: Final = CANVAS / CELLS
_MIDDLES: Final = (np.arange(CELLS) + 0.5) * _STEP
_COLOUR_INDEX: Final = {colour: i + 1 for i, colour in enumerate(COLOURS)}
_SHAPE_INDEX: Final = {shape: i + 1 for i, shape in enumerate(SHAPES)}
_WIDTHS: Final = (len(COLOURS) + 1, len(SHAPES) + 1, 3)


def cell_targets(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Targets of N scenes by name, a row-major cell each along the second axis.

    colour, shape (N, CELLS²) int8: of the object whose square covers most of the cell, 0 where none covers a
    tenth. place (N, CELLS², 3) float16: that object's centre as seen from the cell's, and its radius, in
    cells.
    """
    colour = np.zeros((len(scenes), CELLS * CELLS), np.int8)
    shape, place = np.zeros_like(colour), np.zeros((*colour.shape, 3), np.float16)
    for row, scene in enumerate(scenes):
        covers = np.stack([_cover(t.x, t.y, t.radius) for t in scene.things])
        main = covers.argmax(0)
        covered = covers.max(0) > 0.1
        known = np.array(
            [(_COLOUR_INDEX[t.colour], _SHAPE_INDEX[t.shape], t.x, t.y, t.radius) for t in scene.things]
        )[main]
        x, y = np.tile(_MIDDLES, CELLS), np.repeat(_MIDDLES, CELLS)
        places = np.stack([known[:, 2] - x, known[:, 3] - y, known[:, 4]], 1) / _STEP
        colour[row], shape[row] = known[:, 0] * covered, known[:, 1] * covered
        place[row] = places * covered[:, None]
    return {name: torch.from_numpy(a) for name, a in (("colour", colour), ("shape", shape), ("place", place))}


def _cover(x: float, y: float, radius: float) -> NDArray[np.float64]:
    """Share of each cell, row-major, that lies in the square around an object."""
    across, down = (
        np.minimum(_MIDDLES + _STEP / 2, centre + radius) - np.maximum(_MIDDLES - _STEP / 2, centre - radius)
        for centre in (x, y)
    )
    return np.outer(down.clip(0), across.clip(0)).ravel() / _STEP**2


class CellHead(nn.Module):
    """One linear layer over image tokens (B, CELLS², width): what lies in each cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, sum(_WIDTHS))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, CELLS², width) to (B, CELLS², all targets' logits)."""
        told: Tensor = self.proj_out(self.norm(tokens))
        return told


def cell_loss(told: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of colours and shapes, and the distance of places where an object is; a scalar."""
    colour, shape, place = told.float().split(_WIDTHS, -1)
    covered = batch["colour"] > 0
    return (
        F.cross_entropy(colour.flatten(0, 1), batch["colour"].flatten().long())
        + F.cross_entropy(shape.flatten(0, 1), batch["shape"].flatten().long())
        + F.smooth_l1_loss(place[covered], batch["place"][covered].float(), beta=0.1)
    )
