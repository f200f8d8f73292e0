"""A diffusers pipeline edits what the mask lets it, repeatably; real Flux classes, toy size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy
from diffusers import (
    DDIMScheduler,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    StableDiffusion3InpaintPipeline,
)
from PIL import Image, ImageOps

from sdg import Defect, Diagnosis
from sdg.alignment.policies import load_policy
from sdg.alignment.recipe import PolicyRecipe
from sdg.errors import SdgError
from sdg.models.lora import lora_parameters, save_lora
from sdg.refinement import (
    DiffusersEditor,
    EditRequest,
    EditResult,
    build_request,
    diffusers_editor,
    load_editor,
)
from sdg.refinement.masks import composite
from sdg.sections import LoraRecipe

DIAGNOSIS = Diagnosis((Defect((300, 300, 700, 700), "artifact", "a crack", 80),))


def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (18, 26, 3), dtype=np.uint8)  # fits no multiple of 4
    return Image.fromarray(values)


@pytest.fixture(scope="module", params=[FluxInpaintPipeline, FluxImg2ImgPipeline])
def editor(request: pytest.FixtureRequest) -> DiffusersEditor:
    pipeline = request.param.from_pipe(toy.flux_pipeline())
    pipeline.set_progress_bar_config(disable=True)
    return DiffusersEditor(pipeline, steps=2)


def test_an_edit_has_the_size_of_its_picture_and_leaves_the_outside_alone(editor: DiffusersEditor) -> None:
    request = build_request(picture(), "a red cup", DIAGNOSIS)
    (result,) = editor.edit([request])
    assert result.picture is not None
    assert result.picture.size == request.picture.size
    mask = request.mask if result.mask is None else result.mask
    after = np.asarray(composite(request.picture, result.picture, mask))
    before = np.asarray(request.picture)
    assert (mask == 0).any()
    assert (after[mask == 0] == before[mask == 0]).all()
    assert (after[mask == 1] != before[mask == 1]).any()


def test_a_request_gives_the_same_picture_alone_and_in_company(editor: DiffusersEditor) -> None:
    requests = [build_request(picture(), "a red cup", DIAGNOSIS, seed=seed) for seed in (1, 2)]
    together = [result.picture for result in editor.edit(requests)]
    alone = editor.edit(requests[1:])[0].picture
    assert together[1] == alone
    assert together[0] != alone


def test_stochastic_sampling_repeats_itself_and_leaves_the_rest_as_it_was() -> None:
    generator = toy.flux_pipeline()
    request = build_request(picture(), "a red cup", DIAGNOSIS, mode="fixed", seed=4)
    ode, fresh = (
        DiffusersEditor(FluxInpaintPipeline.from_pipe(generator), steps=4, stochastic=stochastic)
        for stochastic in (False, True)
    )
    torch.manual_seed(1)
    first = fresh.edit([request])[0].picture
    left = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), left)  # the global generator is where it was
    assert fresh.edit([request])[0].picture == first
    assert ode.edit([request])[0].picture != first
    assert not generator.scheduler.config.stochastic_sampling


def test_a_stochastic_step_renoises_the_clean_picture_that_the_model_sees() -> None:
    pipeline = FluxInpaintPipeline.from_pipe(toy.flux_pipeline())
    DiffusersEditor(pipeline, steps=4, stochastic=True)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(sigmas=[0.8, 0.4], mu=0.0)
    high, low, _ = scheduler.sigmas.tolist()
    x, velocity = torch.randn(2, 1, 3, 4)
    torch.manual_seed(2)
    after = scheduler.step(velocity, scheduler.timesteps[0], x).prev_sample
    torch.manual_seed(2)
    expected = (1 - low) * (x - high * velocity) + low * torch.randn(1, 3, 4)
    assert torch.allclose(after, expected, atol=1e-5)


def test_a_scheduler_without_noise_of_its_own_is_refused_in_one_sentence() -> None:
    pipeline = FluxInpaintPipeline.from_pipe(toy.flux_pipeline())
    pipeline.scheduler = DDIMScheduler()
    with pytest.raises(SdgError, match="DDIMScheduler has no stochastic sampling; leave that option out"):
        DiffusersEditor(pipeline, stochastic=True)


BLENDING = {
    FluxInpaintPipeline: toy.flux_pipeline,
    StableDiffusion3InpaintPipeline: partial(toy.sd3_pipeline, 16),
}


@pytest.mark.parametrize("family", BLENDING)
def test_equal_strengths_everywhere_are_the_pipelines_own_inpainting(family: type) -> None:
    square = picture().resize((16, 16))
    request = build_request(square, "a red cup", DIAGNOSIS, mode="fixed", seed=3)
    with torch.no_grad():
        expected = family.from_pipe(BLENDING[family]())(
            prompt="a red cup",
            image=square,
            mask_image=Image.new("L", square.size, 255),
            width=16,
            height=16,
            strength=request.strength,
            num_inference_steps=6,
            max_sequence_length=toy.tokenizer().model_max_length,
            generator=torch.Generator("cpu").manual_seed(3),
        ).images[0]
    (result,) = DiffusersEditor(family.from_pipe(BLENDING[family]()), steps=6).edit([request])
    assert result.picture == expected
    assert result.mask is not None
    assert (result.mask == 1).all()


@pytest.mark.parametrize("family", BLENDING)
def test_the_weaker_a_pixels_strength_the_fewer_steps_it_takes_part_in(family: type, monkeypatch) -> None:
    free: list[list[float]] = []

    class Recorded(diffusers_editor._Schedule):
        def __call__(self, pipeline, step, timestep, tensors):
            answer = super().__call__(pipeline, step, timestep, tensors)
            shares.append(float(tensors["mask"].mean()))
            return answer

    monkeypatch.setattr(diffusers_editor, "_Schedule", Recorded)
    editor = DiffusersEditor(family.from_pipe(BLENDING[family]()), steps=10)
    request = build_request(picture().resize((16, 16)), "a red cup", DIAGNOSIS)
    for strength in (0.8, 0.3, 0.1):
        strengths = np.zeros((16, 16))
        strengths[:, :8], strengths[:, 12:] = 0.8, strength  # a quarter of the picture has it, one is kept
        shares: list[float] = []
        (result,) = editor.edit([replace(request, strength=0.8, strengths=strengths)])
        assert result.picture is not None, result.error
        assert result.mask is not None
        assert (result.mask[:, 8:12] == 0).all()
        free.append(shares)
    # 0.8 of 10 steps is 8 steps; after each of them the mask is set for the next, of which 6 are left.
    assert free == [[0.75] * 8, [0.5] * 4 + [0.75] * 4, [0.5] * 6 + [0.75] * 2]


def test_image_to_image_gets_one_strength_and_the_requests_mask() -> None:
    editor = DiffusersEditor(FluxImg2ImgPipeline.from_pipe(toy.flux_pipeline()), steps=2)
    (result,) = editor.edit([build_request(picture(), "a red cup", DIAGNOSIS)])
    assert result.picture is not None
    assert result.mask is None


def test_a_strength_below_one_step_still_edits() -> None:
    pipeline = FluxInpaintPipeline.from_pipe(toy.flux_pipeline())
    request = build_request(picture(), "a red cup", Diagnosis((Defect((0, 0, 500, 500), "artifact"),)))
    weak = type(request)(**{**{name: getattr(request, name) for name in request.__slots__}, "strength": 0.01})
    assert DiffusersEditor(pipeline, steps=2).edit([weak])[0].picture is not None


def test_an_edit_of_one_step_leaves_no_ghost_of_what_was_there() -> None:
    pipeline = FluxInpaintPipeline.from_pipe(toy.flux_pipeline())
    request = build_request(picture(), "a red cup", DIAGNOSIS)
    assert request.strength < 0.6  # of two steps little more than one, of one step less than it
    for steps in (1, 2):
        mask = DiffusersEditor(pipeline, steps=steps).edit([request])[0].mask
        assert mask is not None
        assert (mask[request.mask == 1] == 1).all()


def test_an_autoencoder_that_names_its_channels_otherwise_blends_latents_too() -> None:
    class Other(FluxInpaintPipeline):
        pass

    pipeline = Other.from_pipe(toy.flux_pipeline())
    channels = pipeline.vae.config.latent_channels
    pipeline.vae._internal_dict = type(pipeline.vae.config)(z_dim=channels)
    assert DiffusersEditor(pipeline, steps=2)._grades


def test_a_pipeline_without_a_picture_is_no_editor() -> None:
    with pytest.raises(SdgError, match="FluxPipeline edits no pictures"):
        DiffusersEditor(toy.flux_pipeline())


@pytest.mark.parametrize("uri", ["photoshop", "diffusers:", "diffusers:/nowhere/at-all", "testbed:/nowhere"])
def test_an_editor_that_is_not_there_is_said_so(uri: str) -> None:
    with pytest.raises(SdgError):
        load_editor(uri)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    toy.flux_pipeline().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("scheme", "options"), [("diffusers", {}), ("diffusers", {"dtype": "bfloat16"}), ("testbed", {})]
)
def test_a_saved_pipeline_loads_as_an_inpainting_editor(saved: Path, scheme: str, options: dict) -> None:
    editor = load_editor(f"{scheme}:{saved}", steps=2, **options)
    request = build_request(picture(), "a red cup", DIAGNOSIS)
    assert editor.edit([request])[0].picture is not None


def adapter(folder: Path) -> Path:
    """An adapter of the toy pipeline whose second matrices are not zero, as they are before training."""
    recipe = PolicyRecipe(
        family="flux",
        model=str(folder),
        height=16,
        width=16,
        lora=LoraRecipe(r=2, alpha=4, targets=("attn.to_q",)),
    )
    policy = load_policy(recipe)
    with torch.no_grad():
        for parameter in lora_parameters(policy.transformer).values():
            parameter.fill_(0.5)
    return save_lora(policy, folder / "adapter").parent


def test_the_embedded_editor_alone_is_stochastic_unless_the_uri_says_otherwise(saved: Path) -> None:
    request = build_request(picture(), "a red cup", DIAGNOSIS, mode="fixed")
    edited = {
        uri: load_editor(uri.replace(":", f":{saved}"), steps=4).edit([request])[0].picture
        for uri in (
            "testbed:", "testbed:?sampling=stochastic", "testbed:?sampling=ode",
            "diffusers:", "diffusers:?sampling=stochastic", "diffusers:?sampling=ode",
        )
    }  # fmt: skip
    fresh, again, ode, *others = edited.values()
    assert fresh == again != ode
    assert others == [ode, fresh, ode]
    with pytest.raises(SdgError, match="one of ode, stochastic"):
        load_editor(f"testbed:{saved}?sampling=sde")


@pytest.mark.parametrize("scheme", ["diffusers", "testbed"])
def test_an_editor_takes_an_adapter(saved: Path, scheme: str) -> None:
    lora = adapter(saved)
    request = build_request(picture(), "a red cup", DIAGNOSIS)
    plain, adapted = (
        load_editor(f"{scheme}:{saved}{option}", steps=2).edit([request])[0].picture
        for option in ("", f"?lora={lora}")
    )
    assert plain is not None
    assert adapted is not None
    assert plain != adapted
    with pytest.raises(SdgError, match="holds no adapter"):
        load_editor(f"{scheme}:{saved}?lora={saved}")
    with pytest.raises(SdgError, match="did you mean 'lora'"):
        load_editor(f"{scheme}:{saved}?lore={lora}")


@pytest.mark.parametrize(
    ("device", "dtype", "loaded"),
    [
        ("cpu", "auto", torch.float32),
        ("meta", "auto", torch.bfloat16),  # a device that every machine has, and that holds no values
        ("meta", "float32", torch.float32),
    ],
)
def test_a_pipeline_is_in_half_precision_but_on_a_cpu(saved, monkeypatch, device, dtype, loaded) -> None:
    moved = []
    monkeypatch.setattr(FluxInpaintPipeline, "to", lambda self, to: moved.append((self, to)) or self)
    load_editor(f"diffusers:{saved}", device=device, dtype=dtype)
    ((pipeline, where),) = moved
    assert where == device
    parts = (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.vae)
    assert {value.dtype for part in parts for value in part.parameters()} == {loaded}


def test_a_pipeline_that_does_not_fit_is_one_sentence(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, device: str) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 24.00 MiB. GPU 0 has …")

    monkeypatch.setattr(FluxInpaintPipeline, "to", full)
    with pytest.raises(SdgError) as raised:
        load_editor(f"diffusers:{saved}", device="meta")
    assert str(raised.value) == (
        f"The memory of meta is too small for {saved} in bfloat16; "
        "take a device with more of it, or a smaller pipeline."
    )


def test_a_device_that_is_not_there_is_said_so(saved: Path) -> None:
    for scheme in ("diffusers", "testbed"):
        with pytest.raises(SdgError, match="There is no device 'cuda:77' here"):
            load_editor(f"{scheme}:{saved}", device="cuda:77")


def inverted(request: EditRequest) -> Image.Image | None:
    """An editor as a function."""
    if request.prompt == "?":
        raise KeyError("nothing to do")
    return None if request.prompt == "none" else ImageOps.invert(request.picture)


class Made:
    """An editor made by its class, with what `load_editor` is told."""

    concurrency = 3

    def __init__(self, *, steps: int, colour: str = "red") -> None:
        self.settings = steps, colour

    def edit(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        return [EditResult(request.picture) for request in requests]


def test_a_function_is_an_editor() -> None:
    requests = [build_request(picture(), prompt, DIAGNOSIS) for prompt in ("a red cup", "?")]
    edited, failed = load_editor(f"python:{__name__}.inverted").edit(requests)
    assert edited == EditResult(ImageOps.invert(requests[0].picture))
    assert failed.picture is None
    assert re.fullmatch(r"KeyError: 'nothing to do' at \S+test_editors\.py:\d+", failed.error)
    with pytest.raises(SdgError, match="returned NoneType, not a picture"):
        load_editor(f"python:{__name__}.inverted").edit([build_request(picture(), "none", DIAGNOSIS)])


def broken(request: EditRequest) -> Image.Image:
    """An editor whose picture is opened, and cut short behind its header."""
    content = BytesIO()
    request.picture.save(content, "PNG")
    return Image.open(BytesIO(content.getvalue()[:-60]))


def deep(request: EditRequest) -> Image.Image:
    """An editor whose grey picture has 16 bits."""
    return Image.fromarray(np.full((18, 26), 32768, np.uint16))


def test_what_a_function_returns_is_a_whole_picture_of_8_bits() -> None:
    request = build_request(picture(), "a red cup", DIAGNOSIS)
    (failed,) = load_editor(f"python:{__name__}.broken").edit([request])
    assert failed.picture is None
    assert "damaged" in failed.error
    (grey,) = load_editor(f"python:{__name__}.deep").edit([request])
    assert grey.picture == Image.new("RGB", (26, 18), (128, 128, 128))


def test_a_picture_that_a_safety_checker_blackened_is_no_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = FluxInpaintPipeline.from_pipe(toy.flux_pipeline())
    editor, draw = DiffusersEditor(pipeline, steps=1), FluxInpaintPipeline.__call__

    def checked(self: FluxInpaintPipeline, **settings: object) -> SimpleNamespace:
        return SimpleNamespace(images=draw(self, **settings).images, nsfw_content_detected=[True])

    monkeypatch.setattr(FluxInpaintPipeline, "__call__", checked)
    (result,) = editor.edit([build_request(picture(), "a red cup", DIAGNOSIS)])
    assert result == EditResult(None, "The pipeline's safety checker refused the edit.")


def test_a_class_makes_an_editor_of_its_options() -> None:
    made = load_editor(f"python:{__name__}.Made?colour=blue", steps=7)
    assert isinstance(made, Made)
    assert (made.settings, made.concurrency) == ((7, "blue"), 3)
    with pytest.raises(SdgError, match="unexpected keyword argument 'color'"):
        load_editor(f"python:{__name__}.Made?color=blue")
