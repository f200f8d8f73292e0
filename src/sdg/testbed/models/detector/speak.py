"""The detector's base model, second stage: the whole model learns to say what its vision tower sees.

Next-token loss on targets alone, grounded captions first and diagnoses later; the first stage's dense targets
go on beside it, or the tower would forget what a caption does not ask for. `pretrain` runs both stages.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from sdg.defects import BOX_SCALE, Diagnosis
from sdg.embeddings import TokenF1
from sdg.errors import SdgError, loading
from sdg.io.files import replace_folder
from sdg.models.device import cpu_autocast
from sdg.models.vlm import LoadedModel
from sdg.runs.log import append_log, trim_log
from sdg.testbed.injection import sample
from sdg.testbed.models.detector.build import MERGE, new_model, new_processor
from sdg.testbed.models.detector.dense import CELLS, DenseReader, dense_losses, patchify
from sdg.testbed.models.detector.rows import (
    IGNORED,
    JITTER,
    Lessons,
    Rows,
    base_tokenizer,
    embedded_profile,
    number_tokens,
)
from sdg.testbed.models.detector.see import BATCH, BOTH_STAGES, train_vision
from sdg.testbed.models.loop import Run, fit
from sdg.training.evaluate import score

Case = tuple[Image.Image, str, Diagnosis]
Stage = Literal["see", "speak", "both"]

VALIDATION: Final = "validation.jsonl"
DENSE_WEIGHT: Final = 0.3
"""Weight of the dense loss beside the mean loss of a token."""


class Speaker(nn.Module):
    """The model with the dense heads of the first stage on its vision tower."""

    numbers: Tensor
    kernel: Tensor

    def __init__(self, model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model = model
        heads = DenseReader(model)
        self.norm, self.head = heads.norm, heads.head
        self.register_buffer("numbers", number_tokens(tokenizer), persistent=False)
        # The expectation of a triangular jitter: its peak is the truth, so that greedy answers are exact.
        kernel = (JITTER + 1 - torch.arange(-JITTER, JITTER + 1).abs()).float()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Dense outputs by name, and for each `Rows` the logits (M, vocabulary) where there is a label."""
        pictures = batch["pictures"]
        grid = torch.tensor([[1, CELLS * MERGE, CELLS * MERGE]]).expand(len(pictures), 3)
        with torch.set_grad_enabled(torch.is_grad_enabled() and batch["learns_to_see"]):
            seen = self.model.model.get_image_features(patchify(pictures), grid, return_dict=True)
        each = seen.pooler_output  # one (CELLS², width) a picture
        dense = DenseReader.read(self.head(self.norm(torch.stack(tuple(each)))))
        logits = []
        for rows in batch["rows"]:
            seen.pooler_output = tuple(each[index] for index in rows.pictures.tolist())
            hidden = self.model.model(
                input_ids=rows.ids,
                image_grid_thw=grid[: len(rows.ids)],
                mm_token_type_ids=(rows.ids == self.model.config.image_token_id).int(),
                mm_encoder_outputs={"image": seen},
                use_cache=False,
            ).last_hidden_state
            logits.append(self.model.lm_head(hidden[:, :-1][rows.labels[:, 1:] != IGNORED]))
        return dense, logits


def speech_loss(speaker: Speaker, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Mean loss of a token plus the weighted dense loss; `words` and `numbers` apart, for the log."""
    with cpu_autocast():
        dense, logits = speaker(batch)
    losses = [
        token_losses(speaker, each.float(), rows) for each, rows in zip(logits, batch["rows"], strict=True)
    ]
    tokens = torch.cat(losses)
    number = torch.cat([rows.coordinate[:, 1:][rows.labels[:, 1:] != IGNORED] for rows in batch["rows"]]) >= 0
    seen = dense_losses(dense, batch)
    parts = {"words": tokens[~number].mean(), "numbers": tokens[number].mean(), "dense": seen.pop("loss")}
    kept = {name: seen[name] for name in ("shape_right", "mask_iou", "artifact_right")}
    return {"loss": tokens.mean() + DENSE_WEIGHT * parts["dense"], **parts, **kept}


def token_losses(speaker: Speaker, logits: Tensor, rows: Rows) -> Tensor:
    """Cross-entropy (M,) of each labelled token; a coordinate's against the jitter's distribution around it.

    logits: (M, vocabulary), of the labels in reading order. The distribution is cut off at 0 and 1000.
    """
    wanted = rows.labels[:, 1:] != IGNORED
    labels, coordinate = rows.labels[:, 1:][wanted], rows.coordinate[:, 1:][wanted]
    losses = F.cross_entropy(logits, labels, reduction="none")
    number = coordinate >= 0
    if not number.any():
        return losses
    log_prob = logits[number].log_softmax(-1)[:, speaker.numbers]
    window = coordinate[number][:, None] + torch.arange(-JITTER, JITTER + 1)
    weight = speaker.kernel * ((window >= 0) & (window <= BOX_SCALE))
    near = log_prob.gather(1, window.clamp(0, BOX_SCALE))
    return losses.masked_scatter(number, -(weight * near).sum(1) / weight.sum(1))


def train_language(
    seeing: Path,
    run: Run,
    *,
    vae: AutoencoderKL | None = None,
    batch_size: int = BATCH,
    learning_rate: float = BOTH_STAGES.learning_rate,
    workers: int = 1,
    validate: int = 128,
) -> Qwen3VLForConditionalGeneration:
    """Train the whole model from the tower in `seeing` (of `train_vision`) and save it to run.out/detector.

    That is a detector's folder: weights, processor, profile. At each checkpoint SDG-Eval of `validate`
    injected pictures of the validation split goes to run.out/validation.jsonl.
    Raises SdgError where `seeing` holds no model, and as `fit`.
    """
    tokenizer = base_tokenizer()
    model = new_model(tokenizer, run.seed)
    model.model.visual.load_state_dict(_tower(seeing))
    # Of short sequences in bf16, plain products are twice as fast as the fused attention of CPUs.
    model.set_attn_implementation("eager")
    truth = held_out(validate, run.seed)

    def save(averaged: Speaker, step: int) -> None:
        replace_folder(run.out / "detector", lambda folder: save_base(averaged.model, tokenizer, folder))
        if truth:
            line = {"step": step, **score_base(averaged.model, new_processor(tokenizer), truth)}
            # A run that is resumed at its end is saved once more.
            trim_log(run.out, lambda earlier: earlier["step"] < step, VALIDATION)
            append_log(run.out, line, VALIDATION)

    settings = replace(BOTH_STAGES, learning_rate=learning_rate, save_every=250, report_every=25)
    shards = settings.shards
    data = Lessons(tokenizer, vae, batch_size // shards, run.steps * shards, run.seed)
    speaker = Speaker(model, tokenizer)
    averaged = fit(speaker, partial(speech_loss, speaker), data, run, settings, workers=workers, on_save=save)
    return averaged.model


def pretrain(
    out: Path,
    *,
    stage: Stage = "both",
    see_steps: int,
    speak_steps: int,
    seeing: Path | None = None,
    vae: AutoencoderKL | None = None,
    seed: int = 0,
    resume: bool = False,
    max_minutes: float,
) -> Path:
    """Run the stages asked for in out/see and out/speak; returns the folder of the last one's result.

    seeing: a tower for stage speak, by default that of out. max_minutes: for both stages together. Raises
    SdgError where time is up between the two, and as `train_vision` and `train_language` do.
    """
    began = time.monotonic()
    tower = seeing or out / "see" / "seeing"
    if stage == "see" or (stage == "both" and seeing is None):
        model = new_model(base_tokenizer(), seed)
        train_vision(model, Run(out / "see", see_steps, seed, resume, max_minutes), vae=vae)
    if stage == "see":
        return tower
    left = max_minutes - (time.monotonic() - began) / 60
    if left <= 0:
        raise SdgError("Time is up before the model could learn to speak; go on with --resume.")
    train_language(tower, Run(out / "speak", speak_steps, seed, resume, left), vae=vae)
    return out / "speak" / "detector"


def held_out(count: int, seed: int) -> list[Case]:
    """Injected pictures of the validation split, with prompt and true diagnosis."""
    rng = np.random.default_rng((seed, 4711))
    drawn = [sample(rng, split="validation") for _ in range(count)]
    return [(Image.fromarray(one.picture), one.prompt, one.diagnosis) for one in drawn]


def score_base(model: Any, processor: Any, cases: list[Case]) -> dict[str, float]:
    """SDG-Eval of the model's greedy answers, by the names that SFT logs."""
    profile = embedded_profile()
    answers = dict(LoadedModel(model, processor, profile, 64).answers([case[:2] for case in cases]))
    found = score([answers[n] for n in range(len(cases))], [case[2] for case in cases], profile, TokenF1())
    return {name: round(value, 4) for name, value in found.items()}


def save_base(
    model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write a detector's folder."""
    model.save_pretrained(folder)
    new_processor(tokenizer).save_pretrained(folder)
    embedded_profile().save(folder)


def _tower(seeing: Path) -> dict[str, Tensor]:
    if not (seeing / "config.json").is_file():
        raise SdgError(f"{seeing} holds no model that has learned to see; make it with --stage see.")
    with loading(f"{seeing} cannot be loaded as a model that has learned to see"):
        known = Qwen3VLForConditionalGeneration.from_pretrained(
            seeing, dtype=torch.float32, use_safetensors=True
        )
    state: dict[str, Tensor] = known.model.visual.state_dict()
    return state
