"""The precision of autocast follows what the processor can do."""

import pytest
import torch

from sdg.models.device import autocast_precision, cpu_autocast, cpu_autocast_dtype


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "dtype"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
        (True, True, torch.bfloat16),
    ],
)
def test_bfloat16_needs_a_unit_that_multiplies_in_it(monkeypatch, avx512_bf16, amx, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert cpu_autocast_dtype() is dtype
    square = torch.eye(4)
    with cpu_autocast():
        assert (square @ square).dtype is dtype


@pytest.mark.parametrize(
    ("asked", "device", "fast", "precision"),
    [
        ("auto", "cpu", True, "bf16"),
        ("auto", "cpu", False, "fp32"),
        ("auto", "cuda", False, "bf16"),
        ("bf16", "cpu", False, "bf16"),
        ("fp32", "cuda", True, "fp32"),
    ],
)
def test_auto_is_bf16_wherever_that_is_fast(monkeypatch, asked, device, fast, precision):
    monkeypatch.setattr(
        "sdg.models.device.cpu_autocast_dtype", lambda: torch.bfloat16 if fast else torch.float32
    )
    assert autocast_precision(asked, device) == precision
