"""DeQA-Score (MIT) behind `sdg serve scorer`: its model is code inside its checkpoint, which runs here.

Name the revision of the checkpoint whose code you have read: python:deqa_scorer.score?revision=COMMIT.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from PIL import Image

CHECKPOINT = "zhiyuanyou/DeQA-Score-Mix3"


@cache
def _model(revision: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        CHECKPOINT,
        revision=revision,
        trust_remote_code=True,  # the reason why this has a process and an environment of its own
        attn_implementation="eager",
        torch_dtype=torch.float16,
        device_map=device,
    )


def score(
    pictures: Sequence[Image.Image], prompts: Sequence[str], *, revision: str, device: str = "cuda"
) -> list[float]:
    """Quality from 1 (bad) to 5 (excellent); the prompt plays no part. Table 5 has it divided by 5."""
    return [float(value) for value in _model(str(revision), device).score(list(pictures))]
