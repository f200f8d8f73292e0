"""What weights take on a GPU, at real size without weights, against arithmetic by the models' shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy import RECIPES

import sdg.testbed
from sdg.alignment.memory import Passes, in_memory, memory, trained_parameters, weights
from sdg.alignment.policies.real_size import configured, policy_on_meta
from sdg.alignment.recipe import AlignRecipe
from sdg.models.meta import Taken
from sdg.recipes import load_recipe

WIDTH = 6144  # of FLUX.2-dev, which has 48 heads of 128
# Both streams of a double block: four square matrices of attention, 1 → 6 and 3 → 1 of the feed-forward.
BLOCK = 2 * (4 + 6 + 3) * WIDTH**2
# Outside blocks: modulation of both streams (6 each), of single blocks (3) and of the output (2), the text's
# 15,360 channels, the embedders of noise level and guidance, latents in and out.
OUTSIDE = (6 + 6 + 3 + 2) * WIDTH**2 + WIDTH * (15360 + 2 * (256 + WIDTH) + 2 * 128)


def loaded(name: str, *changes: str) -> tuple[AlignRecipe, Any]:
    recipe = load_recipe(AlignRecipe, RECIPES / f"{name}.yaml", changes)
    return recipe, policy_on_meta(recipe.policy, configured(recipe.policy.family, recipe.policy.model))


def test_eight_processes_share_flux2_dev() -> None:
    recipe, policy = loaded("boxflow-flux2-dev")
    assert recipe.run.sharding == "fsdp"
    base = sum(p.numel() for p in policy.transformer.parameters()) - trained_parameters(policy)
    adapter = 8 * recipe.policy.lora.r * 2 * WIDTH  # of a double block
    parts = weights(recipe, policy, 8)
    assert parts["its 1/8 of the transformer, bf16"] == pytest.approx(2 * base / 8, rel=1e-4)
    moments = "weights, gradients, Adam's moments, average"  # and no buckets
    assert parts[f"its 1/8 of the adapter, fp32: {moments}"] == pytest.approx(20 * 119.5e6 / 8, rel=1e-3)
    gathered = 2 * OUTSIDE + 3 * (2 * BLOCK + 4 * adapter) + 8 * adapter
    assert parts["blocks gathered for a pass, and a block's gradients"] == pytest.approx(gathered, rel=2e-3)
    assert len(parts) == 3
    whole = weights(
        load_recipe(AlignRecipe, RECIPES / "boxflow-flux2-dev.yaml", ["run.sharding=null"]), policy, 8
    )
    assert whole["transformer, bf16"] == 2 * base
    assert whole[f"adapter, fp32: {moments}, buckets"] == 24 * trained_parameters(policy)


@pytest.mark.parametrize(("method", "bytes_each"), [("boxflow", 20), ("boxflow-nft", 24)])
def test_a_transformer_that_is_trained_whole_is_in_fp32_and_gathered_in_bf16(
    method: str, bytes_each: int
) -> None:
    recipe, policy = loaded("boxflow-flux2-dev", "policy.lora=null", f"method={method}")
    every = sum(p.numel() for p in policy.transformer.parameters())
    assert trained_parameters(policy) == every == pytest.approx(32.2e9, rel=2e-3)
    shared, gathered = weights(recipe, policy, 16).values()
    assert shared == pytest.approx(bytes_each * every / 16, rel=1e-4)
    assert gathered == pytest.approx(2 * (OUTSIDE + 3 * BLOCK) + (2 + 4) * BLOCK, rel=2e-3)


def test_unshared_what_is_trained_has_buckets_and_a_copy_in_the_type_of_a_pass() -> None:
    recipe, policy = loaded("boxflow-sd35-medium", "policy.lora=null")
    every = trained_parameters(policy)
    trained, copy = weights(recipe, policy, 2).values()
    assert (trained, copy) == (24 * every, 2 * every)
    alone = weights(recipe, policy, 1)
    assert sum(alone.values()) == 22 * every
    in_fp32 = load_recipe(
        AlignRecipe, RECIPES / "boxflow-sd35-medium.yaml", ["policy.lora=null", "precision=fp32"]
    )
    assert sum(weights(in_fp32, policy, 1).values()) == 20 * every


def test_activations_grow_with_the_batch_and_are_not_shared() -> None:
    recipe, policy = loaded("boxflow-flux2-dev")
    known = configured(recipe.policy.family, recipe.policy.model)
    taken = Passes(Taken(0, 0), Taken(8 * 10**9, 0), Taken(4 * 10**9, 0))
    parts = memory(recipe, policy, known, taken, 8)
    assert (parts["activations of 8 pictures"], parts["decoding 8 pictures"]) == (8e9, 4e9)
    assert parts["scorers, fp32"] == pytest.approx(5.7e9, rel=0.02)
    of_weights = sum(weights(recipe, policy, 8).values())
    rest = parts["autoencoder, bf16"] + parts["scorers, fp32"] + 12e9
    assert sum(parts.values()) == pytest.approx(of_weights + rest)


DETECTOR = Path(sdg.testbed.__file__).parent / "weights" / "detector"


@pytest.mark.parametrize("uri", ["{0}", "hf:{0}", "hf:{0}?batch_size=2", "union:hf:{0}|ocr"])
def test_a_detector_with_weights_counts_however_it_is_named(uri: str) -> None:
    recipe = load_recipe(
        AlignRecipe, RECIPES / "boxflow-flux1-dev.yaml", [f"reward.detector={uri.format(DETECTOR)}"]
    )
    held = in_memory(recipe)["vision-language models, bf16"]
    assert held == pytest.approx((DETECTOR / "model.safetensors").stat().st_size, rel=0.02)
