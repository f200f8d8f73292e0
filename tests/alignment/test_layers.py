"""The measurement that a recipe's layers are chosen by."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from scripts import load
from toy import RECIPES, small

layers = load("alignment_layers")


def test_what_independent_gradients_share_is_told_from_their_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    signal, other = torch.randn(2, 400, generator=generator)
    noise, more = 3 * torch.randn(2, 60, 400, generator=generator)
    # Of a gradient's square a tenth is signal. The judge's gradient points half into the same direction.
    found = layers.likeness("both", signal + noise, (signal + other) / 2**0.5 + more)
    assert found.own == pytest.approx(0.1, abs=4 * found.own_error)
    assert found.judge == pytest.approx(0.1 / 2**0.5, abs=4 * found.judge_error)
    none = layers.likeness("none", noise, more)
    assert abs(none.own) < 4 * none.own_error < 0.01
    assert abs(none.judge) < 4 * none.judge_error < 0.01


def test_a_judge_of_the_opposite_opinion_is_below_nothing() -> None:
    signal = torch.ones(8, 5)
    assert layers.likeness("layer", signal, -signal).judge == pytest.approx(-1)


def test_a_layer_without_a_gradient_shares_nothing() -> None:
    still = layers.likeness("layer", torch.zeros(4, 3), torch.zeros(4, 3))
    assert (still.own, still.judge) == (0, 0)


@pytest.mark.slow
def test_every_linear_layer_is_measured(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(RECIPES / "boxflow-flux1-dev.yaml")
    options = small(checkpoints, optimizer__steps=2)
    monkeypatch.setattr(sys, "argv", ["alignment_layers.py", recipe, *options, "--epochs", "2"])
    layers.main()
    said = capsys.readouterr().out
    assert "single_transformer_blocks.0.attn.to_q" in said
    assert "transformer_blocks.0.ff.net.0.proj" in said
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--set", "monitor.judges=[]", "--set", "monitor.best=null"])
    with pytest.raises(SystemExit, match=r"monitor\.judges is empty"):
        layers.main()
