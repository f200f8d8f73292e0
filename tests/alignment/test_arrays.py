"""The hook of numpy arrays against the torch functions that the trainer uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdg.alignment.advantages import spatial_advantages
from sdg.alignment.arrays import numpy_advantages, weight_maps
from sdg.alignment.reward_map import alphas, batch_defect_weights, spatial_rewards
from sdg.defects import Defect

GRID = (5, 7)


def _sets(rng: np.random.Generator, count: int) -> list[list[Defect] | None]:
    sets: list[list[Defect] | None] = []
    for _ in range(count):
        corners = [np.sort(rng.choice(1001, (2, 2), replace=False), axis=0).T for _ in range(rng.integers(4))]
        sets.append(
            [
                Defect((int(x[0]), int(y[0]), int(x[1]), int(y[1])), kind, "why", int(rng.integers(1, 101)))
                for (x, y), kind in zip(corners, ("artifact", "misalignment", "artifact"), strict=False)
                if x[0] < x[1] and y[0] < y[1]
            ]
        )
    sets[2] = None
    return sets


def test_advantages_are_those_of_the_trainer() -> None:
    rng = np.random.default_rng(4)
    sets, groups = _sets(rng, 12), np.array([3, 1] * 6)
    rewards = rng.normal(size=12)
    maps = weight_maps(sets, GRID)
    for ours, theirs in zip(maps, batch_defect_weights(sets, GRID), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    found = numpy_advantages(rewards, *maps, groups)
    scalars, ids = torch.from_numpy(rewards), torch.from_numpy(groups)
    valid = torch.tensor([one is not None for one in sets])
    art, mis = alphas(scalars, ids, valid)
    wanted = spatial_advantages(spatial_rewards(sets, scalars, GRID, art, mis), ids, valid)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    assert (found[2] == 0).all()


def test_a_group_that_agrees_gets_exactly_nothing_and_shapes_are_checked() -> None:
    nothing = np.zeros((3, 2, 2))
    assert (numpy_advantages([0.1, 0.1, 0.1], nothing, nothing, [0, 0, 0]) == 0).all()
    with pytest.raises(ValueError, match="Maps are"):
        numpy_advantages([0.1, 0.1, 0.1], nothing[:2], nothing, [0, 0, 0])
    with pytest.raises(ValueError, match="integer groups"):
        numpy_advantages([0.1, 0.1, 0.1], nothing, nothing, [0.0, 0.0, 0.0])
