"""Early-finish batching: a finished answer leaves its batch, which need not wait for the longest."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import torch
from torch import Tensor

SMALLEST: Final = 8
"""Smaller batches are left as they are: what a step costs hardly depends on so few rows."""

_FAMILIES: Final = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Of models whose only states of a row, between two tokens, are keys and values and `rope_deltas`."""


def generate(model: Any, inputs: dict[str, Any], end: Collection[int], limit: int) -> list[list[int]]:
    """The tokens that `model.generate` writes for each row of `inputs`, at most `limit`, ends included.

    Each time a quarter of the rows have ended, the others go on by themselves, from the same keys and values.
    Rows of models not known to allow that stay together. Tokens behind an end are of no meaning.

    inputs: input_ids and attention_mask (B, L), left-padded, and what the processor made of the pictures.
    """
    rows = len(inputs["input_ids"])
    compacts = getattr(model.config, "model_type", "") in _FAMILIES
    written: list[list[int]] = [[] for _ in range(rows)]
    live, prompt = torch.arange(rows), inputs["input_ids"].shape[1]
    sequences, mask = inputs["input_ids"], inputs["attention_mask"]
    state = {key: value for key, value in inputs.items() if key not in ("input_ids", "attention_mask")}
    while True:
        watched = compacts and len(live) >= SMALLEST
        output = model.generate(
            input_ids=sequences,
            attention_mask=mask,
            **state,
            max_new_tokens=limit - (sequences.shape[1] - prompt),
            stopping_criteria=[_quarter_ended(end)] if watched else [],
            return_dict_in_generate=True,
        )
        sequences = output.sequences
        for row, tokens in zip(live.tolist(), sequences[:, prompt:].tolist(), strict=True):
            written[row] = tokens
        # By what is there: on some devices the criterion has seen a token more, which is taken back.
        keep = (~_ends(sequences[:, prompt:], end).any(dim=1)).nonzero()[:, 0]
        if not watched or not len(keep) or sequences.shape[1] - prompt >= limit:
            return written
        new = torch.ones(len(live), sequences.shape[1] - mask.shape[1], dtype=mask.dtype, device=mask.device)
        mask = torch.cat([mask, new], dim=1)[keep]
        live, sequences = live[keep.cpu()], sequences[keep]
        output.past_key_values.batch_select_indices(keep)
        for module in model.modules():
            # Of its own: wrappers, such as an adapter's, hand attributes of the model inside through.
            if isinstance(deltas := vars(module).get("rope_deltas"), Tensor):
                module.rope_deltas = deltas[keep]
        state = {"past_key_values": output.past_key_values}


def _ends(tokens: Tensor, end: Collection[int]) -> Tensor:
    return torch.isin(tokens, torch.tensor(sorted(end), device=tokens.device))


def _quarter_ended(end: Collection[int]) -> Callable[..., Tensor]:
    """Stops a batch once a quarter of its rows have written an end token."""
    ended: Tensor | None = None

    def done(sequences: Tensor, scores: Any, **options: Any) -> Tensor:
        nonlocal ended
        now = _ends(sequences[:, -1], end)
        ended = now if ended is None else ended | now
        return torch.full_like(now, bool(4 * ended.sum() >= len(now)))

    return done
