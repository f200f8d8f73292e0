"""What the few-step experiment adds to the paper's algorithm: rewards with a reach.

With few steps a generator lays out the whole picture in the first. By eq. 4 a location then gains where an
object with a defect shrinks or moves away from it, as the box goes with the object, whatever comes of that
elsewhere. With a reach each location answers for every defect that its own noise may have caused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sdg.alignment.arrays import defect_table
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.reward_map import maps_by_type
from sdg.defects import BOX_SCALE, Defect
from sdg.errors import SdgError
from sdg.geometry import rasterize


def reach_weights(
    defect_sets: Sequence[Sequence[Defect] | None], grid: tuple[int, int], reach: float
) -> tuple[Tensor, Tensor]:
    """W_art and W_mis with a reach, each (B, H, W) float32 on the CPU; NaN where a set is None.

    W_art is the sum of importance/100 of the artifacts whose boxes, wider by `reach` (a share of the
    picture's width and height, 0–1) on every side, touch a cell; W_mis, everywhere alike, that of all
    misalignments: what is missing may have been given up anywhere. A defect without an importance weighs 1.
    """
    if not 0 <= reach <= 1:
        raise ValueError(f"A reach is a share of the picture, from 0 to 1, not {reach}.")
    table = defect_table(defect_sets)
    total = torch.zeros(2 * len(defect_sets), *grid)
    if len(table):
        wide = table[:, 2:] + np.array([-1, -1, 1, 1]) * round(reach * BOX_SCALE)
        wide[table[:, 0] % 2 == 1] = (0, 0, BOX_SCALE, BOX_SCALE)
        painted = torch.from_numpy(rasterize(wide.clip(0, BOX_SCALE), grid))
        weight = torch.from_numpy(table[:, 1]).float() / 100
        total.index_add_(0, torch.from_numpy(table[:, 0]), painted * weight[:, None, None])
    return maps_by_type(total, defect_sets)


def check_levels(recipe: AlignRecipe, levels: Sequence[float]) -> None:
    """Raise SdgError where a step is to be trained at whose noise level the adapter does not act."""
    for step in recipe.sampling.sde_steps:
        if levels[step] <= recipe.few_step.lora_above:
            raise SdgError(
                f"Step {step} of sampling.sde_steps is at noise level {levels[step]:.3f}, and by "
                f"few_step.lora_above the adapter acts above {recipe.few_step.lora_above}; change either."
            )
