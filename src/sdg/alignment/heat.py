"""Heat maps for DenseFlow-GRPO, drawn from the same detections that BoxFlow-GRPO uses.

The method was published with a model that predicts heat maps; drawing them from boxes compares the two
uses of a map, as a reward and as a mask, with everything else equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sdg.alignment.reward_map import batch_defect_weights, defect_weights
from sdg.defects import Defect, Diagnosis
from sdg.geometry import RasterMode


def heat_maps(
    defect_sets: Sequence[Sequence[Defect] | None],
    grid: tuple[int, int],
    kind: Literal["artifact", "misalignment", "both"] = "artifact",
    mode: RasterMode = "touch",
) -> Tensor:
    """H in [0, 1] at each location: W_t of `sdg.alignment.reward_map`, or the larger of the two types.

    defect_sets: B sets of defects, None where the detector failed: NaN in that row, to be left out of the
    loss. The publications do not say which map masks the loss; artifact is our default. Returns (B, H, W).
    """
    artifact, misalignment = batch_defect_weights(defect_sets, grid, mode)
    if kind == "artifact":
        return artifact
    if kind == "misalignment":
        return misalignment
    if kind == "both":
        return torch.maximum(artifact, misalignment)
    raise ValueError(f"Heat shows 'artifact', 'misalignment' or 'both', not {kind!r}.")


CELL: Final = 8
"""Pixels a side of a cell of `drawn_heat`."""


def drawn_heat(
    picture: Image.Image, prompt: str, found: Diagnosis
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Detections as heat maps of artifacts and of misalignments, (h, w) in cells of CELL pixels."""
    grid = (max(1, picture.height // CELL), max(1, picture.width // CELL))
    artifact, misalignment = defect_weights(found.defects, grid)
    return artifact.numpy(), misalignment.numpy()
