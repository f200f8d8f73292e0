"""A diffusers pipeline edits what the mask lets it, repeatably; real Flux classes, toy size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.refinement import DiffusersEditor, build_request, load_editor
from sdg.refinement.masks import composite

sys.path.append(str(Path(__file__).parents[1] / "alignment"))
import toy

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
    after = np.asarray(composite(request.picture, result.picture, request.mask))
    before = np.asarray(request.picture)
    assert (after[request.mask == 0] == before[request.mask == 0]).all()
    assert (after[request.mask == 1] != before[request.mask == 1]).any()


def test_a_request_gives_the_same_picture_alone_and_in_company(editor: DiffusersEditor) -> None:
    requests = [build_request(picture(), "a red cup", DIAGNOSIS, seed=seed) for seed in (1, 2)]
    together = [result.picture for result in editor.edit(requests)]
    alone = editor.edit(requests[1:])[0].picture
    assert together[1] == alone
    assert together[0] != alone


def test_a_strength_below_one_step_still_edits() -> None:
    pipeline = FluxInpaintPipeline.from_pipe(toy.flux_pipeline())
    request = build_request(picture(), "a red cup", Diagnosis((Defect((0, 0, 500, 500), "artifact"),)))
    weak = type(request)(**{**{name: getattr(request, name) for name in request.__slots__}, "strength": 0.01})
    assert DiffusersEditor(pipeline, steps=2).edit([weak])[0].picture is not None


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
