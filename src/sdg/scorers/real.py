"""P(real): how much a vision-language model takes a picture for real (SDG §5, Table 5).

The softmax over its logits of the words "real" and "fake" as the next token, the mean over each word's
capitalisation variants taken first. The paper names neither the model nor the question; the question here is
our own, so values compare between generators, and not with the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from sdg.errors import SdgError, loading

QUESTION: Final = "Is this picture real or fake? Answer with one word only: real or fake."
_WORDS: Final = (("real", "Real", "REAL"), ("fake", "Fake", "FAKE"))


class RealScorer:
    """Scores pictures by P(real), in 0..1; the prompt plays no part."""

    def __init__(self, model: str, device: str = "cpu") -> None:
        """model: a folder or hub id of an image-text-to-text model with a chat template.

        Raises SdgError where it cannot be loaded, or has no single token for one of the two words.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        with loading(f"p-real:{model} cannot be loaded as an image-text-to-text model"):
            self.processor: Any = AutoProcessor.from_pretrained(model)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(model, use_safetensors=True)
        self.model: Any = loaded.to(device).eval()
        self.real, self.fake = (word_tokens(self.processor.tokenizer, variants) for variants in _WORDS)
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        self.text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    @torch.inference_mode()
    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """P(real) of each picture."""
        if not pictures:
            return []
        inputs = self.processor(
            images=[picture.convert("RGB") for picture in pictures],
            text=[self.text] * len(pictures),
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.model.device, dtype=self.model.dtype)
        logits = (
            self.model(**inputs).logits[:, -1].float()
        )  # (B, vocabulary), of the first word of the answer
        scores: list[float | None] = p_real(logits, self.real, self.fake).tolist()
        return scores


def word_tokens(tokenizer: Any, variants: Sequence[str]) -> list[int]:
    """Ids of the variants that are one token; raises SdgError where none is."""
    encoded = [tokenizer(variant, add_special_tokens=False)["input_ids"] for variant in variants]
    single = [ids[0] for ids in encoded if len(ids) == 1 and ids[0] != tokenizer.unk_token_id]
    if not single:
        raise SdgError(
            f"This model's tokenizer has no token for {variants[0]!r}; take another model for p-real."
        )
    return single


def p_real(logits: Tensor, real: Sequence[int], fake: Sequence[int]) -> Tensor:
    """(B, vocabulary) logits to (B,): softmax of the mean logits of the two words, for the first."""
    means = torch.stack([logits[:, list(ids)].mean(dim=1) for ids in (real, fake)], dim=1)
    return means.softmax(dim=1)[:, 0]
