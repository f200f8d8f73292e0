"""The precision of autocast follows what the processor can do."""

import pytest
import torch

from sdg.models.device import cpu_autocast, cpu_autocast_dtype


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
