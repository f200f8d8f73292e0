"""A Qwen3-VL small enough to be taught six pictures in seconds, saved as released checkpoints are.

Its answers are real responses, different for each picture, so that tests compare diagnoses and not noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tiny_qwen3vl import tiny_model, tiny_processor
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from sdg import Defect, Diagnosis, render_response
from sdg.prompting import Generation, ImageLimits, PromptProfile
from sdg.testbed.models.detector.build import new_tokenizer

PROFILE = PromptProfile(
    name="toy",
    system="",
    template="caption : {caption}",
    image=ImageLimits(max_pixels=64 * 64),
    generation=Generation(max_new_tokens=96),
)

COLOURS = ("red", "green", "blue", "white", "black", "yellow")
PROMPTS = tuple(f"a {colour} picture" for colour in COLOURS)

_REASONS = ("the corner is torn", "the edge bleeds", "it is not what was asked for")


def truth(index: int) -> Diagnosis:
    """What the toy is taught to say of picture `index`: 0, 1 or 2 defects, long and short."""
    defects = [
        Defect(
            (100 * place + 7 * index, 50 * index, 500 + 80 * place, 600 + 60 * index),
            "artifact" if place else "misalignment",
            _REASONS[(index + place) % 3],
            10 + 15 * index,
        )
        for place in range(index % 3)
    ]
    return Diagnosis(tuple(defects), f"I see {COLOURS[index]} .", raw="")


def picture(index: int) -> Image.Image:
    """Picture `index`: one colour, of a shape of its own, so that batches hold inputs of unequal length."""
    return Image.new("RGB", (32 + 16 * (index % 3), 32 + 16 * (index // 3)), COLOURS[index])


def _model(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    model = tiny_model(tokenizer)
    # As real checkpoints come: made for chat. A detector that lets this leak in is not greedy.
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    model.generation_config.top_k = 50
    return model


def build(folder: Path, steps: int = 100) -> None:
    """Teach the toy its six pictures and save it with its profile."""
    responses = [render_response(truth(index)) for index in range(len(COLOURS))]
    tokenizer = new_tokenizer([*responses, *PROMPTS, str(PROFILE.template)])
    processor, model = tiny_processor(tokenizer), _model(tokenizer)
    if not steps:
        _stir(model)
    batch = _batch(processor, responses)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, 2 * (steps - step) / steps)
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    PROFILE.save(folder)


def _stir(model: Qwen3VLForConditionalGeneration) -> None:
    """Larger weights, so that an untaught toy says something else of each picture."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_tokens" not in name:
                weight.mul_(12.0)


def _batch(processor: Qwen3VLProcessor, responses: list[str]) -> Any:
    texts = [
        processor.apply_chat_template(PROFILE.render(prompt), tokenize=False, add_generation_prompt=True)
        + response
        + "<|im_end|>"
        for prompt, response in zip(PROMPTS, responses, strict=True)
    ]
    images = [picture(index) for index in range(len(COLOURS))]
    batch = processor(images=images, text=texts, padding=True, padding_side="right", return_tensors="pt")
    labels = batch["input_ids"].clone()
    labels[batch["attention_mask"] == 0] = -100
    starts = processor.tokenizer(["<|im_start|>assistant\n"])["input_ids"][0]
    for row in labels:
        ids = row.tolist()
        start = next(i for i in range(len(ids)) if ids[i : i + len(starts)] == starts) + len(starts)
        row[:start] = -100
    batch["labels"] = labels
    return batch
