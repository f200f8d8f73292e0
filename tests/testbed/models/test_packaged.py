"""The weights inside the package: sizes, cards, and that each model does what its card says."""

import json

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen3VLForConditionalGeneration

import sdg
from sdg.defects import Status
from sdg.models.vlm import rope_not_interleaved
from sdg.response import format_fault
from sdg.testbed import oracle
from sdg.testbed.injection import sample as injected
from sdg.testbed.models.generator.sampling import held_out_prompts, sample_pictures
from sdg.testbed.models.measure import measure_scorer
from sdg.testbed.models.packaged import ALIGNED, DETECTOR, GENERATOR, SCORER, WEIGHTS, load_generator

LARGEST = {GENERATOR: 16_000_000, SCORER: 4_000_000, DETECTOR: 12_000_000, ALIGNED: 4_000_000}


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("folder", LARGEST, ids=lambda folder: folder.name)
def test_weights_are_small_bf16_safetensors_with_a_card(folder):
    assert size(folder) <= LARGEST[folder]
    card = (folder / "README.md").read_text("utf-8")
    for part in ("Seed", "Command", "Time", "Measured", "Limits"):
        assert part in card
    assert not [file for file in folder.rglob("*") if file.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names = tensors.keys()
            assert {tensors.get_tensor(name).dtype for name in names} <= {torch.bfloat16, torch.int64}


def test_the_aligned_adapter_carries_its_alpha_and_changes_the_pictures():
    with safe_open(ALIGNED / "pytorch_lora_weights.safetensors", "pt") as tensors:
        metadata = json.loads(tensors.metadata()["lora_adapter_metadata"])
    assert (metadata["transformer.r"], metadata["transformer.lora_alpha"]) == (64, 128)
    prompts = held_out_prompts(2, 0)
    base, aligned = (
        sample_pictures(generator, prompts, steps=4, numbers=[0, 1])
        for generator in (load_generator(), load_generator(lora=ALIGNED))
    )
    assert all(one != other for one, other in zip(base, aligned, strict=True))


def test_all_weights_together_stay_within_the_repositorys_budget():
    assert size(WEIGHTS) <= 40_000_000


def test_the_generator_is_a_standard_pipeline_of_diffusers():
    classes = json.loads((GENERATOR / "model_index.json").read_text())
    assert classes["_class_name"] == "FluxPipeline"
    assert classes["transformer"] == ["diffusers", "FluxTransformer2DModel"]
    assert classes["text_encoder_2"] == ["transformers", "T5EncoderModel"]
    pipeline = FluxPipeline.from_pretrained(GENERATOR)
    assert isinstance(pipeline, FluxPipeline)


def test_the_generators_velocity_turns_with_the_noise_level_and_with_the_pooled_prompt():
    pipeline = load_generator()
    prompts = ["A red square on a white background", "Two blue circles on a black background"]
    tokens, pooled, places = pipeline.encode_prompt(prompts, None, max_sequence_length=24)
    noisy = torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0))
    grid = pipeline._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)

    def velocity(level, pooled):
        with torch.no_grad():
            return pipeline.transformer(
                noisy, tokens[:1], pooled, torch.tensor([level]), grid, places, return_dict=False
            )[0]

    usual = velocity(0.8, pooled[:1])
    for level, less in ((0.7, 1e-2), (0.4, 0.1)):
        assert torch.dist(velocity(level, pooled[:1]), usual) > less * usual.norm()
    assert torch.dist(velocity(0.8, pooled[1:]), usual) > 1e-4 * usual.norm()
    for name, weight in pipeline.transformer.named_parameters():
        assert weight.any(), name


def test_pictures_follow_the_prompt_from_the_same_noise():
    generator = load_generator()
    prompts = ["A red square on a white background", "A blue square on a white background"]
    red, blue = sample_pictures(generator, prompts, steps=8, numbers=[5, 5])
    reddish, bluish = (
        np.asarray(picture).astype(int)[..., 0] - np.asarray(picture).astype(int)[..., 2]
        for picture in (red, blue)
    )
    assert (reddish > 60).sum() > 200 > (bluish > 60).sum()
    assert (bluish < -60).sum() > 200 > (reddish < -60).sum()


def test_the_generator_is_good_but_visibly_imperfect():
    prompts = held_out_prompts(24, seed=3)
    pictures = sample_pictures(load_generator(), prompts, steps=12, seed=3)
    clean = sum(oracle.diagnose(*case).is_clean for case in zip(pictures, prompts, strict=True))
    assert 10 <= clean <= 23  # two thirds are expected, and this is a small sample


def test_the_scorer_tells_a_prompt_from_one_that_differs_in_one_fact():
    quality = measure_scorer(scenes=200, seed=1)
    assert quality.accuracy["against one changed fact"][0] > 0.75


def test_the_detector_is_a_standard_checkpoint_of_transformers():
    model = AutoModelForImageTextToText.from_pretrained(DETECTOR, dtype=torch.float32)
    assert isinstance(model, Qwen3VLForConditionalGeneration)
    assert (
        AutoProcessor.from_pretrained(DETECTOR).tokenizer.decode(model.config.image_token_id)
        == "<|image_pad|>"
    )
    assert not rope_not_interleaved(model.config)


def test_the_detector_finds_injected_defects_of_prompts_it_never_saw():
    rng = np.random.default_rng(2026)
    drawn = [injected(rng, split="test") for _ in range(48)]
    detector = sdg.load_detector("testbed?batch_size=48")
    found = detector.diagnose([(Image.fromarray(one.picture), one.prompt) for one in drawn])
    assert all(format_fault(diagnosis.raw) is None for diagnosis in found)
    scores = sdg.evaluate([one.diagnosis for one in drawn], found).to_dict()
    assert scores["artifact"]["BoxF1@0.5"] > 0.5
    assert scores["misalignment"]["BoxF1@0.1"] > 0.35
    assert scores["artifact"]["ClnAcc"] > 0.7


def test_the_detector_says_that_another_world_is_not_its_own():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    scene = injected(np.random.default_rng(0), kind="clean")
    detector = sdg.load_detector("testbed")
    found = detector.diagnose([(noise, scene.prompt), (Image.fromarray(scene.picture), "a photo of a cat")])
    assert [diagnosis.status for diagnosis in found] == [Status.FAILED, Status.FAILED]
