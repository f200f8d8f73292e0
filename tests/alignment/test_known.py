"""Published generators at real size on the meta device: their sizes, and what recipes' adapters train."""

from __future__ import annotations

import pytest
import torch
from toy import RECIPES

from sdg.alignment.policies import FAMILIES
from sdg.alignment.policies.real_size import known_models
from sdg.alignment.recipe import AlignRecipe
from sdg.models.lora import add_lora, lora_parameters
from sdg.recipes import load_recipe

BILLIONS = {
    "black-forest-labs/FLUX.1-dev": 11.9,
    "black-forest-labs/FLUX.2-dev": 32.2,
    "black-forest-labs/FLUX.2-klein-4B": 3.88,
    "black-forest-labs/FLUX.2-klein-9B": 9.08,
    "meituan-longcat/LongCat-Image": 6.27,
    "Qwen/Qwen-Image-2512": 20.4,
    "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers": 1.60,
    "stabilityai/stable-diffusion-3.5-large": 8.06,
    "stabilityai/stable-diffusion-3.5-medium": 2.24,
    "Tongyi-MAI/Z-Image": 6.15,
    "Tongyi-MAI/Z-Image-Turbo": 6.15,
}
TRAINED = {
    "boxflow-flux1-dev.yaml": 179.3e6,
    "boxflow-flux2-dev.yaml": 119.5e6,
    "boxflow-flux2-klein-4b.yaml": 27.5e6,
    "boxflow-longcat-image.yaml": 27.5e6,
    "boxflow-nft-sd35-medium.yaml": 18.8e6,
    "boxflow-qwen-image.yaml": 94.2e6,
    "boxflow-sana15.yaml": 22.9e6,
    "boxflow-sd35-medium.yaml": 18.8e6,
    "boxflow-z-image-turbo.yaml": 33.4e6,
    "boxflow-z-image.yaml": 33.4e6,
}


def test_every_family_has_a_known_model() -> None:
    assert {known.family for known in known_models().values()} == FAMILIES.keys()
    assert known_models().keys() == BILLIONS.keys()


@pytest.mark.parametrize("model", BILLIONS)
def test_a_known_model_has_its_published_size(model: str) -> None:
    transformer = known_models()[model].on_meta()
    parameters = list(transformer.parameters())
    assert all(p.is_meta and not p.requires_grad for p in parameters)
    assert sum(p.numel() for p in parameters) == pytest.approx(BILLIONS[model] * 1e9, rel=5e-3)


def test_every_recipe_of_a_published_model_is_looked_at() -> None:
    assert TRAINED.keys() == {path.name for path in RECIPES.glob("*.yaml") if "testbed" not in path.name}


@pytest.mark.parametrize("name", TRAINED)
def test_a_recipe_finds_its_layers_at_real_size(name: str) -> None:
    policy = load_recipe(AlignRecipe, RECIPES / name).policy
    known = known_models()[policy.model]
    assert known.family == policy.family
    transformer = known.on_meta()
    idle = FAMILIES[policy.family].idle_layers(transformer)
    targets = policy.lora.targets or ("to_q", "to_k", "to_v", "to_out.0")
    expected = sum(
        policy.lora.r * (layer.in_features + layer.out_features)
        for path, layer in transformer.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and path.endswith(tuple(f".{target}" for target in targets))
        and path not in idle
    )
    with torch.device("meta"):
        add_lora(transformer, policy.lora, seed=0, idle=idle)
    trained = sum(parameter.numel() for parameter in lora_parameters(transformer).values())
    assert trained == expected == pytest.approx(TRAINED[name], rel=2e-3)
