"""The most bytes alive at once, against sums by hand, whatever addresses are used again."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from sdg.models.meta import measured

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


@pytest.fixture
def left_behind() -> Iterator[None]:
    """A process in which attention may be computed in bfloat16, as training the small generator does."""
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    yield
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # as it was found
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def test_scores_of_attention_count_in_float32_whatever_the_process_has_allowed(left_behind: None) -> None:
    tokens = torch.empty(1, 1, 1024, 64, device="meta", dtype=torch.bfloat16)
    taken = measured(lambda: functional.scaled_dot_product_attention(tokens, tokens, tokens))
    assert taken.bytes >= 4 * 1024 * 1024


def test_flop_are_those_of_a_product_and_its_gradients():
    weight = torch.empty(64, 32, device="meta", requires_grad=True)

    def compute() -> None:
        (torch.empty(16, 64, device="meta", requires_grad=True) @ weight).sum().backward()
        weight.grad = None

    assert measured(compute).flop == 3 * 2 * 16 * 64 * 32
