"""Generation that drops ended answers, against `generate` of each row alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import toy_qwen3vl as toy
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

from sdg.models import batching as shrinking

pytestmark = pytest.mark.slow

LIMIT = 96


class Loaded:
    """The taught toy, its inputs for pictures in any number, and the rows of each of its passes."""

    def __init__(self, folder: Path) -> None:
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.end = {self.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")}
        config = self.model.generation_config
        config.do_sample, config.temperature, config.top_k = False, None, None
        config.eos_token_id = sorted(self.end)
        self.passes: list[int] = []
        self.model.model.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: self.passes.append(len(kwargs["inputs_embeds"])), with_kwargs=True
        )

    def inputs(self, indices: list[int]) -> dict[str, Any]:
        texts = [
            self.processor.apply_chat_template(
                toy.PROFILE.render(toy.PROMPTS[index]), tokenize=False, add_generation_prompt=True
            )
            for index in indices
        ]
        pictures = [toy.picture(index) for index in indices]
        return dict(
            self.processor(
                images=pictures, text=texts, padding=True, padding_side="left", return_tensors="pt"
            )
        )

    @torch.no_grad()
    def generate(self, indices: list[int], limit: int = LIMIT) -> list[list[int]]:
        """What is written up to each row's end, and the end."""
        self.passes.clear()
        return [
            self.ended(row) for row in shrinking.generate(self.model, self.inputs(indices), self.end, limit)
        ]

    @torch.no_grad()
    def alone(self, index: int, limit: int = LIMIT) -> list[int]:
        inputs, passes = self.inputs([index]), list(self.passes)
        output = self.model.generate(**inputs, max_new_tokens=limit)
        self.passes[:] = passes
        return self.ended(output[0, inputs["input_ids"].shape[1] :].tolist())

    def ended(self, tokens: list[int]) -> list[int]:
        end = next((place + 1 for place, token in enumerate(tokens) if token in self.end), None)
        return tokens[:end]


@pytest.fixture(scope="module")
def loaded(taught: Path) -> Loaded:
    return Loaded(taught)


def test_each_row_is_what_it_is_alone_and_ended_rows_are_dropped(loaded: Loaded) -> None:
    indices = [0, 1, 2, 3, 4, 5, 5, 4, 0, 3, 2, 1, 1, 1, 5, 2]
    alone = {index: loaded.alone(index) for index in range(6)}
    assert len({len(tokens) for tokens in alone.values()}) > 2
    assert loaded.generate(indices) == [alone[index] for index in indices]
    longest = max(len(tokens) for tokens in alone.values())
    assert len(loaded.passes) == longest
    assert loaded.passes == sorted(loaded.passes, reverse=True)
    assert loaded.passes[0] == len(indices)
    assert loaded.passes[-1] < shrinking.SMALLEST


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_the_limit_counts_from_the_prompt_on(loaded: Loaded, limit: int) -> None:
    indices = [0, 3, 0, 3, 2, 5, 4, 1, 2, 5]
    assert loaded.generate(indices, limit) == [loaded.alone(index, limit) for index in indices]
    assert len(loaded.passes) <= limit


def test_small_batches_and_other_families_stay_together(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [0, 2, 3, 5][: shrinking.SMALLEST - 1]
    assert loaded.generate(few) == [loaded.alone(index) for index in few]
    assert set(loaded.passes) == {len(few)}
    many = [0, 1, 2, 3, 4, 5] * 2
    shrunk = loaded.generate(many)
    assert len(set(loaded.passes)) > 1
    monkeypatch.setattr(loaded.model.config, "model_type", "another")
    assert loaded.generate(many) == shrunk
    assert set(loaded.passes) == {len(many)}


def test_a_model_inside_an_adapter_does_the_same(loaded: Loaded) -> None:
    from peft import LoraConfig, get_peft_model

    indices = [0, 1, 2, 3, 4, 5] * 2
    expected, inside = loaded.generate(indices), loaded.model
    loaded.model = get_peft_model(inside, LoraConfig(target_modules=["q_proj"]))
    try:
        assert loaded.generate(indices) == expected
        assert loaded.passes[-1] < len(indices)
    finally:
        loaded.model = loaded.model.unload()
