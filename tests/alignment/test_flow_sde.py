"""The flow SDE against hand-worked steps, torch's Normal, diffusers, and a flow of known marginals."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch.distributions import Normal

from sdg.alignment.flow_sde import ode_step, sde_step, sigma_schedule, to_grid, to_tokens


def latents(shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def test_worked_example_of_one_step():
    # σ = 0.8, σ' = 0.5, a = 0.5: s = 0.5·√(0.8/0.2) = 1, s²/(2σ) = 0.625, dt = −0.3.
    x, v = torch.tensor([[[2.0]]]), torch.tensor([[[4.0]]])
    step = sde_step(x, v, 0.8, 0.5, 0.5, noise=torch.tensor([[[1.0]]]))
    mean = 2 * (1 - 0.625 * 0.3) + 4 * (1 + 0.625 * 0.2) * -0.3  # 1.625 − 1.35
    assert step.mean.item() == pytest.approx(mean)
    assert step.std.item() == pytest.approx(math.sqrt(0.3))
    assert step.next_x.item() == pytest.approx(mean + math.sqrt(0.3))
    assert step.log_prob.item() == pytest.approx(-0.5 - 0.5 * math.log(2 * math.pi * 0.3))


def test_at_sigma_one_the_next_level_stands_in_unless_told_otherwise():
    x, v, z = latents((1, 2, 3), dtype=torch.float64)
    by_default = sde_step(x, v, 1.0, 0.9, 0.7, noise=z)
    s = 0.7 * math.sqrt(1 / (1 - 0.9))
    assert by_default.std.item() == pytest.approx(s * math.sqrt(0.1))
    torch.testing.assert_close(by_default.mean, x * (1 - s**2 / 2 * 0.1) - 0.1 * v)  # the factor 1−σ is 0
    told = sde_step(x, v, 1.0, 0.9, 0.7, noise=z, sigma_max=0.98)
    assert told.std.item() == pytest.approx(0.7 * math.sqrt(1 / 0.02) * math.sqrt(0.1))


def test_the_first_level_of_a_dpm_solver_is_as_good_as_pure_noise():
    # As SANA-1.5 is published.
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    levels = sigma_schedule(scheduler, 10, 256, uniform=False).tolist()
    assert 0 < 1 - levels[0] < 5e-4
    x, velocity, noise = latents((2, 4, 8))
    first, pure = (sde_step(x, velocity, level, levels[1], 0.7, noise=noise) for level in (levels[0], 1.0))
    assert first.std < levels[1]  # of noise there is no more than the next level has room for
    torch.testing.assert_close(first.std, pure.std, rtol=1e-2, atol=0)
    torch.testing.assert_close(first.next_x, pure.next_x, rtol=0, atol=3e-2)
    # All other levels are taken as they are.
    for now, then in pairwise(levels[1:-1]):
        s = 0.7 * (now / (1 - now)) ** 0.5
        assert float(sde_step(x, velocity, now, then, 0.7, noise=noise).std) == pytest.approx(
            s * (now - then) ** 0.5, rel=1e-5
        )


@pytest.mark.parametrize(("shape", "channel_dim"), [((3, 6, 8), -1), ((3, 8, 2, 5), 1)])
@pytest.mark.parametrize("sigma", [0.73, torch.tensor([0.4, 1.0, 0.73])])
def test_log_probability_is_that_of_torch_normal_averaged_over_channels(shape, channel_dim, sigma):
    x, v, z = latents(shape, dtype=torch.float64)
    step = sde_step(x, v, sigma, 0.3, 0.7, noise=z, channel_dim=channel_dim)
    expected = Normal(step.mean, step.std.expand_as(step.mean)).log_prob(step.next_x).mean(channel_dim)
    torch.testing.assert_close(step.log_prob, expected, rtol=1e-12, atol=1e-12)
    assert step.log_prob.shape == expected.shape


def test_scoring_a_drawn_latent_gives_what_drawing_gave():
    x, v, z = latents((2, 6, 4))
    drawn = sde_step(x, v, 0.6, 0.4, 0.7, noise=z)
    scored = sde_step(x, v, 0.6, 0.4, 0.7, next_x=drawn.next_x)
    for before, after in zip(drawn, scored, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("store", [torch.bfloat16, torch.float16])
def test_a_rounded_latent_is_rounded_before_it_is_scored(store):
    x, v, z = latents((2, 6, 64), dtype=torch.bfloat16)
    drawn = sde_step(x, v, 0.6, 0.4, 0.7, noise=z, store_dtype=store)
    assert drawn.next_x.dtype == store
    assert drawn.log_prob.dtype == torch.float32
    scored = sde_step(x, v, 0.6, 0.4, 0.7, next_x=drawn.next_x)
    assert torch.equal(drawn.log_prob, scored.log_prob)
    # Scoring before rounding would be off by more than the paper's clip range of 1e-4.
    unrounded = sde_step(x, v, 0.6, 0.4, 0.7, noise=z)
    assert (unrounded.log_prob - scored.log_prob).abs().max() > 1e-4


def test_one_level_a_sample_equals_one_sample_at_a_time():
    x, v, z = latents((3, 4, 2, 5), dtype=torch.float64)
    sigma, sigma_next = torch.tensor([1.0, 0.7, 0.2]), torch.tensor([0.8, 0.5, 0.0])
    together = sde_step(x, v, sigma, sigma_next, 0.7, noise=z, channel_dim=1)
    for i in range(3):
        alone = sde_step(
            x[i : i + 1],
            v[i : i + 1],
            sigma[i].item(),
            sigma_next[i].item(),
            0.7,
            noise=z[i : i + 1],
            channel_dim=1,
        )
        torch.testing.assert_close(together.next_x[i : i + 1], alone.next_x)
        torch.testing.assert_close(together.log_prob[i : i + 1], alone.log_prob)


def test_tokens_and_latent_maps_agree():
    x, v, z = latents((2, 4, 3, 5), dtype=torch.float64)
    on_map = sde_step(x, v, 0.6, 0.4, 0.7, noise=z, channel_dim=1)
    tokens = [t.flatten(2).transpose(1, 2) for t in (x, v, z)]
    packed = sde_step(tokens[0], tokens[1], 0.6, 0.4, 0.7, noise=tokens[2])
    torch.testing.assert_close(to_grid(packed.log_prob, (3, 5)), on_map.log_prob)


def test_the_last_step_is_finite():
    x, v, z = latents((1, 2, 3))
    step = sde_step(x, v, 0.1, 0.0, 0.7, noise=z)
    assert step.std > 0
    assert all(part.isfinite().all() for part in step)


def test_the_gradient_reaches_the_velocity_through_the_log_probability_only():
    x, v, z = latents((1, 2, 3), dtype=torch.float64)
    v.requires_grad_()
    drawn = sde_step(x, v, 0.6, 0.4, 0.7, noise=z)
    assert not drawn.next_x.requires_grad

    def score(velocity):
        return sde_step(x, velocity, 0.6, 0.4, 0.7, next_x=drawn.next_x).log_prob

    assert torch.autograd.gradcheck(score, v)
    assert torch.autograd.grad(drawn.log_prob.sum(), v)[0].abs().min() > 0


def gaussian_velocity(x, sigma, mean, deviation):
    """E[ε − x0 | x] of the flow x = (1−σ)·x0 + σ·ε for x0 ~ N(mean, deviation²): exact, and linear in x."""
    variance = (1 - sigma) ** 2 * deviation**2 + sigma**2
    slope = (sigma - (1 - sigma) * deviation**2) / variance
    return -mean + slope * (x - (1 - sigma) * mean)


def marginal_error(steps, noise_level, start=0.9, end=0.1, mean=1.5, deviation=0.4, kind="flow-sde"):
    """Distance of the SDE's mean and variance at `end` from the flow's own, without any sampling.

    The velocity is linear, so each step maps a Gaussian to a Gaussian: mean' = p + q·mean and
    variance' = q²·variance + std², with p and q read off two points.
    """
    m, variance = (1 - start) * mean, (1 - start) ** 2 * deviation**2 + start**2
    levels = torch.linspace(start, end, steps + 1, dtype=torch.float64).tolist()
    points = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    for sigma, sigma_next in pairwise(levels):
        velocity = gaussian_velocity(points, sigma, mean, deviation)
        noise = torch.zeros_like(points)
        step = sde_step(points, velocity, sigma, sigma_next, noise_level, noise=noise, kind=kind)
        p, q = step.mean[0, 0, 0].item(), (step.mean[0, 1, 0] - step.mean[0, 0, 0]).item()
        m, variance = p + q * m, q**2 * variance + step.std.item() ** 2
    true_mean, true_variance = (1 - end) * mean, (1 - end) ** 2 * deviation**2 + end**2
    return abs(m - true_mean), abs(variance - true_variance)


@pytest.mark.parametrize("noise_level", [0.3, 0.7, 1.2])
def test_the_sde_has_the_marginals_of_the_ode(noise_level):
    coarse, fine = marginal_error(200, noise_level), marginal_error(800, noise_level)
    assert max(fine) < 5e-3
    # First-order convergence: a quarter of the step, a quarter of the error.
    for before, after in zip(coarse, fine, strict=True):
        assert after < 0.3 * before + 1e-9


@pytest.mark.parametrize("noise_level", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_large_steps_keep_the_amount_of_noise_with_cps_alone(steps, noise_level):
    # One known picture: the velocity tells it exactly, so that whatever is left over is surplus noise.
    known = {"start": 0.9, "end": 0.3, "deviation": 0.0}
    assert max(marginal_error(steps, noise_level, **known, kind="cps")) < 1e-12
    assert marginal_error(steps, noise_level, **known)[1] > 0.01


def test_worked_example_of_a_step_with_cps():
    # σ = 0.8, σ' = 0.5, a third of a right angle: std = 0.5·sin 30°, and of the old noise 0.5·cos 30° stays.
    x, v = torch.tensor([[[2.0]]]), torch.tensor([[[4.0]]])
    step = sde_step(x, v, 0.8, 0.5, 1 / 3, noise=torch.tensor([[[1.0]]]), kind="cps")
    clean, old = 2 - 0.8 * 4, 2 + 0.2 * 4
    mean = 0.5 * clean + 0.25 * math.sqrt(3) * old
    assert step.mean.item() == pytest.approx(mean)
    assert step.next_x.item() == pytest.approx(mean + 0.25)
    assert step.log_prob.item() == pytest.approx(-0.5 - math.log(0.25) - 0.5 * math.log(2 * math.pi))


def test_cps_without_noise_is_the_ode_and_from_pure_noise_it_is_finite():
    x, v, z = latents((2, 3, 4), dtype=torch.float64)
    still = sde_step(x, v, 0.8, 0.5, 1e-9, noise=z, kind="cps")
    torch.testing.assert_close(still.mean, ode_step(x, v, 0.8, 0.5))
    assert all(part.isfinite().all() for part in sde_step(x, v, 1.0, 0.7, 0.6, noise=z, kind="cps"))


def test_one_level_a_sample_with_cps_too():
    x, v, z = latents((2, 4, 2, 5), dtype=torch.float64)
    sigma, sigma_next = torch.tensor([1.0, 0.7]), torch.tensor([0.8, 0.5])
    together = sde_step(x, v, sigma, sigma_next, 0.7, noise=z, channel_dim=1, kind="cps")
    for i in range(2):
        row = slice(i, i + 1)
        levels = (sigma[i].item(), sigma_next[i].item())
        alone = sde_step(x[row], v[row], *levels, 0.7, noise=z[row], channel_dim=1, kind="cps")
        torch.testing.assert_close(together.next_x[row], alone.next_x)
        torch.testing.assert_close(together.log_prob[row], alone.log_prob)


def test_simulated_samples_have_the_marginals_of_the_flow():
    generator = torch.Generator().manual_seed(3)
    count, mean, deviation = 200_000, 1.5, 0.4
    x = 0.9 * torch.randn(1, count, 1, generator=generator) + 0.1 * (
        mean + deviation * torch.randn(1, count, 1, generator=generator)
    )
    levels = torch.linspace(0.9, 0.3, 61).tolist()
    for sigma, sigma_next in pairwise(levels):
        noise = torch.randn(x.shape, generator=generator)
        x = sde_step(
            x, gaussian_velocity(x, sigma, mean, deviation), sigma, sigma_next, 0.7, noise=noise
        ).next_x
    assert x.mean().item() == pytest.approx(0.7 * mean, abs=0.02)
    assert x.std().item() == pytest.approx(math.hypot(0.7 * deviation, 0.3), abs=0.02)


def test_the_ode_step_is_the_schedulers_own():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(7)
    x, v, _ = latents((2, 6, 4))
    sigmas = scheduler.sigmas.tolist()
    for step in range(7):
        theirs = scheduler.step(v, scheduler.timesteps[step], x, return_dict=False)[0]
        x = ode_step(x, v, sigmas[step], sigmas[step + 1])
        torch.testing.assert_close(x, theirs)


def test_the_ode_step_rounds_to_the_stored_type():
    x, v, _ = latents((2, 6, 4), dtype=torch.bfloat16)
    assert ode_step(x, v, 0.6, 0.4).dtype == torch.float32
    stored = ode_step(x, v, 0.6, 0.4, store_dtype=torch.bfloat16)
    assert torch.equal(stored, ode_step(x, v, 0.6, 0.4).bfloat16())


def flux_scheduler():
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_image_seq_len=256, max_image_seq_len=4096, base_shift=0.5,
        max_shift=1.15,
    )  # fmt: skip


@pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (1024, 0.63), (4096, 1.15)])
def test_the_schedule_carries_the_shift_of_the_resolution(tokens, mu):
    # FLUX.1-dev: mu grows linearly from 0.5 at 256 tokens to 1.15 at 4096; 512² is 1024 tokens.
    scheduler = flux_scheduler()
    before = dict(vars(scheduler))
    sigmas = sigma_schedule(scheduler, 10, tokens)
    uniform = [1 - i / 10 for i in range(10)]
    expected = [math.exp(mu) / (math.exp(mu) + 1 / t - 1) for t in uniform] + [0.0]
    torch.testing.assert_close(sigmas, torch.tensor(expected))
    assert scheduler.timesteps is before["timesteps"]


def test_the_schedule_of_stable_diffusion_3_is_the_schedulers_own():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    sigmas = sigma_schedule(scheduler, 28, 1024, uniform=False)
    scheduler.set_timesteps(28)
    assert torch.equal(sigmas, scheduler.sigmas)


def test_the_grid_follows_the_order_in_which_flux_packs():
    height, width = 3, 5
    where = torch.arange(height * width).view(1, 1, height, width).float()
    latent = where.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(1, 16, -1, -1)
    tokens = FluxPipeline._pack_latents(latent.contiguous(), 1, 16, 2 * height, 2 * width)
    grid = to_grid(tokens, (height, width))
    assert (grid == where[0, 0, :, :, None]).all()
    assert torch.equal(to_tokens(grid), tokens)


def test_tokens_that_do_not_fill_the_grid_are_refused():
    with pytest.raises(ValueError, match="3×4"):
        to_grid(torch.zeros(2, 16), (3, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": None}, "either noise"),
        ({"next_x": torch.zeros(2, 3, 4)}, "either noise"),
        ({"noise_level": 0.0}, "ode_step"),
        ({"sigma": 0.3}, "fall"),
        ({"sigma": 1.1}, "fall"),
        ({"sigma_next": -0.1}, "fall"),
        ({"sigma": torch.tensor([0.6, 0.6, 0.6])}, "one number or 2"),
        ({"sigma": 1.0, "sigma_max": 1.0}, "below 1"),
        ({"velocity": torch.zeros(2, 4, 3)}, "shape"),
        ({"noise": torch.zeros(1, 3, 4)}, "shape"),
        ({"kind": "ddim"}, "flow-sde, cps"),
        ({"kind": "cps", "noise_level": 1.1}, "at most 1"),
        ({"kind": "cps", "sigma_next": 0.0}, "last step"),
    ],
)
def test_arguments_that_make_no_step_are_refused(arguments, message):
    step = {"x": torch.zeros(2, 3, 4), "velocity": torch.zeros(2, 3, 4), "sigma": 0.6, "sigma_next": 0.4}
    step |= {"noise_level": 0.7, "noise": torch.zeros(2, 3, 4)}
    with pytest.raises(ValueError, match=message):
        sde_step(**(step | arguments))
