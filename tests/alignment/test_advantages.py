"""Group-relative advantages of eq. 5 against hand-worked groups and a loop over groups in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.alignment.advantages import group_deviations, scalar_advantages, spatial_advantages


@st.composite
def batches(draw):
    rows = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (rows, draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    maps = rng.normal(draw(st.sampled_from([0.0, 3.0, -50.0])), 1.0, shape)
    groups = rng.integers(-(2**40), 2**40, 4)[rng.integers(0, 4, rows)]
    return torch.from_numpy(maps), torch.from_numpy(groups), torch.from_numpy(rng.random(rows) < 0.8)


def looped_advantages(maps, groups, valid, eps):
    """Equation 5 one group and one location at a time."""
    out = np.zeros_like(maps)
    for group in set(groups.tolist()):
        rows = [i for i in range(len(maps)) if groups[i] == group and valid[i]]
        if len(rows) < 2:
            continue
        for location in np.ndindex(maps.shape[1:]):
            values = np.array([maps[(i, *location)] for i in rows])
            for i, value in zip(rows, values, strict=True):
                out[(i, *location)] = (value - values.mean()) / (values.std(ddof=1) + eps)
    return out


def test_worked_example_of_equation_5():
    # One group of three on a 1×2 grid: 1, 2, 3 at the left (deviation 1), 0, 0, 6 at the right (√12).
    maps = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[3.0, 6.0]]], dtype=torch.float64)
    advantages = spatial_advantages(maps, torch.tensor([4, 4, 4]), eps=0.5)
    right = 12**0.5 + 0.5
    expected = [[[-1 / 1.5, -2 / right]], [[0.0, -2 / right]], [[1 / 1.5, 4 / right]]]
    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=60)
@given(batches())
def test_equals_a_loop_over_groups_and_locations(batch):
    maps, groups, valid = batch
    expected = looped_advantages(maps.numpy(), groups.numpy(), valid.numpy(), 1e-6)
    actual = spatial_advantages(maps, groups, valid)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-9)


@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_names_of_groups_do_not_matter(batch, random):
    maps, groups, valid = batch
    order = torch.tensor(random.sample(range(len(maps)), len(maps)))
    straight = spatial_advantages(maps, groups, valid)[order]
    shuffled = spatial_advantages(maps[order], -7 - groups[order], valid[order])
    torch.testing.assert_close(shuffled, straight, rtol=1e-9, atol=1e-9)


@given(batches())
def test_invalid_rows_change_nothing_and_get_zero(batch):
    maps, groups, valid = batch
    poisoned = torch.where(valid[:, None, None], maps, torch.nan)
    advantages = spatial_advantages(poisoned, groups, valid)
    assert (advantages[~valid] == 0).all()
    if valid.any():
        alone = spatial_advantages(maps[valid], groups[valid])
        torch.testing.assert_close(advantages[valid], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [2, 3, 7, 16, 48])
@pytest.mark.parametrize("value", [0.1, 0.7, -1 / 3, 1e-9, 123456.789])
def test_a_constant_group_gets_exactly_zero(dtype, size, value):
    maps = torch.full((size, 2, 2), value, dtype=dtype)
    assert (spatial_advantages(maps, torch.zeros(size, dtype=torch.long), eps=1e-12) == 0).all()
    assert (group_deviations(maps, torch.zeros(size, dtype=torch.long))[1] == 0).all()


def test_a_large_common_offset_does_not_drown_a_small_difference():
    small = torch.tensor([0.0, 1e-3, 3e-3], dtype=torch.float64)
    groups = torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(
        scalar_advantages(small + 1e6, groups), scalar_advantages(small, groups), rtol=1e-6, atol=0
    )


def test_fewer_than_two_valid_rows_give_zero():
    maps = torch.tensor([5.0, 6.0, 7.0, 8.0]).view(4, 1, 1).expand(4, 2, 2)
    valid = torch.tensor([True, True, False, False])
    advantages = spatial_advantages(maps, torch.tensor([0, 1, 1, 2]), valid)
    assert (advantages == 0).all()


def test_no_rows_give_no_advantages():
    assert spatial_advantages(torch.zeros(0, 2, 2), torch.zeros(0, dtype=torch.long)).shape == (0, 2, 2)


@given(batches())
def test_a_constant_map_has_exactly_the_scalar_advantage(batch):
    maps, groups, valid = batch
    rewards = maps[:, 0, 0].float()
    constant = rewards.view(-1, 1, 1).expand(-1, 3, 4)
    scalar = scalar_advantages(rewards, groups, valid)
    assert torch.equal(spatial_advantages(constant, groups, valid), scalar.view(-1, 1, 1).expand(-1, 3, 4))


def test_scalar_advantages_are_clamped_on_request_only():
    rewards = torch.cat([torch.zeros(63), torch.ones(1)])
    groups = torch.zeros(64, dtype=torch.long)
    assert scalar_advantages(rewards, groups).max() > 5
    assert scalar_advantages(rewards, groups, limit=5.0).max() == 5


def test_a_valid_row_that_is_not_finite_is_refused():
    maps = torch.zeros(2, 1, 1)
    maps[1] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        spatial_advantages(maps, torch.tensor([0, 0]))


@pytest.mark.parametrize(
    ("maps", "groups", "valid"),
    [
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.long), None),
        (torch.zeros(2, 1, 1), torch.zeros(3, dtype=torch.long), None),
        (torch.zeros(2, 1, 1), torch.zeros(2), None),
        (torch.zeros(2, 1, 1, dtype=torch.long), torch.zeros(2, dtype=torch.long), None),
        (torch.zeros(2, 1, 1), torch.zeros(2, dtype=torch.long), torch.ones(2)),
        (torch.zeros(2, 1, 1), torch.zeros(2, dtype=torch.long), torch.ones(3, dtype=torch.bool)),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(maps, groups, valid):
    with pytest.raises(ValueError):  # noqa: PT011 (each says something else)
        spatial_advantages(maps, groups, valid)


def test_a_spread_of_the_group_keeps_the_weights_of_locations():
    # Deviations at the left −1, 0, 1 (1), at the right −2, −2, 4 (√12): root mean square √6.5 for both.
    maps = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[3.0, 6.0]]], dtype=torch.float64)
    advantages = spatial_advantages(maps, torch.tensor([4, 4, 4]), eps=0.5, spread="group")
    expected = torch.tensor([[[-1.0, -2.0]], [[0.0, -2.0]], [[1.0, 4.0]]], dtype=torch.float64)
    torch.testing.assert_close(advantages, expected / (6.5**0.5 + 0.5))


@given(batches())
def test_a_spread_of_the_group_is_its_own_and_of_valid_rows_alone(batch):
    maps, groups, valid = batch
    poisoned = torch.where(valid[:, None, None], maps, torch.nan)
    together = spatial_advantages(poisoned, groups, valid, spread="group")
    assert (together[~valid] == 0).all()
    for group in groups.unique():
        rows = (groups == group) & valid
        if rows.sum() < 2:
            assert (together[rows] == 0).all()
            continue
        values = maps[rows].numpy()
        std = np.sqrt(values.var(0, ddof=1).mean())
        np.testing.assert_allclose(
            together[rows].numpy(), (values - values.mean(0)) / (std + 1e-6), rtol=1e-9, atol=1e-9
        )


@settings(max_examples=60)
@given(batches())
def test_a_spread_of_the_epoch_is_one_for_all_groups(batch):
    maps, groups, valid = batch
    found = spatial_advantages(maps, groups, valid, spread="epoch")
    scalars = scalar_advantages(maps[:, 0, 0], groups, valid, spread="epoch")
    if valid.sum() >= 2:
        std = np.sqrt(maps[valid].numpy().var(0, ddof=1).mean())
        plain = maps[valid, 0, 0].numpy().std(ddof=1)
        for group in groups.unique():
            rows = (groups == group) & valid
            values = maps[rows].numpy()
            away = values - values.mean(0) if rows.sum() > 1 else 0 * values
            np.testing.assert_allclose(found[rows].numpy(), away / (std + 1e-6), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(
                scalars[rows].numpy(), away[:, 0, 0] / (plain + 1e-6), rtol=1e-9, atol=1e-9
            )
    assert (found[~valid] == 0).all()
