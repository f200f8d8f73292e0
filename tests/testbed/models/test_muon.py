"""QuickMuon against the polynomial on singular values, and against torch's own Muon."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdg.models.device import cpu_autocast_dtype
from sdg.testbed.models.muon import QuickMuon, orthogonal

COEFFICIENTS = (3.4445, -4.775, 2.0315)
ROUNDING = 1e-4 if cpu_autocast_dtype() is torch.float32 else 0.05


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (7, 7), (1, 4)])
def test_each_singular_value_goes_through_the_polynomial_and_no_vector_changes(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    expected = []
    for matrix in matrices.double():
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        values = values / matrix.norm()
        for _ in range(5):
            a, b, c = COEFFICIENTS
            values = a * values + b * values**3 + c * values**5
        expected.append(left @ values.diag() @ right)
    result = orthogonal(matrices, COEFFICIENTS, 5, 1e-7)
    torch.testing.assert_close(result, torch.stack(expected).float(), rtol=0, atol=ROUNDING)


def test_a_matrix_of_zeros_stays_one():
    assert not orthogonal(torch.zeros(1, 3, 4), COEFFICIENTS, 5, 1e-7).any()


def test_it_steps_as_torchs_muon_does_up_to_rounding():
    def trained(make):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 6, bias=False))
        extra = nn.Parameter(torch.ones(6, 8))  # no gradient: stays
        optimizer = make([*model.parameters(), extra])
        for _ in range(8):
            data = torch.randn(16, 6)
            optimizer.zero_grad()
            (model(data) - data).square().mean().backward()
            optimizer.step()
        assert (extra == 1).all()
        return [p.detach() for p in model.parameters()]

    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}
    ours = trained(lambda weights: QuickMuon(weights, **settings))
    torchs = trained(lambda weights: torch.optim.Muon(weights, adjust_lr_fn="match_rms_adamw", **settings))
    for mine, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0.01)
