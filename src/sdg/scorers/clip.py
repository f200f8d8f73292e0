"""CLIP-style scorers: any transformers CLIPModel, such as CLIP itself (CLIPScore) or PickScore.

The score is the model's own logit of picture and prompt, exp(logit scale)·cosine: PickScore is reported so,
CLIPScore as logits/30 (`scale` in a recipe), which fits SDG Table 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from sdg.errors import loading


class ClipScorer:
    """Scores pictures by their similarity to their prompts."""

    def __init__(self, model: str, device: str = "cpu", processor: str | None = None) -> None:
        """model: a folder or hub id; processor: where tokenizer and image processor are, if elsewhere."""
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        with loading(f"clip:{model} cannot be loaded as a CLIPModel"):
            self.model = CLIPModel.from_pretrained(model, use_safetensors=True).to(device).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(processor or model)
            self.image_processor = AutoImageProcessor.from_pretrained(processor or model)

    @torch.inference_mode()
    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """The logit of each picture with its own prompt; prompts beyond the model's length are cut."""
        text = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        image = self.image_processor([picture.convert("RGB") for picture in pictures], return_tensors="pt")
        output = self.model(
            input_ids=text.input_ids.to(self.model.device),
            attention_mask=text.attention_mask.to(self.model.device),
            pixel_values=image.pixel_values.to(self.model.device, self.model.dtype),
        )
        scores: list[float | None] = output.logits_per_image.diagonal().float().tolist()
        return scores
