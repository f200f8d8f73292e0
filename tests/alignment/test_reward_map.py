"""The spatial reward of eq. 4 against hand-worked cells and a cell-by-cell brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg import Defect
from sdg.alignment.reward_map import (
    alphas,
    batch_defect_weights,
    defect_weights,
    spatial_reward,
    spatial_rewards,
)

coordinates = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted)
defects = st.builds(
    lambda xs, ys, type, importance: Defect((xs[0], ys[0], xs[1], ys[1]), type, importance=importance),
    coordinates,
    coordinates,
    st.sampled_from(["artifact", "misalignment"]),
    st.none() | st.integers(1, 100),
)
grids = st.tuples(st.integers(1, 7), st.integers(1, 7))


def brute_force_weights(defects, grid, type):
    """The largest weight over the boxes whose inside meets the cell's inside, cell by cell."""
    height, width = grid
    weights = torch.zeros(grid)
    for row in range(height):
        for column in range(width):
            for d in defects:
                x0, y0, x1, y1 = d.box
                across = x0 * width < 1000 * (column + 1) and x1 * width > 1000 * column
                down = y0 * height < 1000 * (row + 1) and y1 * height > 1000 * row
                if d.type == type and across and down:
                    weight = 1.0 if d.importance is None else d.importance / 100
                    weights[row, column] = max(weights[row, column].item(), weight)
    return weights


def test_worked_example_of_equation_4():
    # Two rows of four cells; a cell is 250 wide and 500 high.
    found = [
        Defect((0, 0, 500, 500), "artifact", importance=40),  # cells (0,0), (0,1)
        Defect((250, 0, 500, 1000), "artifact", importance=90),  # cells (0,1), (1,1): the worse one counts
        Defect((250, 500, 1000, 1000), "misalignment", importance=60),  # cells (1,1), (1,2), (1,3)
    ]
    reward = spatial_reward(found, 0.8, (2, 4), alpha_artifact=0.5, alpha_misalignment=0.1)
    expected = [
        [0.8 - 0.5 * 0.4, 0.8 - 0.5 * 0.9, 0.8, 0.8],
        [0.8, 0.8 - 0.5 * 0.9 - 0.1 * 0.6, 0.8 - 0.1 * 0.6, 0.8 - 0.1 * 0.6],
    ]
    torch.testing.assert_close(reward, torch.tensor(expected))


def test_the_reward_of_a_clean_image_is_its_scalar_everywhere():
    assert spatial_reward([], 0.7, (3, 5), 1.0, 1.0).tolist() == torch.full((3, 5), 0.7).tolist()


@pytest.mark.parametrize("grid", [(8, 8), (4, 16), (32, 32), (64, 24)])
def test_a_box_thinner_than_a_cell_still_penalises(grid):
    hair = Defect((501, 100, 502, 900), "artifact", importance=50)
    assert spatial_reward([hair], 1.0, grid, 0.5, 0.05).min().item() == pytest.approx(0.75)
    # The released rule, selectable for parity, loses it.
    assert spatial_reward([hair], 1.0, grid, 0.5, 0.05, mode="truncate").min().item() == 1.0


def test_a_defect_without_importance_weighs_one():
    artifact, misalignment = defect_weights([Defect((0, 0, 1000, 1000), "misalignment")], (2, 2))
    assert misalignment.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert artifact.tolist() == [[0.0, 0.0], [0.0, 0.0]]


@settings(max_examples=60)
@given(st.lists(st.lists(defects, max_size=5), min_size=1, max_size=5), grids)
def test_a_batch_equals_the_brute_force_of_each_image(sets, grid):
    artifact, misalignment = batch_defect_weights(sets, grid)
    for image, found in enumerate(sets):
        torch.testing.assert_close(artifact[image], brute_force_weights(found, grid, "artifact"))
        torch.testing.assert_close(misalignment[image], brute_force_weights(found, grid, "misalignment"))


@given(st.lists(defects, min_size=1, max_size=5), grids, st.randoms(use_true_random=False))
def test_the_order_of_defects_does_not_matter(found, grid, random):
    shuffled = random.sample(found, len(found))
    assert torch.equal(
        spatial_reward(found, 1.0, grid, 0.5, 0.05), spatial_reward(shuffled, 1.0, grid, 0.5, 0.05)
    )


@given(st.lists(defects, max_size=4), defects, grids)
def test_one_more_defect_never_raises_the_reward(found, extra, grid):
    before = spatial_reward(found, 1.0, grid, 0.5, 0.05)
    assert (spatial_reward([*found, extra], 1.0, grid, 0.5, 0.05) <= before).all()
    assert (spatial_reward([extra], 1.0, grid, 0.5, 0.05) < 1).any()


def test_each_image_of_a_batch_has_its_own_scalar_and_weights():
    whole = (0, 0, 1000, 1000)
    sets = [[Defect(whole, "artifact", importance=50)], [Defect(whole, "misalignment", importance=20)]]
    rewards = spatial_rewards(
        sets, torch.tensor([1.0, 2.0]), (1, 1), torch.tensor([0.4, 9.0]), torch.tensor([9.0, 0.5])
    )
    torch.testing.assert_close(rewards.flatten(), torch.tensor([1 - 0.4 * 0.5, 2 - 0.5 * 0.2]))


def test_an_image_without_a_detection_or_a_scalar_is_never_clean():
    rewards = spatial_rewards([None, [], []], torch.tensor([1.0, torch.nan, 3.0]), (2, 2), 0.5, 0.05)
    assert rewards.isnan().flatten(1).all(1).tolist() == [True, True, False]


def test_scalars_must_match_the_images():
    with pytest.raises(ValueError, match="2 images"):
        spatial_rewards([[], []], torch.tensor([1.0]), (2, 2), 0.5, 0.05)
    with pytest.raises(ValueError, match="weight"):
        spatial_rewards([[], []], torch.ones(2), (2, 2), torch.ones(3), 0.05)


def test_penalties_follow_the_sample_deviation_of_each_group():
    rewards = torch.tensor([1.0, 10.0, 2.0, 3.0, 14.0, torch.nan, 5.0])
    groups = torch.tensor([7, -2, 7, 7, -2, -2, 3])
    valid = torch.tensor([True, True, True, True, True, False, True])
    artifact, misalignment = alphas(rewards, groups, valid)
    # Group 7 holds 1, 2, 3: deviation 1. Group −2 holds 10, 14: √8. Group 3 holds one sample: none.
    sigma = torch.tensor([1.0, 8**0.5, 1.0, 1.0, 8**0.5, 8**0.5, 0.0])
    torch.testing.assert_close(artifact, 0.5 * sigma)
    torch.testing.assert_close(misalignment, 0.05 * sigma)
