"""What the few-step experiment adds: maps with a reach, by brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_maps import defects, grids

from sdg import Defect
from sdg.alignment.reward_map import penalized, reach_weights, spatial_rewards


def brute_force_reach(found, grid, reach):
    """Sums of weights: of artifacts within reach of the cell, and of all misalignments."""
    height, width = grid
    artifact, misalignment = torch.zeros(grid), torch.zeros(grid)
    for d in found:
        weight = 1.0 if d.importance is None else d.importance / 100
        if d.type == "misalignment":
            misalignment += weight
            continue
        x0, y0, x1, y1 = d.box
        for row in range(height):
            for column in range(width):
                # The gap between box and cell on either axis, in thousandths times the number of cells.
                across = max(x0 * width - 1000 * (column + 1), 1000 * column - x1 * width)
                down = max(y0 * height - 1000 * (row + 1), 1000 * row - y1 * height)
                if across < reach * 1000 * width and down < reach * 1000 * height:
                    artifact[row, column] += weight
    return artifact, misalignment


@settings(max_examples=60)
@given(
    st.lists(st.lists(defects, max_size=5), min_size=1, max_size=5),
    grids,
    st.sampled_from([0, 0.125, 0.4, 1]),
)
def test_maps_with_a_reach_equal_their_brute_force(sets, grid, reach):
    maps = reach_weights([*sets, None], grid, reach)
    for image, found in enumerate(sets):
        for ours, expected in zip(maps, brute_force_reach(found, grid, reach), strict=True):
            torch.testing.assert_close(ours[image], expected)
    assert all(weight[-1].isnan().all() for weight in maps)


def test_worked_example_with_a_reach():
    # Four cells in a row, each 250 wide. The first artifact reaches one cell further, the second as well.
    found = [
        Defect((0, 0, 250, 1000), "artifact", importance=40),
        Defect((500, 0, 750, 1000), "artifact", importance=90),
        Defect((750, 0, 1000, 1000), "misalignment", importance=60),
    ]
    reward = penalized(torch.tensor([2.0]), reach_weights([found], (1, 4), 0.25), (0.5, 0.1))
    artifacts = torch.tensor([0.4, 0.4 + 0.9, 0.9, 0.9])
    torch.testing.assert_close(reward[0, 0], 2 - 0.5 * artifacts - 0.1 * 0.6)


def test_what_an_object_gains_by_shrinking():
    # The same flaw on a large and on a small object: by eq. 4 the places between gain by the small one.
    sets = [
        [Defect((250, 0, 1000, 1000), "artifact", importance=80)],
        [Defect((500, 0, 1000, 1000), "artifact", importance=80)],
    ]
    large, small = spatial_rewards(sets, torch.ones(2), (1, 4), 0.5, 0.1)
    assert (small - large).flatten().tolist() == pytest.approx([0, 0.4, 0, 0])
    # With a reach nothing of that is left within the object, and little of it beside it.
    large, small = penalized(torch.ones(2), reach_weights(sets, (1, 4), 0.25), (0.5, 0.1))
    assert (small - large).flatten().tolist() == pytest.approx([0.4, 0, 0, 0])


def test_a_reach_is_a_share():
    with pytest.raises(ValueError, match="share"):
        reach_weights([[]], (2, 2), 1.5)
