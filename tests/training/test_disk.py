"""What checkpoints take is said beforehand: the size of a real one, and of the model of the paper."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, TrainerState

from sdg.errors import SdgError
from sdg.sections import LoraRecipe
from sdg.training.evaluate import SdgEvalMixin
from sdg.training.model import checkpoint_bytes, load_model, lora_config, needed
from sdg.training.recipe import DetectorRun, SftRecipe
from sdg.training.run import finish
from sdg.training.sft import sft


def test_a_checkpoint_of_the_papers_detector_takes_66_gb(tmp_path: Path) -> None:
    config = Qwen3VLConfig(
        text_config={
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2560,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config).to(torch.bfloat16)
    model.model.visual.requires_grad_(False)
    assert checkpoint_bytes(model, None, deepspeed=True) / 1e9 == pytest.approx(66, abs=0.5)
    said = needed(DetectorRun(keep=2, deepspeed=Path("zero2.json")), model, None, tmp_path)
    assert re.match(
        r"A checkpoint with its optimizer takes 6\d\.\d GB; 2 stay, and the best \(run\.keep\)", said
    )


def test_a_disk_that_is_full_at_the_end_is_a_sentence_and_leaves_no_half_of_a_detector(
    sft_recipe: SftRecipe, tmp_path: Path
) -> None:
    def full(folder: str | Path) -> None:
        (Path(folder) / "tokenizer.json").write_text("{", encoding="utf-8")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = load_model(sft_recipe.model)
    accelerator = SimpleNamespace(is_main_process=True, unwrap_model=lambda model: model)
    trainer = SimpleNamespace(
        accelerator=accelerator, model=model, state=TrainerState(), save_model=model.save_pretrained
    )
    processor = SimpleNamespace(save_pretrained=full)
    run: Any = SimpleNamespace(out=tmp_path, recipe=sft_recipe, processor=processor)
    with pytest.raises(SdgError, match="final cannot be written: No space left on device"):
        finish(run, trainer)
    assert not (tmp_path / "final").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        RuntimeError("unexpected pos 576 vs 470: No space left on device\nException raised from …"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_disk_that_is_full_at_a_checkpoint_is_a_sentence(error: Exception, tmp_path: Path) -> None:
    class Library:
        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            raise error

    class Trainer(SdgEvalMixin, Library):
        args = SimpleNamespace(output_dir=str(tmp_path))
        state = SimpleNamespace(global_step=3)

    trainer = object.__new__(Trainer)
    with pytest.raises(SdgError, match=r"checkpoint-3 cannot be written: .*No space left on device.*\.$"):
        trainer._save_checkpoint(None, None)


def test_what_torch_says_of_a_full_disk_is_told_from_its_other_errors(tmp_path: Path) -> None:
    class Library:
        def _save_checkpoint(self, fault: str | None) -> None:
            if fault is not None:
                raise RuntimeError(fault)
            torch.save(torch.zeros(9), "/dev/full")

    class Trainer(SdgEvalMixin, Library):
        args = SimpleNamespace(output_dir=str(tmp_path))
        state = SimpleNamespace(global_step=3)

    trainer = object.__new__(Trainer)
    if Path("/dev/full").exists():
        with pytest.raises(SdgError, match="checkpoint-3 cannot be written"):
            trainer._save_checkpoint(None)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer._save_checkpoint("CUDA error: out of memory")


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LoraRecipe(r=64)])
def test_the_estimate_is_the_size_of_a_checkpoint(
    sft_recipe: SftRecipe, tmp_path: Path, lora: LoraRecipe | None, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(
        sft_recipe,
        model=replace(sft_recipe.model, lora=lora),
        optimizer=replace(sft_recipe.optimizer, max_steps=1),
    )
    model = load_model(recipe.model)
    expected = checkpoint_bytes(model, lora_config(recipe.model, model), deepspeed=False)
    sft(recipe, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint-1"
    found = sum((*folder.glob("*.safetensors"), folder / "optimizer.pt")[n].stat().st_size for n in range(2))
    assert found == pytest.approx(expected, rel=0.15)  # names and layout beside the numbers
    assert "A checkpoint with its optimizer takes" in capsys.readouterr().err
