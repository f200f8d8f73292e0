"""Where training starts: whole weights, and adapters once they are merged into them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model

from sdg.cli import cli
from sdg.errors import SdgError
from sdg.prompting import PromptProfile
from sdg.prompting.chat import checkpoint_profile
from sdg.training.model import load_model, load_processor, merge_adapter
from sdg.training.recipe import ModelRecipe


def test_a_merged_adapter_is_a_whole_detector_that_answers_alike(
    toy: Path, tmp_path: Path, profile: PromptProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ModelRecipe(str(toy / "checkpoint"), dtype="float32")
    adapted = get_peft_model(load_model(start), LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"]))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(SdgError, match="brings no sdg_profile"):
        merge_adapter(tmp_path / "adapter", tmp_path / "whole")
    profile.save(tmp_path / "adapter")  # as a training's checkpoint has it
    command = [
        "train",
        "merge",
        str(tmp_path / "adapter"),
        "--out",
        str(tmp_path / "whole"),
        "--dtype",
        "float32",
    ]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output

    whole = ModelRecipe(str(tmp_path / "whole"), dtype="float32")
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        merged, own = load_model(whole)(input_ids=ids).logits, adapted(input_ids=ids).logits
        base = load_model(start)(input_ids=ids).logits
    assert torch.allclose(merged, own, rtol=0, atol=1e-4)
    assert not torch.allclose(merged, base, rtol=0, atol=1e-2)
    load_processor(whole)
    assert checkpoint_profile(whole.checkpoint) == profile

    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    said["revision"] = "abc"
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(said))
    loaded: list[ModelRecipe] = []
    monkeypatch.setattr("sdg.training.model.load_model", lambda one: loaded.append(one) or load_model(one))
    merge_adapter(tmp_path / "adapter", tmp_path / "pinned", dtype="float32")
    merge_adapter(tmp_path / "adapter", tmp_path / "elsewhere", said["base_model_name_or_path"], "float32")
    assert [one.revision for one in loaded] == ["abc", None]
    monkeypatch.undo()

    with pytest.raises(SdgError, match="no whole weights; merge it first: sdg train merge"):
        load_model(ModelRecipe(str(tmp_path / "adapter")))
    with pytest.raises(SdgError, match="exists already"):
        merge_adapter(tmp_path / "adapter", tmp_path / "whole")
    with pytest.raises(SdgError, match="holds no adapter"):
        merge_adapter(toy / "checkpoint", tmp_path / "other")
    with pytest.raises(SdgError, match="cannot be loaded"):
        merge_adapter(tmp_path / "adapter", tmp_path / "other", base=str(tmp_path / "nowhere"))
    assert not (tmp_path / "other").exists()
