"""The generator: packing, the flow's loss, a few steps of training, pictures by number."""

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.models import attention_dispatch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdg.errors import SdgError
from sdg.runs.checkpoint import latest_checkpoint, load_checkpoint
from sdg.testbed.models.generator import flow
from sdg.testbed.models.generator.cells import cell_targets
from sdg.testbed.models.generator.flow import (
    TextToVelocity,
    distil_guidance,
    encode_scenes,
    guided_loss,
    pack,
    random_noise,
    train_generator,
    velocity_loss,
)
from sdg.testbed.models.generator.pipeline import TEXT_LENGTH, new_pipeline, new_tokenizer
from sdg.testbed.models.generator.sampling import held_out_prompts, sample_grid, sample_pictures
from sdg.testbed.models.generator.vae import new_vae
from sdg.testbed.models.loop import Run, add_gradients
from sdg.testbed.models.packaged import load_generator
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.prompts import parse_prompt, split_of


def calibrated_vae():
    """An untrained autoencoder with the numbers that calibration would write."""
    torch.manual_seed(0)
    vae = new_vae()
    vae.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    return vae


@pytest.fixture(scope="module")
def pipeline():
    """An untrained pipeline; before training its text does not matter, only its noise."""
    made = new_pipeline(calibrated_vae(), seed=0)
    return made


@pytest.fixture
def few_pictures(monkeypatch):
    """No more scenes are encoded than a test asks for, and the grid has one colour."""
    monkeypatch.setattr(flow, "CHUNK", 2)
    monkeypatch.setattr(flow, "sample_grid", lambda pipeline: Image.new("RGB", (8, 8)))


def test_noise_levels_are_logit_normal_and_spread_over_the_batch():
    rng = np.random.default_rng(0)
    drawn = [random_noise(rng, 64, 4, 8) for _ in range(50)]
    normal = torch.logit(torch.cat([each["sigma"] for each in drawn])) - flow.LEVEL_MEAN
    assert abs(float(normal.mean())) < 0.02
    assert abs(float(normal.std()) - 1) < 0.02
    parts = torch.special.ndtr(torch.logit(drawn[0]["sigma"]) - flow.LEVEL_MEAN).mul(64).long()
    assert sorted(parts.tolist()) == list(range(64))
    noise = torch.stack([each["noise"] for each in drawn])
    assert noise.shape == (50, 64, 4, 8)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01


def test_halves_of_a_batch_side_by_side_have_the_gradient_of_one_after_the_other(pipeline, monkeypatch):
    # As they are worked on where the CPU has no units for bfloat16; with them a batch is never halved, as
    # attention's settings are the process's.
    for module in ("sdg.models.device", "sdg.testbed.models.generator.flow"):
        monkeypatch.setattr(f"{module}.cpu_autocast_dtype", lambda: torch.float32)
    model = copy.deepcopy(TextToVelocity(pipeline, cells=True))
    for parameter in model.parameters():  # so that every part has a say
        torch.nn.init.normal_(parameter, std=0.02)
    grid = FluxPipeline._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)
    halves = []
    for half in range(2):
        rng = np.random.default_rng(half)
        scenes = [sample_scene(rng)[2] for _ in range(3)]
        ids = torch.full((3, TEXT_LENGTH), 4 + half)
        batch = {"tokens": torch.randn(3, 64, 32), "clip_ids": ids, "t5_ids": ids, **cell_targets(scenes)}
        halves.append(batch | random_noise(rng, 3, 64, 32))
    seen = []
    for pool in (None, ThreadPoolExecutor(2)):
        model.zero_grad()
        parts = add_gradients(partial(velocity_loss, model, grid=grid), halves, pool)
        seen.append((parts, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (one, gradients), (other, others) = seen
    assert one == pytest.approx(other, rel=1e-5)
    assert any(gradient.any() for gradient in gradients)
    for gradient, same in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, same, rtol=1e-4, atol=1e-6)


def test_gradient_reaches_what_the_modulation_is_made_from():
    transformer = new_pipeline(calibrated_vae(), seed=0).transformer
    torch.nn.init.normal_(transformer.proj_out.weight)  # it starts at zero, and is the first to move
    noise_levels, pooled = torch.tensor([0.2, 0.8]), torch.randn(2, 128)
    places, text = torch.zeros(4, 3), torch.randn(2, TEXT_LENGTH, 128)
    velocity = transformer(
        torch.randn(2, 4, 32), text, pooled, noise_levels, places, torch.zeros(TEXT_LENGTH, 3)
    ).sample
    velocity.square().mean().backward()
    gate = transformer.transformer_blocks[0].norm1.linear
    assert not gate.weight.any()
    torch.optim.SGD(transformer.parameters(), lr=0.1).step()
    assert gate.weight.abs().sum(0).all()  # each feature of noise level and pooled text has a part in it


def test_tokens_hold_the_two_by_two_latents_of_their_place():
    latents = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).reshape(2, 3, 4, 6)
    tokens = pack(latents)
    assert tokens.shape == (2, 6, 12)
    expected = latents[1, :, 2:4, 4:6].reshape(3, 4)  # second picture, second row, third column
    assert torch.equal(tokens[1, 5].reshape(3, 4), expected)


def test_every_prompt_fits_and_no_word_is_unknown():
    for tokenizer in (new_tokenizer(start=True), new_tokenizer(start=False)):
        for prompt in held_out_prompts(300, seed=5):
            ids = tokenizer(prompt).input_ids
            assert len(ids) <= TEXT_LENGTH
            assert tokenizer.unk_token_id not in ids


def test_the_loss_is_zero_for_the_true_velocity_and_the_variance_for_none():
    clean = torch.randn(64, 8, 4)
    batch = {"tokens": clean, "clip_ids": None, "t5_ids": None}
    batch |= random_noise(np.random.default_rng(0), 64, 8, 4)

    def knowing(tokens, sigma, clip_ids, t5_ids, grid):
        noise = (tokens - (1 - sigma)[:, None, None] * clean) / sigma[:, None, None]
        return noise - clean

    assert float(velocity_loss(knowing, batch, None)["loss"]) < 1e-6
    still = velocity_loss(lambda tokens, *rest: torch.zeros_like(tokens), batch, None)
    variance = 2 * flow.level_weight(batch["sigma"]).mean()  # of noise − picture, both of variance 1
    assert float(still["loss"]) == pytest.approx(float(variance), rel=0.15)


def test_pictures_count_most_at_the_levels_between_noise_and_layout():
    levels = torch.linspace(0, 1, 41)
    weights = flow.level_weight(levels)
    assert weights[28] == pytest.approx(1)  # level .7
    assert float(levels[weights.argmax()]) == pytest.approx(0.4)
    rises = weights.diff() > 0
    assert rises[:16].all()
    assert not rises[16:].any()
    assert weights.min() > 0.3


def test_what_cells_show_is_learned_beside_the_velocity(pipeline):
    model = TextToVelocity(pipeline, cells=True)
    scenes = [sample_scene(np.random.default_rng(i))[2] for i in range(4)]
    ids = torch.ones(4, TEXT_LENGTH, dtype=torch.long)
    batch = {"tokens": torch.randn(4, 64, 32), "clip_ids": ids, "t5_ids": ids, **cell_targets(scenes)}
    batch |= random_noise(np.random.default_rng(0), 4, 64, 32)
    grid = FluxPipeline._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)
    parts = velocity_loss(model, batch, grid)
    assert parts["loss"].item() == pytest.approx(
        float(parts["velocity"].detach() + flow.CELL_WEIGHT * parts["cells"].detach()), rel=1e-5
    )
    parts["cells"].backward()
    blocks = pipeline.transformer.single_transformer_blocks
    # At the start every block is the identity and its gate alone can move; blocks after the middle cannot.
    assert blocks[1].norm.linear.weight.grad.any()
    assert blocks[-1].norm.linear.weight.grad is None
    model.zero_grad()


def test_how_attention_is_computed_in_training_is_no_setting_of_the_process(pipeline, monkeypatch):
    """It was left behind, and changed what later computations of the process took and gave."""
    used = []

    def look(*given, **named):
        used.append((active(), torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()))
        return (torch.zeros(1, 4, 32),)

    def active():
        return attention_dispatch._AttentionBackendRegistry.get_active_backend()[0].value

    monkeypatch.setattr(flow, "cpu_autocast_dtype", lambda: torch.bfloat16)
    monkeypatch.setattr(pipeline.transformer, "forward", look)
    before = active(), torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    ids = torch.ones(1, TEXT_LENGTH, dtype=torch.long)
    TextToVelocity(pipeline)(torch.zeros(1, 4, 32), torch.ones(1), ids, ids, torch.zeros(4, 3))
    assert used == [("_native_math", True)]
    assert (active(), torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()) == before


def test_encoded_scenes_are_of_the_train_split_and_kept(tmp_path):
    vae = calibrated_vae()
    cache = tmp_path / "latents.safetensors"
    tokens, prompts, scenes = encode_scenes(vae, 3, 1, cache)
    assert tokens.shape == (3, 64, 32)
    assert len(scenes) == len(prompts) == 3
    assert {split_of(parse_prompt(prompt)) for prompt in prompts} == {"train"}
    before = cache.stat().st_mtime_ns
    again, same_prompts, same_scenes = encode_scenes(vae, 3, 1, cache)
    assert torch.equal(tokens, again)
    assert (same_prompts, same_scenes) == (prompts, scenes)
    assert cache.stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["latents.safetensors"]


def test_latents_of_another_seed_or_autoencoder_are_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "CHUNK", 2)
    vae, cache = calibrated_vae(), tmp_path / "latents.safetensors"
    first, _, _ = encode_scenes(vae, 2, 1, cache)
    other, _, _ = encode_scenes(vae, 2, 2, cache)
    alone, _, _ = encode_scenes(vae, 2, 2, tmp_path / "alone.safetensors")
    assert torch.equal(other, alone)
    assert not torch.equal(other, first)
    with torch.no_grad():
        next(vae.parameters()).mul_(2)
    changed, _, _ = encode_scenes(vae, 2, 2, cache)
    assert not torch.equal(changed, other)


def test_more_scenes_begin_with_the_ones_that_are_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "CHUNK", 2)
    vae, cache = calibrated_vae(), tmp_path / "latents.safetensors"
    few, few_prompts, _ = encode_scenes(vae, 3, 1, cache)
    marked = torch.full_like(load_file(cache)["tokens"], 7)
    save_file({"tokens": marked}, cache)  # what is encoded is not encoded again
    more, prompts, _ = encode_scenes(vae, 5, 1, cache)
    assert torch.equal(more[:4], marked)
    assert prompts[:3] == few_prompts
    once, _, _ = encode_scenes(vae, 5, 1, tmp_path / "at once.safetensors")
    assert torch.equal(once[4], more[4])
    assert torch.equal(once[:3], few)


@pytest.mark.usefixtures("few_pictures")
def test_a_few_steps_of_training_are_saved_as_a_pipeline_and_can_be_resumed(tmp_path):
    calibrated_vae().save_pretrained(tmp_path / "vae")
    run = tmp_path / "run"
    train_generator(tmp_path / "vae", Run(run, 2), batch_size=4, scenes=6)
    with pytest.raises(SdgError, match="go on with --resume"):
        train_generator(tmp_path / "vae", Run(run, 3), batch_size=4, scenes=6)
    trained = train_generator(tmp_path / "vae", Run(run, 3, resume=True), batch_size=4, scenes=6)
    assert latest_checkpoint(run) == run / "checkpoints" / "000003"
    assert {path.name for path in run.glob("grid-*")} == {"grid-000002.png", "grid-000003.png"}
    loaded = load_generator(run / "pipeline")
    for name, value in trained.transformer.state_dict().items():
        assert torch.equal(value, loaded.transformer.state_dict()[name]), name
    # The average goes over a tenth of the steps in which the learning rate falls: here over the last one.
    kept, _ = load_checkpoint(run / "checkpoints" / "000003")
    averaged = [name for name in kept if name.startswith("average.")]
    assert averaged
    assert all(torch.equal(kept[name], kept["model." + name[8:]]) for name in averaged)


@pytest.mark.usefixtures("few_pictures")
def test_training_further_keeps_what_is_learned_and_wakes_what_no_gradient_reaches(tmp_path):
    calibrated_vae().save_pretrained(tmp_path / "vae")
    known = new_pipeline(calibrated_vae(), seed=1)
    embedders = known.transformer.time_text_embed
    for parameter in embedders.parameters():
        torch.nn.init.zeros_(parameter)
    settings = {"batch_size": 2, "scenes": 2, "learning_rate": 1e-4}
    further = train_generator(tmp_path / "vae", Run(tmp_path / "run", 1), start_from=known, **settings)
    before, after = known.transformer.state_dict(), further.transformer.state_dict()
    assert all(after[name].any() for name in after if "time_text_embed" in name and "weight" in name)
    drift = max(float((after[n] - before[n]).abs().max()) for n in before if "time_text_embed" not in n)
    assert drift < 1e-2
    assert not any(value.any() for value in embedders.state_dict().values())  # the given one stays
    wider = new_pipeline(calibrated_vae())
    wider.transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1, num_attention_heads=2)
    with pytest.raises(SdgError, match="transformer to start from is of another shape"):
        train_generator(tmp_path / "vae", Run(tmp_path / "other", 1), start_from=wider, **settings)


def test_training_without_an_autoencoder_is_a_sentence(tmp_path):
    with pytest.raises(SdgError, match="no autoencoder"):
        train_generator(tmp_path, Run(tmp_path / "run", 1))
    assert not (tmp_path / "run").exists()


def test_a_picture_depends_on_seed_and_number_and_not_on_its_batch(pipeline):
    prompts = held_out_prompts(2, seed=0)

    def draw(prompts, **settings):
        return [np.asarray(p, int) for p in sample_pictures(pipeline, prompts, steps=1, **settings)]

    first, second = draw(prompts, seed=1)
    assert first.shape == (128, 128, 3)
    # Another batch may round differently, by a grey level.
    np.testing.assert_allclose(draw(prompts[1:], seed=1, numbers=[1])[0], second, atol=1)
    np.testing.assert_allclose(draw(prompts, seed=1, chunk=1)[1], second, atol=1)
    assert np.abs(draw(prompts[1:], seed=2, numbers=[1])[0] - second).max() > 5
    assert np.abs(draw(prompts[1:], seed=1, numbers=[0])[0] - second).max() > 5


def test_held_out_prompts_are_of_the_test_split_and_the_same_for_a_seed():
    prompts = held_out_prompts(20, seed=3)
    assert {split_of(parse_prompt(prompt)) for prompt in prompts} == {"test"}
    assert held_out_prompts(20, seed=3) == prompts
    assert held_out_prompts(20, seed=4) != prompts


def test_a_grid_shows_the_pictures_row_by_row(monkeypatch):
    colours = [(40 * i, 0, 0) for i in range(6)]
    monkeypatch.setattr(
        "sdg.testbed.models.generator.sampling.sample_pictures",
        lambda pipeline, prompts: [Image.new("RGB", (128, 128), colour) for colour in colours],
    )
    sheet = sample_grid(None, columns=3, rows=2)
    assert sheet.size == (384, 256)
    assert [sheet.getpixel((x, y)) for y in (5, 200) for x in (5, 200, 380)] == colours


def test_the_student_of_guidance_is_right_when_it_gives_the_guided_velocity():
    scale = 1.5
    batch = {name: torch.ones(6, 5, dtype=torch.long) for name in ("clip_ids", "t5_ids")}
    batch |= {"tokens": torch.randn(6, 8, 4), **random_noise(np.random.default_rng(0), 6, 8, 4)}
    empty = torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long)

    def teacher(tokens, sigma, clip_ids, t5_ids, grid):
        prompted = (clip_ids[:, 0] + t5_ids[:, 0]).float()[:, None, None]  # 2 with the prompt, 0 without
        return tokens + prompted

    def guided(tokens, *rest):
        return tokens + scale * 2

    right = guided_loss(guided, teacher, batch, empty, None, scale)
    assert float(right["loss"]) < 1e-4  # bf16 does not touch sums of fp32
    assert float(right["shift"]) == pytest.approx(1.0, rel=1e-4)  # guidance moves 2 to 3 everywhere
    same = guided_loss(teacher, teacher, batch, empty, None, scale)
    assert float(same["loss"]) == pytest.approx(float(same["shift"]), rel=1e-4)


@pytest.mark.usefixtures("few_pictures")
def test_distillation_starts_from_the_pipeline_and_leaves_it_alone(tmp_path, pipeline):
    before = {name: value.clone() for name, value in pipeline.transformer.state_dict().items()}
    settings = {"scale": 2.0, "batch_size": 2, "scenes": 8}
    distil_guidance(pipeline, Run(tmp_path / "run", 2), **settings)
    assert all(torch.equal(before[name], value) for name, value in pipeline.transformer.state_dict().items())
    made = load_generator(tmp_path / "run" / "pipeline")
    changed = [
        name for name, value in made.transformer.state_dict().items() if not torch.equal(before[name], value)
    ]
    assert changed
    drift = max(float((made.transformer.state_dict()[name] - before[name]).abs().max()) for name in changed)
    assert drift < 1e-2
