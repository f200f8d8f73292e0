"""A small CLIPModel of scenes and prompts: the testbed's scalar base reward (`sdg testbed train-scorer`).

Trained contrastively; half of each batch differs from the other half in one fact (a colour, a shape, a count,
a side), so that the score has to see what a prompt says and not only its overall look.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from sdg.io.files import replace_folder
from sdg.models.device import cpu_autocast
from sdg.testbed.models.generator.pipeline import TEXT_LENGTH, new_tokenizer, tokenize
from sdg.testbed.models.generator.vae import to_tensor
from sdg.testbed.models.loop import Hyperparameters, Run, SeededBatches, fit
from sdg.testbed.world.layout import place
from sdg.testbed.world.prompts import Split, phrase, sample_request, split_of
from sdg.testbed.world.renderer import render
from sdg.testbed.world.scene import COLOURS, OPPOSITE, SHAPES, Request

_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
SIZE: Final = 128


def alter(request: Request, rng: np.random.Generator) -> Request:
    """The same request with one fact changed: a colour, a shape, a count or the side of the relation."""
    choices = ["colour", "shape", "count"]
    if request.relation is not None:
        choices = ["colour", "shape", "relation", "relation"]
    what = choices[int(rng.integers(len(choices)))]
    if what == "relation":
        assert request.relation is not None
        return replace(request, relation=OPPOSITE[request.relation])
    index = int(rng.integers(len(request.groups)))
    group = request.groups[index]
    if what == "count":
        room = 4 - sum(g.count for g in request.groups)
        options = [c for c in (group.count - 1, group.count + 1) if 1 <= c <= group.count + room]
        if not options:
            what = "colour"
        else:
            group = replace(group, count=int(rng.choice(options)))
    if what == "colour":
        group = replace(group, colour=str(rng.choice([c for c in COLOURS if c != group.colour])))
    elif what == "shape":
        group = replace(group, shape=str(rng.choice([s for s in SHAPES if s != group.shape])))
    return replace(request, groups=(*request.groups[:index], group, *request.groups[index + 1 :]))


def sample_pairs(
    rng: np.random.Generator, pairs: int, split: Split = "train"
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[str]]:
    """2·pairs scenes (N, SIZE, SIZE, 3) and their prompts; row pairs+i is row i with one fact changed."""
    requests: list[Request] = []
    altered: list[Request] = []
    while len(requests) < pairs:
        request = sample_request(rng)
        if split_of(request) != split:
            continue
        other = alter(request, rng)
        # Training must not see held-out content through the back door of an altered prompt.
        if split == "train" and split_of(other) != "train":
            continue
        requests.append(request)
        altered.append(other)
    chosen = requests + altered
    pictures = np.stack([render(place(request, rng), SIZE) for request in chosen])
    return pictures, [phrase(request, rng) for request in chosen]


def new_scorer() -> CLIPModel:
    """An untrained CLIPModel of 1.9M parameters: 16-pixel patches, four vision and three text layers."""
    tokenizer = new_tokenizer(start=True)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 160,
        "intermediate_size": 480,
        "num_hidden_layers": 4,
        "num_attention_heads": 5,
        "image_size": SIZE,
        "patch_size": 16,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def new_image_processor() -> CLIPImageProcessor:
    """How pictures reach the scorer: SIZE pixels, −1..1."""
    return CLIPImageProcessor(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        image_mean=_MEAN,
        image_std=_STD,
    )


def contrastive_loss(model: CLIPModel, pixels: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """Symmetric cross-entropy of pictures (B, 3, H, W) and prompts (B, T); `right` is the hit rate."""
    with cpu_autocast():
        output = model(pixel_values=pixels, input_ids=ids)
    logits = output.logits_per_image.float()
    target = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return {"loss": loss, "right": (logits.argmax(1) == target).float().mean()}


def train_scorer(run: Run, *, pairs: int = 64) -> CLIPModel:
    """Train and save the scorer with its processor to run.out/scorer. Raises SdgError as `fit` does."""
    torch.manual_seed(run.seed)
    model, tokenizer = new_scorer(), new_tokenizer(start=True)

    def draw(rng: np.random.Generator) -> dict[str, Tensor]:
        pictures, prompts = sample_pairs(rng, pairs)
        return {"pictures": torch.from_numpy(pictures), "ids": tokenize(tokenizer, prompts)}

    def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return contrastive_loss(model, to_tensor(batch["pictures"]), batch["ids"])

    def save(averaged: CLIPModel, step: int) -> None:
        replace_folder(run.out / "scorer", partial(save_scorer, averaged))

    settings = Hyperparameters(1.5e-3, ema=0.998, muon=True)
    return fit(model, loss_of, SeededBatches(draw, run.seed), run, settings, on_save=save)


def save_scorer(model: CLIPModel, folder: Path) -> None:
    """Write the model with its tokenizer and image processor, as `CLIPModel` and `ClipScorer` load them."""
    model.save_pretrained(folder)
    new_tokenizer(start=True).save_pretrained(folder)
    new_image_processor().save_pretrained(folder)


@torch.no_grad()
def retrieval_accuracy(
    model: CLIPModel, tokenizer: Any, *, count: int = 500, seed: int = 1
) -> dict[str, float]:
    """Held-out accuracy: prompt picked among 2·count, and picked against the one that differs in one fact."""
    rng = np.random.default_rng((seed, 5))
    pictures, prompts = sample_pairs(rng, count, split="test")
    output = model(pixel_values=to_tensor(pictures), input_ids=tokenize(tokenizer, prompts))
    logits = output.logits_per_image
    rows = torch.arange(len(logits))
    other = (rows + count) % len(logits)
    return {
        "among all": float((logits.argmax(1) == rows).float().mean()),
        "against one changed fact": float((logits[rows, rows] > logits[rows, other]).float().mean()),
    }
