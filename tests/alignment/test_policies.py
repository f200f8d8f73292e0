"""Policies: they sample as their pipelines do, remember what training needs, and save what reloads."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy
import toy_families
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from diffusers.models import attention_dispatch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toy import RECIPES

from sdg.alignment import policies
from sdg.alignment.flow_sde import SdeKind
from sdg.alignment.policies import FlowPolicy, load_pipeline, load_policy, merge
from sdg.alignment.policies.real_size import RealSize, configured, policy_on_meta, text_on_meta
from sdg.alignment.policies.text_cache import TextCache
from sdg.alignment.policies.trained import save_trained
from sdg.alignment.recipe import AlignRecipe, PolicyRecipe
from sdg.errors import SdgError
from sdg.models.lora import Ema, load_lora, lora_parameters, save_lora
from sdg.recipes import load_recipe
from sdg.sections import LoraRecipe

Plain = Callable[[str], FlowPolicy]
PROMPTS = ["a red cup", "a blue hat", "a red cup"]
SEEDS = [11, 12, 13]
FAMILIES = ("flux", "sd3", *toy_families.PIPELINES)
CALLS: dict[str, dict[str, Any]] = {
    "longcat-image": {"guidance_scale": 3.0, "negative_prompt": [""] * 3, "enable_prompt_rewrite": False},
    "qwen-image": {"true_cfg_scale": 3.0, "negative_prompt": [" "] * 3},
    "sana": {"guidance_scale": 3.0, "use_resolution_binning": False},
}
"""What a pipeline is called with, where that is not `guidance_scale` alone."""


def recipe(checkpoints: Path, family: str, **changes: Any) -> PolicyRecipe:
    height, width = toy_families.SIZES.get(family, (toy.HEIGHT, toy.WIDTH))
    plain = PolicyRecipe(
        family=family,  # type: ignore[arg-type]
        model=str(checkpoints / family),
        height=height,
        width=width,
        dtype="float32",
        guidance=3.0,
        max_sequence_length=toy_families.TEXT.get(family, toy.TEXT),
        lora=LoraRecipe(r=4, alpha=16, targets=("to_q", "to_out.0")),
    )
    return replace(plain, **changes)


def policy(checkpoints: Path, family: str, precision: str = "fp32", **changes: Any) -> FlowPolicy:
    return load_policy(recipe(checkpoints, family, **changes), precision=precision)


@pytest.fixture(scope="module")
def loaded() -> dict[str, FlowPolicy]:
    """What `plain` has loaded, by family."""
    return {}


@pytest.fixture
def plain(checkpoints: Path, loaded: dict[str, FlowPolicy], short_text: None) -> Iterator[Plain]:
    """The fresh policy of a family, loaded once for all tests, which may change its adapter alone."""
    fresh: dict[str, dict[str, torch.Tensor]] = {}

    def of(family: str) -> FlowPolicy:
        if family not in loaded:
            loaded[family] = policy(checkpoints, family)
        weights = lora_parameters(loaded[family].transformer)
        fresh[family] = {name: weight.detach().clone() for name, weight in weights.items()}
        return loaded[family]

    yield of
    for family, before in fresh.items():
        for name, weight in lora_parameters(loaded[family].transformer).items():
            weight.data.copy_(before[name])
            weight.grad = None


def train_a_little(policy: FlowPolicy) -> None:
    torch.manual_seed(5)
    for parameter in lora_parameters(policy.transformer).values():
        parameter.data += 0.1 * torch.randn_like(parameter)


def pixels(pictures: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(picture, dtype=int) for picture in pictures])


@pytest.mark.parametrize("family", FAMILIES)
def test_without_noise_a_policy_draws_what_its_pipeline_draws(checkpoints: Path, family: str) -> None:
    ours = policy(checkpoints, family)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    prompts = ["a red cup", "a green dog a blue hat", "a car"]  # of different lengths
    options = CALLS.get(family, {"guidance_scale": 3.0})
    if family != "longcat-image":  # whose pipeline has one length
        options = options | {"max_sequence_length": ours.recipe.max_sequence_length}
    pipeline = load_pipeline(ours.recipe)
    latents: list[torch.Tensor] = []
    for vae in (pipeline.vae, ours.pipeline.vae):
        decode = vae.decode
        vae.decode = lambda x, decode=decode, **kwargs: latents.append(x) or decode(x, **kwargs)
    theirs = pipeline(
        prompt=list(prompts), height=ours.recipe.height, width=ours.recipe.width, num_inference_steps=4,
        generator=generators, **options,
    ).images  # fmt: skip
    pictures = ours.sample(prompts, SEEDS, steps=4).pictures
    torch.testing.assert_close(*latents, rtol=0, atol=1e-4)
    assert pictures[0].size == (ours.recipe.width, ours.recipe.height)
    assert np.abs(pixels(pictures) - pixels(theirs)).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_without_weights_a_policy_is_the_same_size(checkpoints: Path, family: str) -> None:
    ours = policy(checkpoints, family)
    known = configured(family, ours.recipe.model)
    bare = policy_on_meta(ours.recipe, known)
    assert [p.shape for p in bare.transformer.parameters()] == [
        p.shape for p in ours.transformer.parameters()
    ]
    assert lora_parameters(bare.transformer).keys() == lora_parameters(ours.transformer).keys()
    encoders = [part for name, part in ours.pipeline.components.items() if name.startswith("text_encoder")]
    weights = [weight for part in encoders if part is not None for weight in part.parameters()]
    assert known.text_encoders == sum(weight.numel() for weight in weights)
    text = family_text(ours)
    shapes = ours.text_shapes(ours.transformer.config, ours.recipe.max_sequence_length)
    assert shapes.keys() == text.keys()
    for name, value in text.items():
        longest, *width = shapes[name]
        assert value.shape[1] <= longest or (name == "tokens" and family == "sd3")  # whose CLIPs have 77
        assert list(value.shape[2:]) == width
    # A pass without weights has the arithmetic of a real one with as much text.
    taken = RealSize(bare, 2).sampling()
    full = {
        name: value if name == "mask" else torch.randn(value.shape)
        for name, value in text_on_meta(bare, 4 if bare.uses_cfg else 2).items()
    }
    x = ours.noise([torch.Generator().manual_seed(seed) for seed in (1, 2)])
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        ours.velocity_of(x, 0.5, full)
    assert taken.flop == pytest.approx(counter.get_total_flops(), rel=1e-3)


def family_text(of: FlowPolicy) -> Any:
    return of.text_features(of.pipeline, of.recipe, PROMPTS[0], of.device)


def test_a_flux_without_guidance_embedding_is_guided_as_its_pipeline_is(tmp_path: Path) -> None:
    toy.flux_pipeline(guidance_embeds=False).save_pretrained(tmp_path / "flux")
    ours = policy(tmp_path, "flux")
    theirs = load_pipeline(ours.recipe)(
        prompt=PROMPTS, negative_prompt=[""] * 3, true_cfg_scale=3.0, height=toy.HEIGHT, width=toy.WIDTH,
        num_inference_steps=3, max_sequence_length=toy.TEXT,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    ).images  # fmt: skip
    assert np.abs(pixels(ours.sample(PROMPTS, SEEDS, steps=3).pictures) - pixels(theirs)).max() <= 1


def test_a_distilled_klein_takes_no_guidance(tmp_path: Path) -> None:
    toy_families.flux2_klein_pipeline(is_distilled=True).save_pretrained(tmp_path / "flux2-klein")
    assert not policy(tmp_path, "flux2-klein").uses_cfg


def test_a_dpm_solver_gives_its_levels_and_its_first_order(checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "sana", tmp_path / "sana")
    released = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=1
    )
    released.save_pretrained(tmp_path / "sana" / "scheduler")
    ours = policy(tmp_path, "sana")
    pipeline = load_pipeline(ours.recipe)
    theirs = pipeline(
        prompt=list(PROMPTS), height=ours.recipe.height, width=ours.recipe.width, num_inference_steps=4,
        max_sequence_length=ours.recipe.max_sequence_length, output_type="latent", **CALLS["sana"],
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    ).images  # fmt: skip
    assert torch.equal(ours.sigmas(4), pipeline.scheduler.sigmas)
    drawn = ours.sample(PROMPTS, SEEDS, steps=4).transitions.final
    # That solver cuts timesteps, of 1000, to whole numbers.
    torch.testing.assert_close(drawn, theirs, rtol=0, atol=5e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_sample_may_have_its_own_level(plain: Plain, family: str) -> None:
    ours = plain(family)
    x = ours.noise([torch.Generator().manual_seed(seed) for seed in SEEDS])
    levels, prompts = torch.tensor([0.9, 0.5, 0.2]), ["a red cup", "a green dog a blue hat", "a car"]
    with torch.no_grad():
        together = ours.velocity(x, levels, prompts)
        for row in range(3):
            one = slice(row, row + 1)
            alone = ours.velocity(x[one], levels[one], prompts[one])
            torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-5)
            other = ours.velocity(x[one], levels[one] / 2, prompts[one])
            assert (other - alone).abs().max() > 1e-3


def test_a_schedule_that_needs_two_steps_says_so(plain: Plain) -> None:
    with pytest.raises(SdgError, match=r"at least 2 sampling steps"):
        plain("qwen-image").sample(PROMPTS, SEEDS, steps=1)


@pytest.mark.usefixtures("short_text")
@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", "float32"), ("bf16", "float32"), ("bf16", "bfloat16")]
)
@pytest.mark.parametrize(
    ("checkpointing", "kinds"),
    [(False, ("flow-sde", "cps")), (True, ("flow-sde",))],
    ids=["kept", "recomputed"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_ratio_is_one(
    checkpoints: Path,
    family: str,
    checkpointing: bool,
    kinds: tuple[SdeKind, ...],
    precision: str,
    dtype: str,
) -> None:
    ours = policy(checkpoints, family, precision, gradient_checkpointing=checkpointing, dtype=dtype)
    train_a_little(ours)
    parameters = lora_parameters(ours.transformer).values()
    for kind in kinds:
        ours.transformer.zero_grad()
        rollout = ours.sample(PROMPTS, SEEDS, steps=4, sde_steps=(0, 2), noise_level=0.7, kind=kind)
        transitions = rollout.transitions
        for index in (0, 1):
            new = ours.score(transitions, index).log_prob
            assert new.shape == (3, *ours.grid)
            assert ((new - transitions.old_log_prob[index]).exp() - 1).abs().max() < 1e-5
            new.sum().backward()
        gradients = [p.grad for p in parameters]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert any(g.abs().max() > 0 for g in gradients)
    frozen = [p for p in ours.transformer.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)


@pytest.mark.usefixtures("short_text")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_that_a_recipe_trains_gets_a_gradient_and_reloads(
    checkpoints: Path, family: str, tmp_path: Path
) -> None:
    recipes = [load_recipe(AlignRecipe, path).policy for path in sorted(RECIPES.glob("boxflow-[!nt]*.yaml"))]
    lora = next(recipe.lora for recipe in recipes if recipe.family == family)
    ours = policy(checkpoints, family, lora=replace(lora, r=4, alpha=16))
    train_a_little(ours)
    transitions = ours.sample(PROMPTS, SEEDS, steps=3, sde_steps=(1,)).transitions
    scored = ours.score(transitions, 0)
    scored.log_prob.sum().backward()
    assert all(p.grad is not None for p in lora_parameters(ours.transformer).values())
    save_lora(ours, tmp_path)
    pipeline = load_pipeline(ours.recipe)
    load_lora(pipeline, tmp_path, "a toy")
    reloaded = type(ours)(pipeline, ours.recipe)
    assert torch.allclose(reloaded.score(transitions, 0).mean, scored.mean, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_transitions_hold_only_the_stochastic_steps(plain: Plain, family: str) -> None:
    ours = plain(family)
    rollout = ours.sample(PROMPTS, SEEDS, steps=4, sde_steps=(2,))
    sigmas = ours.sigmas(4).tolist()
    t = rollout.transitions
    assert (t.sigma, t.sigma_next) == ((sigmas[2],), (sigmas[3],))
    assert len(t.x) == len(t.next_x) == len(t.old_log_prob) == 1
    assert t.x[0].dtype == t.next_x[0].dtype == t.old_log_prob[0].dtype == torch.float32
    shapes = {"sd3": (4, 8, 12), "z-image": (4, 8, 12), "sana": (4, 4, 8), "longcat-image": (24, 64)}
    channels = shapes.get(family, (24, 16))
    assert ours.grid == (channels[1:] if len(channels) == 3 else (4, 6))
    assert t.x[0].shape == (3, *channels)


def test_the_log_probability_belongs_to_its_location(plain: Plain) -> None:
    ours = plain("sd3")
    t = ours.sample(PROMPTS[:1], SEEDS[:1], steps=4, sde_steps=(1,)).transitions
    moved = t.next_x[0].clone()
    moved[0, :, 3, 10] += 1.0  # row 3, column 10
    change = ours.score(replace(t, next_x=(moved,)), 0).log_prob - t.old_log_prob[0]
    assert (change.abs() > 1e-5).nonzero().tolist() == [[0, 3, 10]]


def test_a_token_is_the_patch_of_the_picture_it_decodes_to(plain: Plain) -> None:
    ours = plain("flux")
    noise = torch.zeros(1, *ours._latent_shape())
    noise[0, :, 2 * 3 : 2 * 3 + 2, 2 * 5 : 2 * 5 + 2] = 1.0  # packed row 3, column 5 of 4 × 6
    grid = ours._location_log_prob(ours._pack(noise).mean(-1))
    assert grid[0].nonzero().tolist() == [[3, 5]]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_depends_on_its_own_seed_only(plain: Plain, family: str) -> None:
    ours = plain(family)
    together = ours.sample(PROMPTS, SEEDS, steps=3, sde_steps=(1,))
    alone = ours.sample(PROMPTS[2:], SEEDS[2:], steps=3, sde_steps=(1,))
    assert torch.allclose(together.transitions.next_x[0][2:], alone.transitions.next_x[0], atol=1e-5)
    first, third = together.transitions.x[0][0], together.transitions.x[0][2]
    assert not torch.allclose(first, third)  # the same prompt, another seed


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_reloads_with_its_alpha(plain: Plain, family: str, tmp_path: Path) -> None:
    ours = plain(family)
    base = ours.sample(PROMPTS, SEEDS, steps=3, sde_steps=(1,)).transitions.next_x[0]
    train_a_little(ours)
    trained = ours.sample(PROMPTS, SEEDS, steps=3, sde_steps=(1,)).transitions.next_x[0]
    assert (trained - base).abs().max() > 1e-3
    save_lora(ours, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]

    pipeline = load_pipeline(ours.recipe)
    pipeline.load_lora_weights(tmp_path)
    reloaded = type(ours)(pipeline, ours.recipe)
    again = reloaded.sample(PROMPTS, SEEDS, steps=3, sde_steps=(1,)).transitions.next_x[0]
    assert torch.allclose(again, trained, atol=1e-5)


def test_an_adapter_reloads_on_the_transformer_of_a_pipeline_without_a_loader(
    plain: Plain, tmp_path: Path
) -> None:
    ours = plain("longcat-image")
    train_a_little(ours)
    save_lora(ours, tmp_path)
    pipeline = load_pipeline(ours.recipe)
    pipeline.transformer.load_lora_adapter(tmp_path, use_safetensors=True)
    trained, again = (
        of.sample(PROMPTS, SEEDS, steps=3).transitions.final
        for of in (ours, type(ours)(pipeline, ours.recipe))
    )
    assert torch.allclose(again, trained, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_is_started_from_and_merges_into_a_folder(
    checkpoints: Path, plain: Plain, family: str, tmp_path: Path
) -> None:
    ours = plain(family)
    train_a_little(ours)
    save_lora(ours, tmp_path / "adapter")
    again = policy(checkpoints, family, adapter=str(tmp_path / "adapter"))
    weights = lora_parameters(ours.transformer)
    assert lora_parameters(again.transformer).keys() == weights.keys()
    for name, parameter in lora_parameters(again.transformer).items():
        assert torch.equal(parameter, weights[name])
    merge(ours.recipe, tmp_path / "adapter", tmp_path / "merged")
    plainly = DiffusionPipeline.from_pretrained(tmp_path / "merged")  # whoever has diffusers alone
    original = DiffusionPipeline.from_pretrained(checkpoints / family)
    assert {name: type(part) for name, part in plainly.components.items()} == {
        name: type(part) for name, part in original.components.items()
    }
    merged = load_policy(replace(ours.recipe, model=str(tmp_path / "merged")))
    x = ours.noise([torch.Generator().manual_seed(1)])
    text = ours.encode(PROMPTS[:1])
    with torch.no_grad():
        one, other = (each.velocity_of(x, 0.6, text) for each in (ours, merged))
    assert torch.allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "lora",
    [
        LoraRecipe(8, 16, ("to_q", "to_out.0")),
        LoraRecipe(4, 8, ("to_q", "to_out.0")),
        LoraRecipe(4, 16, ("to_q",)),
    ],
)
def test_an_adapter_of_another_shape_is_refused_to_start_from(
    checkpoints: Path, tmp_path: Path, lora: LoraRecipe
) -> None:
    save_lora(policy(checkpoints, "flux"), tmp_path)
    with pytest.raises(SdgError, match="another rank, alpha or layers"):
        policy(checkpoints, "flux", adapter=str(tmp_path), lora=lora)
    with pytest.raises(SdgError, match="holds no adapter"):
        policy(checkpoints, "flux", adapter=str(tmp_path / "none"))


def test_an_adapter_for_some_noise_levels_alone_is_refused(plain: Plain, tmp_path: Path) -> None:
    ours = plain("flux")
    file = save_lora(ours, tmp_path)
    with safe_open(file, "pt") as saved:
        metadata = saved.metadata()
    save_file(load_file(file), file, metadata | {"sdg_above": "0.9"})  # as version 0.1 wrote it
    with pytest.raises(SdgError, match="acts at some noise levels alone"):
        load_pipeline(ours.recipe, trained=tmp_path)
    file.write_bytes(b"{}")
    with pytest.raises(SdgError, match="cannot be read as an adapter"):
        load_pipeline(ours.recipe, trained=tmp_path)


def test_attention_is_chosen_for_one_model_alone(checkpoints: Path) -> None:
    plain = policy(checkpoints, "flux")
    before = attention_dispatch._AttentionBackendRegistry.get_active_backend()
    chosen = policy(checkpoints, "flux", attention="_native_math")
    assert attention_dispatch._AttentionBackendRegistry.get_active_backend() == before
    backends = {module.processor._attention_backend for module in attending(chosen)}
    assert backends == {attention_dispatch.AttentionBackendName("_native_math")}
    assert {module.processor._attention_backend for module in attending(plain)} == {None}
    x, text = plain.noise([torch.Generator().manual_seed(1)]), plain.encode(PROMPTS[:1])
    with torch.no_grad():
        one, other = (each.velocity_of(x, 0.6, text) for each in (plain, chosen))
    assert torch.allclose(one, other, rtol=0, atol=1e-5)
    with pytest.raises(SdgError, match="SD3Transformer2DModel has no choice of attention"):
        policy(checkpoints, "sd3", attention="_native_math")


@pytest.mark.parametrize("family", ["qwen-image", "z-image"])
def test_attention_that_takes_no_masks_is_refused_where_prompts_have_some(
    checkpoints: Path, family: str
) -> None:
    flash = recipe(checkpoints, family, attention="_native_flash")
    for refused in (load_policy, lambda r: policy_on_meta(r, configured(family, r.model))):
        with pytest.raises(SdgError, match=rf"_native_flash takes no masks, which {family} needs"):
            refused(flash)
    assert policy_on_meta(replace(flash, attention="_native_efficient"), configured(family, flash.model))


def attending(of: FlowPolicy) -> list[Any]:
    return [module for module in of.transformer.modules() if hasattr(module, "processor")]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_merged_into_the_base_gives_the_same_velocity(
    plain: Plain, family: str, tmp_path: Path
) -> None:
    ours = plain(family)
    text, x = ours.encode(PROMPTS), ours.sample(PROMPTS, SEEDS, steps=3, sde_steps=(1,)).transitions.x[0]
    with torch.no_grad():
        untrained = ours.velocity_of(x, 0.6, text)
        train_a_little(ours)
        velocity = ours.velocity_of(x, 0.6, text)
        save_lora(ours, tmp_path)
        pipeline = load_pipeline(ours.recipe)
        before = {name: weight.clone() for name, weight in pipeline.transformer.named_parameters()}
        pipeline.load_lora_weights(tmp_path)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        merged = type(ours)(pipeline, ours.recipe)
        assert not any("lora" in name for name, _ in pipeline.transformer.named_parameters())
        assert torch.allclose(merged.velocity_of(x, 0.6, text), velocity, rtol=0, atol=1e-5)
    assert (velocity - untrained).abs().max() > 1e-2
    changed = 0
    for name, weight in pipeline.transformer.named_parameters():
        layer = ours.transformer.get_submodule(name.rpartition(".")[0])
        if hasattr(layer, "lora_A") and name.endswith(".weight"):  # W + alpha/r · B A
            product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            assert torch.allclose(weight, before[name] + 16 / 4 * product, rtol=0, atol=1e-6)
            changed += 1
        else:
            assert torch.equal(weight, before[name])
    assert changed > 0


def test_the_adapter_is_off_in_the_reference(plain: Plain) -> None:
    ours = plain("flux")
    base = ours.sample(PROMPTS, SEEDS, steps=3, sde_steps=(1,)).transitions
    train_a_little(ours)
    with ours.reference():
        assert torch.allclose(ours.score(base, 0).log_prob, base.old_log_prob[0], atol=1e-5)
    assert not torch.allclose(ours.score(base, 0).log_prob, base.old_log_prob[0])


@pytest.mark.parametrize("family", ["flux", "sd3", "qwen-image", "z-image"])
def test_prompts_are_encoded_once_and_the_text_encoders_then_left_out(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    plain = recipe(checkpoints, family)
    cached = replace(plain, text_cache=str(tmp_path / "texts"))
    expected = load_policy(plain).sample(PROMPTS, SEEDS, steps=3)
    loads: list[str] = []
    load = policies.load_pipeline
    monkeypatch.setattr(policies, "load_pipeline", lambda r, parts: loads.append(parts) or load(r, parts))
    first = load_policy(cached, prompts=PROMPTS)
    again = load_policy(cached, prompts=PROMPTS[::-1])
    assert loads == ["text", "image", "image"]
    files = [path for path in (tmp_path / "texts").rglob("*") if path.is_file()]
    assert len(files) == len({policies.FAMILIES[family].unprompted, *PROMPTS})
    for policy in (first, again):
        parts = policy.pipeline.components
        assert all(parts[name] is None for name in parts if name.startswith(("text_encoder", "tokenizer")))
        drawn = policy.sample(PROMPTS, SEEDS, steps=3)
        torch.testing.assert_close(drawn.transitions.final, expected.transitions.final, rtol=0, atol=1e-5)
    load_policy(replace(cached, max_sequence_length=4), prompts=PROMPTS)  # other settings, other embeddings
    load_policy(cached, prompts=[*PROMPTS, "a green car"])
    assert loads[3:] == ["text", "image"] * 2
    with pytest.raises(SdgError, match=r"not in policy\.text_cache"):
        again.sample(["a blue dog"], [0], steps=3)


def test_a_generator_that_was_trained_again_is_not_taken_for_the_one_before(
    checkpoints: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "flux"
    shutil.copytree(checkpoints / "flux", folder)
    cached = replace(recipe(checkpoints, "flux"), model=str(folder), text_cache=str(tmp_path / "texts"))
    load_policy(cached, prompts=["a red cup"])
    assert "a red cup" in TextCache(cached)
    encoder = next((folder / "text_encoder").glob("*.safetensors"))
    os.utime(encoder, ns=(0, 0))
    assert "a red cup" not in TextCache(cached)


def test_processes_share_out_what_is_to_be_encoded(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = replace(recipe(checkpoints, "flux"), text_cache=str(tmp_path / "texts"))
    together, own = threading.Barrier(2, timeout=20), threading.local()
    waiting = SimpleNamespace(num_processes=2, wait_for_everyone=together.wait)
    state = lambda: SimpleNamespace(**vars(waiting), local_process_index=own.rank)  # noqa: E731
    monkeypatch.setattr("accelerate.PartialState", state)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    encoded: dict[int, list[str]] = {0: [], 1: []}

    def fill(rank: int) -> None:
        own.rank = rank
        encode = lambda prompt: encoded[rank].append(prompt) or {"tokens": torch.ones(1)}  # noqa: E731
        TextCache(cached).fill([*toy.PROMPTS, *toy.PROMPTS], lambda: encode)

    for _ in range(2):  # the second time there is nothing to do
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fill, (0, 1)))
    assert sorted(encoded[0] + encoded[1]) == sorted(toy.PROMPTS)
    assert len(encoded[0]) == len(encoded[1])


def test_a_damaged_embedding_is_said_in_a_sentence(checkpoints: Path, tmp_path: Path) -> None:
    cached = replace(recipe(checkpoints, "flux"), text_cache=str(tmp_path / "texts"))
    policy = load_policy(cached, prompts=["a red cup"])
    for file in (tmp_path / "texts").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(SdgError, match=r"safetensors is damaged; delete it"):
        policy.encode(["a red cup"])


def test_a_prompt_is_encoded_once_while_the_cache_has_room(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = policy(checkpoints, "flux", prompt_cache=2)
    encoded: list[str] = []
    encode = ours._encode
    monkeypatch.setattr(ours, "_encode", lambda prompt: encoded.append(prompt) or encode(prompt))
    ours.encode(["a red cup", "a blue hat", "a red cup"])
    ours.encode(["a green dog"])  # pushes out the hat, not the cup
    ours.encode(["a red cup"])
    assert encoded == ["a red cup", "a blue hat", "a green dog"]
    ours.encode(["a blue hat"])
    assert encoded[3:] == ["a blue hat"]


def test_an_average_follows_with_its_decay_and_gives_the_weights_back(plain: Plain) -> None:
    ours = plain("flux")
    parameters = lora_parameters(ours.transformer)
    start = {k: p.detach().clone() for k, p in parameters.items()}
    ema = Ema(parameters, limit=0.9)
    train_a_little(ours)
    now = {k: p.detach().clone() for k, p in parameters.items()}
    ema.update(time=0)  # decay (1+0)/(10+0)
    with ema.applied():
        for name, parameter in parameters.items():
            assert torch.allclose(parameter, 0.1 * start[name] + 0.9 * now[name], atol=1e-6)
    assert all(torch.equal(parameter, now[name]) for name, parameter in parameters.items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lora": LoraRecipe(targets=("to_x",))}, "names to_x, but no linear layer"),
        ({"height": 18}, "multiples of 4 pixels, not 18×24"),
        ({"model": "/nowhere"}, "/nowhere cannot be loaded as a FluxPipeline"),
        ({"model": "python:toy.nothing"}, "names no function"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(
    checkpoints: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SdgError, match=sentence):
        load_policy(replace(recipe(checkpoints, "flux"), **changes))


@pytest.mark.parametrize(
    ("stored", "family", "sentence"),
    [
        (None, "flux2", "is of the family flux, not flux2; change policy.family"),
        (None, "sd3", "is of the family flux, not sd3; change policy.family"),
        ("LongCatImagePipeline", "flux", "is of the family longcat-image, not flux"),
        ("FluxFillPipeline", "z-image", "is a FluxFillPipeline, which family z-image cannot train"),
    ],
)
def test_a_model_of_another_family_is_said(
    checkpoints: Path, tmp_path: Path, stored: str | None, family: str, sentence: str
) -> None:
    model = shutil.copytree(checkpoints / "flux", tmp_path / "model")
    if stored:
        index = model / "model_index.json"
        index.write_text(index.read_text().replace("FluxPipeline", stored))
    other = replace(recipe(checkpoints, "flux"), family=family, model=str(model))
    for read in (load_pipeline, lambda recipe: configured(recipe.family, recipe.model)):
        with pytest.raises(SdgError, match=sentence):
            read(other)


def test_a_sibling_of_a_familys_pipeline_is_loaded(checkpoints: Path, tmp_path: Path) -> None:
    model = shutil.copytree(checkpoints / "flux", tmp_path / "model")
    index = model / "model_index.json"
    index.write_text(index.read_text().replace("FluxPipeline", "FluxImg2ImgPipeline"))
    sibling = replace(recipe(checkpoints, "flux"), model=str(model))
    assert type(load_pipeline(sibling)).__name__ == "FluxPipeline"
    assert configured("flux", str(model)).model == str(model)


def test_a_model_may_be_named_by_a_function(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_CHECKPOINT", str(checkpoints / "flux"))
    named = replace(recipe(checkpoints, "flux"), model="python:toy.checkpoint_folder")
    assert load_pipeline(named).transformer.config.in_channels == 16


def test_an_adapter_that_the_disk_refuses_is_said(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = policy(checkpoints, "flux")
    (tmp_path / "run").write_text("a file")
    with pytest.raises(SdgError, match="cannot be written: Not a directory"):
        save_trained(ours, tmp_path / "run" / "best")

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(ours.pipeline_class(), "save_lora_weights", full)
    with pytest.raises(SdgError, match=r"cannot be written: .*No space left"):
        save_trained(ours, tmp_path / "best")
    assert not list((tmp_path / "best").iterdir())
