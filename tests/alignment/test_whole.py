"""Training all of a transformer: what moves, the folder that comes out, resuming, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import toy_families
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from toy import RECIPES, small

from sdg.alignment.policies import load_pipeline, load_policy
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.trainer import align
from sdg.cli import cli
from sdg.errors import SdgError
from sdg.models.lora import lora_parameters
from sdg.recipes import load_recipe
from sdg.runs.checkpoint import latest_checkpoint, load_checkpoint
from sdg.runs.log import read_log

FLUX = RECIPES / "boxflow-flux1-dev.yaml"


def whole(checkpoints: Path, family: str = "flux", **changes: Any) -> list[str]:
    """Options of a small run that trains everything."""
    changes = {"optimizer__learning_rate": 1e-3, **changes}
    return small(checkpoints, family, policy__lora="null", **changes)


def run(out: Path, options: list[str], *, resume: bool = False) -> list[dict[str, Any]]:
    align(load_recipe(AlignRecipe, FLUX, options[1::2]), out, resume=resume)
    return [line for line in read_log(out) if line["kind"] == "train"]


def weights(folder: Path) -> dict[str, Tensor]:
    return diffusers.AutoModel.from_pretrained(str(folder)).state_dict()


@pytest.mark.parametrize("method", ["boxflow", pytest.param("boxflow-nft", marks=pytest.mark.slow)])
def test_every_weight_is_trained_and_the_result_is_a_transformer_of_diffusers(
    checkpoints: Path, tmp_path: Path, method: str
) -> None:
    changes = {"method": method, "optimizer__ema_every": 1, "policy__gradient_checkpointing": "true"}
    lines = run(tmp_path, whole(checkpoints, **changes))
    assert all(line["first_ratio_error"] == 0 for line in lines if method == "boxflow")
    before, after = weights(checkpoints / "flux" / "transformer"), weights(tmp_path / "final")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    state, _ = load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)
    assert all(torch.equal(state[f"ema.{name}"], after[name]) for name in after)
    assert (tmp_path / "best" / "measures.json").is_file()
    pipeline = diffusers.FluxPipeline.from_pretrained(
        checkpoints / "flux",
        transformer=diffusers.FluxTransformer2DModel.from_pretrained(tmp_path / "final"),
    )
    assert torch.equal(pipeline.transformer.state_dict()["proj_out.weight"], after["proj_out.weight"])


@pytest.mark.slow
def test_a_resumed_run_goes_on_as_an_uninterrupted_one(checkpoints: Path, tmp_path: Path) -> None:
    def options(steps: int) -> list[str]:
        smooth = {"method": "flow-grpo", "optimizer__clip": 0.2}  # nothing turns on a threshold
        return whole(checkpoints, optimizer__steps=steps, optimizer__ema_every=1, groups__prompts=2, **smooth)

    run(tmp_path / "whole", options(8))
    run(tmp_path / "parts", options(4))
    run(tmp_path / "parts", options(8), resume=True)
    one, other = weights(tmp_path / "whole" / "final"), weights(tmp_path / "parts" / "final")
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-5)


def test_weights_are_trained_in_float32_and_kept_in_the_type_of_the_recipe(
    checkpoints: Path, tmp_path: Path
) -> None:
    options = whole(checkpoints, policy__dtype="bfloat16", optimizer__steps=2)
    policy = load_policy(load_recipe(AlignRecipe, FLUX, options[1::2]).policy)
    assert {parameter.dtype for parameter in policy.transformer.parameters()} == {torch.float32}
    assert policy.pipeline.vae.dtype == torch.bfloat16
    run(tmp_path, options)
    kept = load_file(tmp_path / "final" / "diffusion_pytorch_model.safetensors")
    state, _ = load_checkpoint(latest_checkpoint(tmp_path) or tmp_path)
    assert {value.dtype for value in kept.values()} == {torch.bfloat16}
    assert all(state[f"ema.{name}"].dtype == torch.float32 for name in kept)


@pytest.mark.usefixtures("short_text")
@pytest.mark.parametrize("family", ["sd3", *(pytest.param(f, marks=pytest.mark.slow) for f in (
    "flux2", "flux2-klein", "longcat-image", "qwen-image", "sana", "z-image"))])  # fmt: skip
def test_of_every_family_all_weights_but_those_of_idle_layers_get_a_gradient(
    checkpoints: Path, family: str
) -> None:
    height, width = toy_families.SIZES.get(family, (16, 24))
    changes = {"policy__height": height, "policy__width": width}
    if family in toy_families.TEXT:
        changes["policy__max_sequence_length"] = toy_families.TEXT[family]
    name = {"sd3": "sd35-medium", "sana": "sana15", "flux2": "flux2-dev", "flux2-klein": "flux2-klein-4b"}
    recipe = RECIPES / f"boxflow-{name.get(family, family)}.yaml"
    settings = load_recipe(AlignRecipe, recipe, whole(checkpoints, family, **changes)[1::2])
    policy = load_policy(settings.policy)
    drawn = policy.sample(["a red cup", "a blue hat"], [1, 2], steps=3, sde_steps=(1,)).transitions
    policy.score(drawn, 0).log_prob.sum().backward()
    trained = lora_parameters(policy.transformer)
    idle = sum(p.numel() for p in policy.transformer.parameters()) - sum(p.numel() for p in trained.values())
    assert (idle > 0) == (family == "qwen-image")
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []


def test_a_trained_transformer_can_be_compared_and_merged(checkpoints: Path, tmp_path: Path) -> None:
    options = whole(checkpoints, optimizer__steps=2, optimizer__ema_every=1, optimizer__learning_rate=1e-2)
    run(tmp_path / "run", options)
    final = tmp_path / "run" / "final"
    command = ["align", "compare", str(FLUX), *options, "--lora", f"ours={final}", "--bootstrap", "100"]
    result = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "table")])
    assert result.exit_code == 0, result.output
    assert "| ours |" in result.output
    merge = ["align", "merge", str(FLUX), *options, "--lora", str(final), "--out", str(tmp_path / "merged")]
    result = CliRunner().invoke(cli, merge)
    assert result.exit_code == 0, result.output
    recipe = load_recipe(AlignRecipe, FLUX, [*options[1::2], f"policy.model={tmp_path / 'merged'}"])
    merged, kept = load_pipeline(recipe.policy).transformer.state_dict(), weights(final)
    assert all(torch.equal(merged[name], value) for name, value in kept.items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optimizer__kl": 0.1}, r"optimizer\.kl compares with the generator without its adapter, and with"),
        (
            {"policy__adapter": "runs/best"},
            "adapter starts from an adapter, and with lora null there is none",
        ),
    ],
)
def test_what_needs_an_adapter_is_refused(checkpoints: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SdgError, match=sentence):
        load_recipe(AlignRecipe, FLUX, whole(checkpoints, **changes)[1::2])
