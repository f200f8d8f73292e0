"""The measurement that a training signal is judged by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scripts import load
from toy import RECIPES, small

from sdg.alignment.losses import nft_loss
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rollout import Purpose, Score, noise_seed
from sdg.defects import Defect, DefectType, Diagnosis
from sdg.recipes import load_recipe

by_signal = load("alignment_signals")


def test_what_independent_gradients_share_is_told_from_their_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    signal, other = torch.randn(2, 400, generator=generator)
    noise, more = 3 * torch.randn(2, 60, 400, generator=generator)
    # Of a gradient's square a tenth is signal. The judge's gradient points half into the same direction.
    found = by_signal.likeness("both", signal + noise, (signal + other) / 2**0.5 + more)
    assert found.own == pytest.approx(0.1, abs=4 * found.own_error)
    assert found.judge == pytest.approx(0.1 / 2**0.5, abs=4 * found.judge_error)
    none = by_signal.likeness("none", noise, more)
    assert abs(none.own) < 4 * none.own_error < 0.01
    assert abs(none.judge) < 4 * none.judge_error < 0.01


def test_a_judge_of_the_opposite_opinion_is_below_nothing() -> None:
    signal = torch.ones(8, 5)
    assert by_signal.likeness("signal", signal, -signal).judge == pytest.approx(-1)


def test_a_signal_without_a_gradient_shares_nothing() -> None:
    still = by_signal.likeness("signal", torch.zeros(4, 3), torch.zeros(4, 3))
    assert (still.own, still.judge) == (0, 0)


def test_the_error_of_a_single_pair_is_unknown_and_not_0() -> None:
    found = by_signal.likeness("signal", torch.eye(2, 3), torch.ones(2, 3))
    assert found.own == 0
    assert found.own_error != found.own_error


def test_a_signal_of_some_defects_is_that_of_pictures_with_no_others() -> None:
    recipe = load_recipe(AlignRecipe, RECIPES / "boxflow-testbed.yaml")
    small_, large = (0, 0, 200, 400), (0, 0, 500, 500)
    artifact, misalignment = DefectType.ARTIFACT, DefectType.MISALIGNMENT
    found = [
        [Defect(small_, artifact, "torn", 60)],
        [Defect(large, misalignment, "absent", 80), Defect(large, artifact, "melted", 40)],
        [],
        [Defect(small_, misalignment, "wrong", 20)],
    ]
    groups, grid = torch.tensor([0, 0, 0, 0]), (4, 4)

    def scores(defects: Sequence[Sequence[Defect]]) -> list[Score]:
        return [Score(float(i), Diagnosis(tuple(of))) for i, of in enumerate(defects)]

    def by_eq_4(keep: Callable[[Defect], bool]) -> torch.Tensor:
        known = by_signal.signals(recipe, scores([list(filter(keep, of)) for of in found]), groups, grid)
        return known["eq. 4"]

    told = by_signal.signals(recipe, scores(found), groups, grid)
    assert torch.equal(told["its artifacts"], by_eq_4(lambda defect: defect.type is artifact))
    assert torch.equal(told["its misalignments"], by_eq_4(lambda defect: defect.type is misalignment))
    assert torch.equal(told["its boxes below 10%"], by_eq_4(lambda defect: defect.box == small_))
    assert torch.equal(told["its boxes from 10%"], by_eq_4(lambda defect: defect.box == large))
    assert told["base reward"].shape == told["number of defects"].shape == (4,)
    assert told["number of defects"].sign().tolist() == [0, -1, 1, 0]
    assert told["eq. 4"].std((1, 2)).max() > 0.1


def test_on_the_forward_process_gradients_are_what_nft_begins_with() -> None:
    recipe = load_recipe(AlignRecipe, RECIPES / "boxflow-nft-testbed.yaml", ["sampling.sde_steps=[4]"])
    layer, level = torch.nn.Linear(3, 3), 0.6
    policy = SimpleNamespace(
        sigmas=lambda steps: torch.full((steps + 1,), level),
        noise=lambda generators: torch.stack([torch.randn(5, 3, generator=one) for one in generators]),
        velocity=lambda x, t, prompts: layer(x),
        channel_dim=-1,
    )
    x_0, advantages = torch.randn(4, 5, 3), torch.randn(4, 5)
    batch = SimpleNamespace(final=x_0, prompts=("a",) * 4)
    (quantity,) = by_signal.raised(recipe, policy, batch, range(4), 0)
    (ours,) = torch.autograd.grad((advantages * quantity).mean(), layer.weight)

    seeds = [noise_seed(recipe.seed, Purpose.FORWARD, 0, row, 4) for row in range(4)]
    noise = torch.stack([torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    x_t = (1 - level) * x_0 + level * noise
    limit = float(advantages.abs().max())
    r = (0.5 + advantages / (2 * limit))[:, None]
    loss = nft_loss(layer(x_t), layer(x_t).detach(), x_t, x_0, level, r, 1.0, limit)
    (nft,) = torch.autograd.grad(loss, layer.weight)
    torch.testing.assert_close(ours, -nft)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("boxflow", ("base reward", "eq. 4", "judge")),
        ("boxflow-nft", ("number of defects", "eq. 4", "judge")),
    ],
)
def test_every_signal_is_measured(
    method: str,
    rows: Sequence[str],
    checkpoints: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = str(RECIPES / "boxflow-flux1-dev.yaml")
    options = small(checkpoints, optimizer__steps=2, method=method)
    monkeypatch.setattr(sys, "argv", ["script.py", recipe, *options, "--epochs", "2"])
    by_signal.main()
    said = capsys.readouterr().out
    assert all(row in said for row in rows)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--set", "monitor.judges=[]", "--set", "monitor.best=null"])
    with pytest.raises(SystemExit, match=r"monitor\.judges is empty"):
        by_signal.main()
