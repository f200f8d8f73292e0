"""The objective of eq. 6 by hand and against finite differences; the baselines against it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from sdg.alignment.advantages import scalar_advantages, spatial_advantages
from sdg.alignment.flow_sde import sde_step, to_tokens
from sdg.alignment.losses import (
    boxflow_loss,
    denseflow_loss,
    flow_grpo_loss,
    mean_over_valid,
    nft_loss,
    ratio_stats,
    step_kl,
)


def ratios(*values):
    """New and old log-probabilities (1, 1, n) whose ratios are `values`."""
    new = torch.tensor(values, dtype=torch.float64).log().view(1, 1, -1)
    return new, torch.zeros_like(new)


def batch(rows=4, grid=(2, 3), spread=0.3, seed=0):
    """Random new and old log-probabilities and advantages, float64."""
    generator = torch.Generator().manual_seed(seed)
    new, change, advantages = torch.randn(3, rows, *grid, generator=generator, dtype=torch.float64)
    return new, new - spread * change, advantages


def gradient(loss, log_prob):
    log_prob = log_prob.detach().requires_grad_()
    return torch.autograd.grad(loss(log_prob), log_prob)[0]


def test_worked_example_of_equation_6():
    new, old = ratios(1.0, 1.5, 1.5, 0.5, 0.5)
    advantages = torch.tensor([[[2.0, 1.0, -1.0, 1.0, -1.0]]], dtype=torch.float64)
    # min(ρA, clip(ρ, 0.8, 1.2)·A): 2, min(1.5, 1.2), min(−1.5, −1.2), min(0.5, 0.8), min(−0.5, −0.8).
    objective = (2 + 1.2 - 1.5 + 0.5 - 0.8) / 5
    assert boxflow_loss(new, old, advantages, 0.2).item() == pytest.approx(-objective)


@pytest.mark.parametrize("clip", [1e-4, 0.2])
def test_the_gradient_is_a_finite_difference(clip):
    new, old, advantages = batch()
    valid = torch.tensor([True, False, True, True])
    new.requires_grad_()
    assert torch.autograd.gradcheck(lambda lp: boxflow_loss(lp, old, advantages, clip, valid), new)
    heat = advantages.sigmoid()
    assert torch.autograd.gradcheck(
        lambda lp: denseflow_loss(lp, old, advantages[:, 0, 0], heat, clip, valid), new
    )


def test_the_gradient_reaches_a_velocity_through_the_whole_chain():
    generator = torch.Generator().manual_seed(1)
    x, v, z = torch.randn(3, 2, 6, 4, generator=generator, dtype=torch.float64)
    advantages = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    old = sde_step(x, v, 0.6, 0.4, 0.7, noise=z)
    velocity = (v + 0.01 * z).requires_grad_()

    def loss(velocity):
        log_prob = sde_step(x, velocity, 0.6, 0.4, 0.7, next_x=old.next_x).log_prob
        return boxflow_loss(log_prob, old.log_prob, advantages, 0.2)

    assert torch.autograd.gradcheck(loss, velocity)


def test_right_after_a_roll_out_the_gradient_is_minus_the_advantage():
    new, _, advantages = batch()
    expected = -advantages / advantages.numel()
    torch.testing.assert_close(
        gradient(lambda lp: boxflow_loss(lp, new, advantages, 1e-4), new), expected, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 1e-4, 0.3])
def test_a_constant_map_gives_exactly_the_scalar_loss_and_gradient(spread, dtype):
    new, old, _ = (t.to(dtype) for t in batch(rows=6, spread=spread))
    rewards = torch.tensor([0.3, 0.9, 0.1, 0.2, 0.2, 0.7], dtype=dtype)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    maps = rewards.view(-1, 1, 1).expand_as(new)
    spatial, scalar = spatial_advantages(maps, groups), scalar_advantages(rewards, groups)

    def box(log_prob):
        return boxflow_loss(log_prob, old, spatial, 1e-3)

    def flow(log_prob):
        return flow_grpo_loss(log_prob, old, scalar, 1e-3)

    assert torch.equal(box(new), flow(new))
    assert torch.equal(gradient(box, new), gradient(flow, new))


def test_a_heat_of_zero_is_flow_grpo_and_of_one_is_silence():
    new, old, _ = batch()
    advantages = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    cold, hot = torch.zeros_like(new), torch.ones_like(new)
    assert torch.equal(
        denseflow_loss(new, old, advantages, cold, 0.2), flow_grpo_loss(new, old, advantages, 0.2)
    )
    assert (gradient(lambda lp: denseflow_loss(lp, old, advantages, hot, 0.2), new) == 0).all()


def test_a_mask_only_weakens_what_the_scalar_pushes_but_a_spatial_reward_turns_it():
    # Two samples with the same scalar reward, the first with a defect in its left cell.
    new = torch.zeros(2, 1, 2, dtype=torch.float64)
    groups = torch.tensor([0, 0])
    maps = torch.tensor([[[0.5, 1.0]], [[1.0, 1.0]]], dtype=torch.float64)
    spatial = gradient(lambda lp: boxflow_loss(lp, new, spatial_advantages(maps, groups), 0.2), new)
    assert spatial[0, 0, 0] > 0 > spatial[1, 0, 0]  # descent makes the defect less likely, its absence more
    assert (spatial[:, 0, 1] == 0).all()  # and leaves the cell where the samples agree alone
    scalar = scalar_advantages(torch.ones(2, dtype=torch.float64), groups)
    heat = (1 - maps).contiguous()
    assert (gradient(lambda lp: denseflow_loss(lp, new, scalar, heat, 0.2), new) == 0).all()


LOSSES = {
    "boxflow": lambda new, old, a, heat, valid: boxflow_loss(new, old, a, 0.2, valid),
    "flow-grpo": lambda new, old, a, heat, valid: flow_grpo_loss(new, old, a[:, 0, 0], 0.2, valid),
    "denseflow": lambda new, old, a, heat, valid: denseflow_loss(new, old, a[:, 0, 0], heat, 0.2, valid),
}


@pytest.mark.parametrize("method", LOSSES)
@given(flags=st.lists(st.booleans(), min_size=4, max_size=4))
def test_invalid_rows_count_neither_in_the_value_nor_in_the_gradient(method, flags):
    loss, valid = LOSSES[method], torch.tensor(flags)
    new, old, advantages = batch()
    for tensor in (new, old, advantages):
        tensor[~valid] = torch.nan
    rest = old, advantages, advantages.sigmoid()
    kept = [tensor[valid] for tensor in rest]

    grad = gradient(lambda lp: loss(lp, *rest, valid), new)
    assert (grad[~valid] == 0).all()
    if valid.any():
        torch.testing.assert_close(loss(new, *rest, valid), loss(new[valid], *kept, None))
        torch.testing.assert_close(grad[valid], gradient(lambda lp: loss(lp, *kept, None), new[valid]))
    else:
        assert loss(new, *rest, valid) == 0


@pytest.mark.parametrize("split", [1, 4, 6])
def test_processes_with_unequal_valid_counts_average_to_one_process(split):
    new, old, advantages = batch(rows=8)
    valid = torch.tensor([True, False, True, True, False, False, True, True])
    whole = gradient(lambda lp: boxflow_loss(lp, old, advantages, 0.2, valid), new)
    shares = []
    for part in (slice(0, split), slice(split, 8)):

        def loss(lp, part=part):
            return boxflow_loss(lp, old[part], advantages[part], 0.2, valid[part], denominator=5 / 2)

        shares.append(gradient(loss, new[part]) / 2)  # what averaging over two processes leaves of each
    torch.testing.assert_close(torch.cat(shares), whole)


def test_a_process_without_valid_rows_still_has_a_gradient_to_share():
    new, old, advantages = batch(rows=2)
    nothing = torch.zeros(2, dtype=torch.bool)
    grad = gradient(lambda lp: boxflow_loss(lp, old, advantages, 0.2, nothing, denominator=3.5), new)
    assert (grad == 0).all()


def test_tokens_and_grid_give_the_same_loss():
    tensors = batch()
    torch.testing.assert_close(boxflow_loss(*tensors, 0.2), boxflow_loss(*map(to_tokens, tensors), 0.2))


def test_an_exploding_ratio_stays_finite():
    new = torch.full((2, 1, 1), 500.0)
    advantages = torch.tensor([0.0, -1.0]).view(2, 1, 1)
    assert boxflow_loss(new, torch.zeros_like(new), advantages, 0.2).isfinite()
    assert gradient(lambda lp: boxflow_loss(lp, torch.zeros_like(new), advantages, 0.2), new).isfinite().all()


@pytest.mark.parametrize(("shape", "channel_dim"), [((2, 6, 4), -1), ((2, 4, 3, 2), 1)])
def test_the_kl_is_that_of_torch_and_of_the_velocities(shape, channel_dim):
    generator = torch.Generator().manual_seed(2)
    x, v, reference, z = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    sigma, sigma_next, a = 0.6, 0.45, 0.7
    new = sde_step(x, v, sigma, sigma_next, a, noise=z, channel_dim=channel_dim)
    old = sde_step(x, reference, sigma, sigma_next, a, noise=z, channel_dim=channel_dim)
    kl = step_kl(new.mean, old.mean, new.std, channel_dim)
    std = new.std.expand_as(x)
    expected = kl_divergence(Normal(new.mean, std), Normal(old.mean, std)).mean(channel_dim)
    torch.testing.assert_close(kl, expected)
    s = a * math.sqrt(sigma / (1 - sigma))
    weight = (sigma - sigma_next) / 2 * (s * (1 - sigma) / (2 * sigma) + 1 / s) ** 2
    torch.testing.assert_close(kl, weight * (v - reference).square().mean(channel_dim))


def test_a_mean_over_valid_rows_weighs_rows_alike():
    values = torch.tensor([[1.0, 3.0], [10.0, 30.0], [torch.nan, 0.0]])
    valid = torch.tensor([True, True, False])
    assert mean_over_valid(values, valid).item() == 11
    assert mean_over_valid(values, valid, denominator=4).item() == 5.5
    assert mean_over_valid(values[:, 0], valid).item() == 5.5


def test_the_statistics_of_ratios():
    new, old = ratios(1.0, 1.1, 0.8, 1.5)
    new = torch.cat([new, torch.full_like(new, torch.nan)])
    old = torch.cat([old, old])
    stats = ratio_stats(new, old, 0.15, torch.tensor([True, False]))
    assert stats.rows == 1
    assert stats.clip_fraction == 0.5
    assert (stats.ratio_min, stats.ratio_max) == pytest.approx((0.8, 1.5))
    log_ratio_mean = math.log(1.1 * 0.8 * 1.5) / 4
    assert stats.approx_kl == pytest.approx(1.1 - 1 - log_ratio_mean)


def test_the_statistics_of_nothing_are_undefined():
    stats = ratio_stats(torch.zeros(2, 3), torch.zeros(2, 3), 0.1, torch.tensor([False, False]))
    assert stats.rows == 0
    assert math.isnan(stats.approx_kl)


def test_arguments_that_do_not_fit_are_refused():
    new, old, advantages = batch()
    with pytest.raises(ValueError, match="to_grid"):
        boxflow_loss(new, old, to_tokens(advantages), 0.2)
    with pytest.raises(ValueError, match="differ in shape"):
        boxflow_loss(new, old[:1], advantages, 0.2)
    with pytest.raises(ValueError, match="one boolean a row"):
        boxflow_loss(new, old, advantages, 0.2, torch.ones(4))
    with pytest.raises(ValueError, match="positive number"):
        boxflow_loss(new, old, advantages, 0.2, denominator=0)
    with pytest.raises(ValueError, match="4 images"):
        flow_grpo_loss(new, old, advantages, 0.2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        denseflow_loss(new, old, advantages[:, 0, 0], 2 + 0 * new, 0.2)
    with pytest.raises(ValueError, match="Heat maps"):
        denseflow_loss(new, old, advantages[:, 0, 0], to_tokens(new), 0.2)


def forward_process(rows=3, tokens=6, channels=4, seed=0):
    """Random v, v_old, x_t, x_0 (rows, tokens, channels) and t (rows,), float64."""
    generator = torch.Generator().manual_seed(seed)
    x_0, noise, v_old, step = torch.randn(4, rows, tokens, channels, generator=generator, dtype=torch.float64)
    t = torch.rand(rows, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    x_t = (1 - t[:, None, None]) * x_0 + t[:, None, None] * noise
    return v_old + 0.1 * step, v_old, x_t, x_0, t


def test_worked_example_of_the_forward_process():
    # One location of one channel: x̂⁺ = 1 − .5·(.5·2 + .5·0) = .5, x̂⁻ = 1 − .5·(1.5·0 − .5·2) = 1.5.
    v, v_old, x_t, x_0 = (torch.full((1, 1, 1), value, dtype=torch.float64) for value in (2.0, 0.0, 1.0, 0.0))
    loss = nft_loss(v, v_old, x_t, x_0, 0.5, torch.tensor([0.8]), 0.5, 5.0)
    # Each square over its own |x̂ − x_0|: .8·.5²/.5 + .2·1.5²/1.5, times 5/.5.
    assert loss.item() == pytest.approx((0.8 * 0.5 + 0.2 * 1.5) * 10)


def test_nft_is_what_a_loop_over_locations_gives():
    v, v_old, x_t, x_0, t = forward_process()
    r = torch.rand(3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    beta, limit = 0.7, 4.0
    rows = []
    for row in range(3):
        total = 0.0
        for sign, share in ((1, r[row]), (-1, 1 - r[row])):
            mixed = (
                beta * v[row] + (1 - beta) * v_old[row]
                if sign > 0
                else (1 + beta) * v_old[row] - beta * v[row]
            )
            distance = x_t[row] - t[row] * mixed - x_0[row]
            weight = sum(abs(float(value)) for value in distance.flatten()) / distance.numel()
            for place in range(6):
                square = sum(float(value) ** 2 for value in distance[place]) / 4
                total += float(share[place // 3, place % 3]) * square / weight / 6
        rows.append(total * limit / beta)
    found = nft_loss(v, v_old, x_t, x_0, t, r, beta, limit)
    assert found.item() == pytest.approx(sum(rows) / 3, rel=1e-12)
    valid = torch.tensor([True, False, True])
    x_0[1] = torch.nan
    found = nft_loss(v, v_old, x_t, x_0, t, r, beta, limit, valid)
    assert found.item() == pytest.approx((rows[0] + rows[2]) / 2, rel=1e-12)


def test_nft_learns_nothing_where_every_picture_is_average_and_nothing_has_changed():
    _, v_old, x_t, x_0, t = forward_process()
    grad = gradient(lambda v: nft_loss(v, v_old, x_t, x_0, t, torch.full((3,), 0.5), 1.0, 5.0), v_old)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-15)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_nft_at_the_old_policy_is_advantage_weighted_flow_matching(beta):
    _, v_old, x_t, x_0, t = forward_process()
    r = torch.rand(3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    level = t[:, None, None]
    weight = (x_t - level * v_old - x_0).abs().mean((1, 2), keepdim=True)

    def matching(v):
        error = (x_t - level * v - x_0).square().mean(-1) / weight[..., 0]
        return ((2 * r.flatten(1) - 1) * error).mean() * 5.0

    found = gradient(lambda v: nft_loss(v, v_old, x_t, x_0, t, r, beta, 5.0), v_old)
    torch.testing.assert_close(found, gradient(matching, v_old), rtol=1e-10, atol=1e-15)


def test_a_constant_map_is_one_probability_a_picture_in_either_layout():
    v, v_old, x_t, x_0, t = forward_process()
    r = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    scalar = nft_loss(v, v_old, x_t, x_0, t, r, 0.5, 5.0)
    spread = r.view(3, 1, 1).expand(3, 2, 3)
    torch.testing.assert_close(nft_loss(v, v_old, x_t, x_0, t, spread, 0.5, 5.0), scalar)
    grids = [each.view(3, 2, 3, 4).permute(0, 3, 1, 2) for each in (v, v_old, x_t, x_0)]
    varied = spread * torch.linspace(0.1, 1, 6, dtype=torch.float64).view(2, 3)
    torch.testing.assert_close(
        nft_loss(*grids, t, varied, 0.5, 5.0, channel_dim=1),
        nft_loss(v, v_old, x_t, x_0, t, varied, 0.5, 5.0),
    )


def test_nft_refuses_what_does_not_fit():
    v, v_old, x_t, x_0, t = forward_process()
    with pytest.raises(ValueError, match="differ in shape"):
        nft_loss(v, v_old[:, :3], x_t, x_0, t, torch.full((3,), 0.5), 1.0, 5.0)
    with pytest.raises(ValueError, match="a row or a location"):
        nft_loss(v, v_old, x_t, x_0, t, torch.full((3, 5), 0.5), 1.0, 5.0)
    with pytest.raises(ValueError, match="above 0"):
        nft_loss(v, v_old, x_t, x_0, t, torch.full((3,), 0.5), 0.0, 5.0)
