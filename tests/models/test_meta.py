"""The most bytes alive at once, against sums by hand, whatever addresses are used again."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sdg.models.meta import clip_model, fused_attention, measured

MIB = 2**20


def made() -> torch.Tensor:
    return torch.empty(MIB // 4, device="meta")  # 1 MiB


def test_what_is_freed_is_not_counted_and_what_is_kept_is():
    def one_after_another() -> None:
        for _ in range(50):
            made()

    def together() -> None:
        kept = [made() for _ in range(5)]
        for _ in range(20):
            made()
        assert len(kept) == 5

    assert measured(one_after_another).bytes <= 2 * MIB
    assert measured(together).bytes in (6 * MIB, 7 * MIB)


def test_views_and_what_was_there_before_are_not_counted():
    before = made()
    assert measured(lambda: before.view(2, -1).t()).bytes == 0


def test_flop_are_those_of_a_product_and_its_gradients():
    weight = torch.empty(64, 32, device="meta", requires_grad=True)

    def compute() -> None:
        (torch.empty(16, 64, device="meta", requires_grad=True) @ weight).sum().backward()
        weight.grad = None

    assert measured(compute).flop == 3 * 2 * 16 * 64 * 32


def test_flop_of_layers_and_their_gradients_are_those_that_torch_counts() -> None:
    with torch.device("meta"):
        pictures = torch.empty(2, 3, 32, 32)
        convolutions = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, bias=False), nn.SiLU(), nn.ConvTranspose2d(16, 16, 2, groups=2)
        )
        attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def compute() -> None:
        tokens = convolutions(pictures).flatten(2).transpose(1, 2)
        checkpoint(attention, tokens, use_reentrant=False).sum().backward()
        with torch.no_grad():
            attention(tokens)

    with fused_attention(), FlopCounterMode(display=False) as counter:
        compute()
    assert measured(compute).flop == counter.get_total_flops() > 1e7


def test_attention_is_one_kernel_whatever_the_process_is_set_to() -> None:
    def attend() -> None:
        made = {"device": "meta", "dtype": torch.bfloat16, "requires_grad": True}
        query = torch.empty(2, 4, 256, 64, **made)
        key = torch.empty(2, 2, 192, 64, **made)
        mask = torch.ones(2, 1, 1, 192, dtype=torch.bool)
        functional.scaled_dot_product_attention(
            query, key, key, attn_mask=mask, enable_gqa=True
        ).sum().backward()

    own, allowed = (
        functional.scaled_dot_product_attention,
        torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed(),
    )
    found = []
    try:
        for allow in (False, True):
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(allow)
            found.append(measured(attend))
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(allowed)
    assert found[0] == found[1]
    # Queries times keys and weights times values; backward two products each, and the weights anew.
    assert found[0].flop == 7 * 2 * (2 * 4 * 256 * 192 * 64)
    assert functional.scaled_dot_product_attention is own


def test_known_scorers_have_their_published_sizes() -> None:
    sizes = {"yuvalkirstain/PickScore_v1": 986e6, "openai/clip-vit-large-patch14": 428e6}
    for model, size in sizes.items():
        count = sum(parameter.numel() for parameter in clip_model(model).parameters())
        assert count == pytest.approx(size, rel=0.01)
