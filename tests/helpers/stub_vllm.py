"""Stands in for vLLM in TRL's trainer: expands the picture's token as vLLM does, and samples by the model.

It computes each completion alone, without padding and without the trainer's batches, so that its
log-probabilities are a second opinion on those that the trainer scores.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch


class StubVllm:
    """In place of `trl.trainer.grpo_trainer.VLLMGeneration`; `calls` are those of all instances."""

    calls: ClassVar[list[dict[str, Any]]] = []
    extra = 0
    """Places that its processor of pictures finds above those of the checkpoint's."""

    def __init__(self, *, model: Any, processing_class: Any, mode: str, **settings: Any) -> None:
        self.model, self.processor, self.mode = model, processing_class, mode
        self.temperature, self.top_p = settings["temperature"], settings["top_p"]
        self.max_completion_length = settings["max_completion_length"]
        self.generation_kwargs = settings["generation_kwargs"] or {}
        self.synchronised = 0

    def sync_weights(self) -> None:
        self.synchronised += 1

    def generate(
        self, prompts: list[list[int]], images: list[list[Any]], num_generations: int
    ) -> tuple[list[list[int]], list[list[int]], list[list[list[float]]], None]:
        read, written, chances = [], [], []
        with torch.no_grad():
            for prompt, [picture] in zip(prompts, images, strict=True):
                seen = self.processor.image_processor(images=[picture], return_tensors="pt")
                features = int(seen["image_grid_thw"].prod()) // 4
                image, places = self.model.config.image_token_id, features + self.extra
                ids = [one for token in prompt for one in [token] * (places if token == image else 1)]
                right = ids.count(image) == features  # else vLLM writes rubbish, and says nothing
                tokens, logs = self._complete(ids, dict(seen)) if right else ([1], [0.0])
                read.append(ids)
                written.append(tokens)
                chances.append([[log] for log in logs])
        self.calls.append(
            {
                "temperature": self.temperature,
                "max_tokens": self.max_completion_length,
                "bias": self.generation_kwargs.get("logit_bias"),
                "read": read,
                "written": written,
                "chances": chances,
                "synchronised": self.synchronised,
            }
        )
        return read, written, chances, None

    def _complete(self, prompt: list[int], seen: dict[str, Any]) -> tuple[list[int], list[float]]:
        ids, logs = list(prompt), []
        image, end = self.model.config.image_token_id, self.processor.tokenizer.eos_token_id
        while len(logs) < self.max_completion_length:
            row = torch.tensor([ids])
            logits = self.model(input_ids=row, mm_token_type_ids=(row == image).int(), **seen).logits[0, -1]
            log = torch.log_softmax(logits / (self.temperature or 1.0), -1)
            chance = log.exp().index_fill(0, torch.tensor([image]), 0.0)
            token = int(torch.multinomial(chance, 1) if self.temperature else chance.argmax())
            ids.append(token)
            logs.append(float(log[token]))
            if token == end:
                break
        return ids[len(prompt) :], logs
