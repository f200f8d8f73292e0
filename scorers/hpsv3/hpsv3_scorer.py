"""HPSv3 (MIT) behind `sdg serve scorer`: its package pins transformers 4.45, so it lives by itself."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from PIL import Image


@cache
def _model(device: str) -> Any:
    from hpsv3 import HPSv3RewardInferencer

    return HPSv3RewardInferencer(device=device)


def score(pictures: Sequence[Image.Image], prompts: Sequence[str], device: str = "cuda") -> list[float]:
    """μ of each picture's preference, as in Table 5: no upper bound, about 12 for FLUX.1-dev."""
    import torch

    with torch.inference_mode():
        rewards = _model(device).reward(image_paths=list(pictures), prompts=list(prompts))  # (N, 2): μ, σ
    return [float(reward[0]) for reward in rewards]
