"""Each class of diffusers that edits, at toy size: told what it was trained on, bounded by the mask."""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_editors
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.refinement import DiffusersEditor, EditRequest, build_request, load_editor
from sdg.refinement.masks import composite
from sdg.refinement.pipelines import KNOWN

THOUGHT = "a red cup a blue hat"
DIAGNOSIS = Diagnosis((Defect((300, 300, 700, 700), "artifact", "a crack", 80),), THOUGHT)
INSTRUCTED = sorted(name for name, editing in KNOWN.items() if editing.instructed)
TOGETHER = sorted(name for name, editing in KNOWN.items() if editing.together)


def request(name: str = "", **options: Any) -> EditRequest:
    # Flux2 takes no side below 64 pixels, and the toy of Kontext is as coarse.
    size = (90, 70) if name.startswith(("Flux2", "FluxKontext")) else (62, 50)
    values = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return build_request(Image.fromarray(values), "a red cup", DIAGNOSIS, **options)


@pytest.fixture(autouse=True, scope="module")
def _small_canvases() -> Iterator[None]:
    """Some pipelines bring every picture to a megapixel; here to 96 × 96 pixels' worth."""

    def small(area: int, ratio: float) -> tuple[int, int]:
        width = math.sqrt(96 * 96 * ratio)
        return round(width / 32) * 32, round(width / ratio / 32) * 32

    places = ("qwenimage.pipeline_qwenimage_edit", "qwenimage.pipeline_qwenimage_edit_inpaint",
              "qwenimage.pipeline_qwenimage_edit_plus",
              "longcat_image.pipeline_longcat_image_edit")  # fmt: skip
    modules = [import_module(f"diffusers.pipelines.{place}") for place in places]
    with pytest.MonkeyPatch.context() as patch:
        for module in modules[:2]:
            patch.setattr(module, "calculate_dimensions", lambda area, ratio: (*small(area, ratio), None))
        for module in modules[2:]:
            patch.setattr(module, "calculate_dimensions", small)
        yield


def spied(pipeline: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The pipeline, and what its calls are given from now on."""
    calls: list[dict[str, Any]] = []
    real = type(pipeline).__call__

    @functools.wraps(real)
    def call(self: Any, **given: Any) -> Any:
        calls.append(given)
        return real(self, **given)

    pipeline.__class__ = type("Spied", (type(pipeline),), {"__call__": call})
    return pipeline, calls


def test_every_class_of_the_table_is_tried_here() -> None:
    assert set(toy_editors.MADE) == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_a_stored_pipeline_edits_and_leaves_the_outside_alone(name: str, tmp_path: Path) -> None:
    made = toy_editors.MADE[name]()
    made.save_pretrained(tmp_path)
    editor = load_editor(f"diffusers:{tmp_path}?steps=2")
    assert type(editor._pipeline).__name__ == name
    if hasattr(made, "prompt_template_encode_start_idx"):  # is not stored
        editor._pipeline.prompt_template_encode_start_idx = made.prompt_template_encode_start_idx
    asked = request(name)
    (result,) = editor.edit([asked])
    assert result.picture is not None, result.error
    assert result.picture.size == asked.picture.size
    mask = asked.mask if result.mask is None else result.mask
    before, after = np.asarray(asked.picture), np.asarray(composite(asked.picture, result.picture, mask))
    assert (mask == 0).any() == (asked.strengths == 0).any() or result.mask is None
    assert (after[mask == 0] == before[mask == 0]).all()
    assert (after[mask == 1] != before[mask == 1]).any()


@pytest.mark.parametrize("name", KNOWN)
def test_a_model_is_told_what_it_was_trained_on(name: str) -> None:
    pipeline, calls = spied(toy_editors.MADE[name]())
    asked = request(name)
    (result,) = DiffusersEditor(pipeline, steps=2, guidance=2.5).edit([asked])
    assert result.picture is not None, result.error
    (given,) = calls
    if name not in INSTRUCTED:
        assert given["prompt"] == "a red cup"
    elif "Kontext" in name:  # whose toy reads 64 tokens
        assert given["prompt"] == asked.summary[: len(given["prompt"])]
    else:
        assert given["prompt"] == asked.instruction  # as the API of `openai:` is told
    shown = given["image"] if isinstance(given["image"], list) else [given["image"]]
    several = name in ("Flux2Pipeline", "Flux2KleinPipeline", "QwenImageEditPlusPipeline")
    assert len(shown) == (2 if several else 1)
    if several:
        assert shown[1] == asked.marked
    guidance = "true_cfg_scale" if name.startswith("Qwen") else "guidance_scale"
    assert given[guidance] == 2.5
    assert given["num_inference_steps"] == 2


@pytest.mark.parametrize(("distilled", "steps"), [(True, 4), (False, 50)])
def test_the_steps_are_those_of_a_distilled_model_where_it_is_one(distilled: bool, steps: int) -> None:
    pipeline = toy_editors.klein()
    pipeline.register_to_config(is_distilled=distilled)
    assert DiffusersEditor(pipeline)._steps == steps


def test_a_guided_qwen_image_has_a_negative_prompt_without_which_it_is_not_guided() -> None:
    asked = request()
    edited = [
        DiffusersEditor(toy_editors.MADE["QwenImageEditPipeline"](), steps=2, guidance=guidance).edit(
            [asked]
        )[0]
        for guidance in (1.0, 8.0)
    ]
    assert edited[0].picture is not None
    assert edited[0].picture != edited[1].picture


def test_the_t5_of_sd3_reads_more_than_its_clips() -> None:
    made = toy_editors.MADE["StableDiffusion3InpaintPipeline"]()
    made.tokenizer_3.model_max_length = 4096  # as T5's; the CLIPs' is 8, with 77 in earnest
    pipeline, calls = spied(made)
    (result,) = DiffusersEditor(pipeline, steps=2).edit([request()])
    assert result.picture is not None, result.error
    assert calls[0]["max_sequence_length"] == 256
    made.tokenizer_3 = made.text_encoder_3 = None  # it may be left out
    assert DiffusersEditor(made, steps=2).edit([request()])[0].picture is not None


def test_an_instruction_that_is_too_long_loses_the_reasoning_first_then_its_end() -> None:
    editor = DiffusersEditor(toy_editors.kontext(), steps=2)
    words = editor._pipeline.tokenizer_2
    asked = request()
    for most, told in ((512, asked.instruction), (180, asked.summary)):
        words.model_max_length = most
        long = build_request(asked.picture, "a red cup", Diagnosis(DIAGNOSIS.defects, "a red cup " * 60))
        assert editor._text(asked if most == 512 else long) == told
    words.model_max_length = 40
    cut = editor._text(asked)
    assert asked.summary.startswith(cut)
    assert 5 < len(words(cut)["input_ids"]) <= 40


@pytest.mark.parametrize("name", TOGETHER)
def test_a_batch_is_one_call_and_gives_what_each_gives_alone(name: str) -> None:
    requests = [request(name, seed=seed) for seed in (1, 2)]
    pipeline, calls = spied(toy_editors.MADE[name]())
    together = DiffusersEditor(pipeline, steps=2, batch_size=2).edit(requests)
    assert len(calls) == 1
    alone = DiffusersEditor(toy_editors.MADE[name](), steps=2).edit(requests)
    for one, other in zip(together, alone, strict=True):
        assert one.picture is not None, one.error
        assert np.abs(np.asarray(one.picture, int) - np.asarray(other.picture, int)).max() <= 1
        assert (one.mask is None) == (other.mask is None)
    assert together[0].picture != together[1].picture


def test_graded_strengths_are_each_pictures_own_in_a_batch() -> None:
    weak, strong = (
        build_request(
            request().picture, "a red cup", Diagnosis((Defect(box, "artifact", "", 80),)), seed=seed
        )
        for seed, box in enumerate([(0, 0, 200, 200), (600, 600, 1000, 1000)])
    )
    pipeline, calls = spied(toy_editors.MADE["FluxInpaintPipeline"]())
    together = DiffusersEditor(pipeline, steps=10, batch_size=2).edit([weak, strong])
    alone = DiffusersEditor(toy_editors.MADE["FluxInpaintPipeline"](), steps=10)
    for one, asked in zip(together, (weak, strong), strict=True):
        other = alone.edit([asked])[0]
        assert one.picture is not None
        assert np.abs(np.asarray(one.picture, int) - np.asarray(other.picture, int)).max() <= 1
    assert len(calls) == 1


def test_requests_of_another_size_or_number_of_steps_are_another_call() -> None:
    pipeline, calls = spied(toy_editors.MADE["FluxImg2ImgPipeline"]())
    editor = DiffusersEditor(pipeline, steps=10, batch_size=4)
    small = build_request(Image.new("RGB", (16, 16)), "a red cup", DIAGNOSIS)
    fixed = build_request(
        request().picture, "a red cup", Diagnosis((Defect((0, 0, 9, 9), "misalignment", "", 1),))
    )
    results = editor.edit([request(seed=1), small, request(seed=2), fixed])
    assert [result.picture.size for result in results if result.picture] == [
        (62, 50),
        (16, 16),
        (62, 50),
        (62, 50),
    ]
    assert sorted(len(call["prompt"]) for call in calls if isinstance(call["prompt"], list)) == [2]
    assert len(calls) == 3


def test_a_batch_that_fails_costs_only_what_fails_alone() -> None:
    made = toy_editors.MADE["FluxImg2ImgPipeline"]()
    encode = made.encode_prompt

    def fails(prompt: str | list[str], **settings: Any) -> Any:
        if "hat" in str(prompt):
            raise RuntimeError("no hats")
        return encode(prompt=prompt, **settings)

    made.encode_prompt = fails
    good, bad = request(), build_request(request().picture, "a blue hat", DIAGNOSIS)
    results = DiffusersEditor(made, steps=2, batch_size=3).edit([good, bad, good])
    assert [result.error for result in results] == ["", "The pipeline failed: no hats", ""]
    assert results[0].picture is not None


def test_threads_that_wait_for_one_another_share_a_call() -> None:
    pipeline, calls = spied(toy_editors.MADE["FluxImg2ImgPipeline"]())
    editor = DiffusersEditor(pipeline, steps=2, batch_size=3)
    results: dict[int, Any] = {}

    def edit(seed: int) -> None:
        results[seed] = editor.edit([request(seed=seed)])[0].picture

    threads = [threading.Thread(target=edit, args=(seed,)) for seed in range(3)]
    with editor._lock:  # as while another edit is made
        for thread in threads:
            thread.start()
        while editor._waiting.qsize() < 3:
            threading.Event().wait(0.01)
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    alone = DiffusersEditor(toy_editors.MADE["FluxImg2ImgPipeline"](), steps=2)
    for seed, picture in results.items():
        expected = alone.edit([request(seed=seed)])[0].picture
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize(
    ("build", "options", "said"),
    [
        (toy_editors.kontext, {}, "Spied edits one picture at a time; leave batch_size out"),
        (
            toy_editors.MADE["FluxInpaintPipeline"],
            {"stochastic": True},
            "stochastic sampling edits one picture",
        ),
    ],
)
def test_what_edits_one_picture_at_a_time_says_so(
    build: Callable[[], Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SdgError, match=said):
        DiffusersEditor(spied(build())[0], batch_size=2, **options)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (
            '{"_class_name": "SanaPipeline"}',
            "holds 'SanaPipeline', which edits no pictures; known are FluxInpaint",
        ),
        ('{"_class_name": ["SanaPipeline"]}', "which edits no pictures"),
        ("{}", "is damaged"),
        ("[" * 9999, "is damaged"),
        ("", "is empty"),
        ('"' + "x" * (1 << 20) + '"', "is larger than"),
    ],
)
def test_a_folder_of_another_class_is_refused_with_the_known_ones(
    tmp_path: Path, index: str, said: str
) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(SdgError, match=said):
        load_editor(f"diffusers:{tmp_path}")


def test_the_sentence_about_an_unknown_class_names_every_known_one(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "LongCatImagePipeline"}')
    with pytest.raises(SdgError, match="edits no pictures") as raised:
        load_editor(f"diffusers:{tmp_path}")
    assert all(name in str(raised.value) for name in (*KNOWN, "FluxPipeline"))


def test_the_uri_may_name_the_class(tmp_path: Path) -> None:
    toy_editors.kontext().save_pretrained(tmp_path)
    editor = load_editor(f"diffusers:{tmp_path}?class=FluxKontextInpaintPipeline&guidance=2&batch_size=1")
    assert type(editor._pipeline).__name__ == "FluxKontextInpaintPipeline"
    for name in ("FluxPipeline", "os.system"):
        with pytest.raises(SdgError, match="option class is one of FluxInpaintPipeline, "):
            load_editor(f"diffusers:{tmp_path}?class={name}")


def test_text_to_image_checkpoints_load_as_the_editor_of_their_family(tmp_path: Path) -> None:
    stored = {name for editing in KNOWN.values() for name in editing.checkpoints}
    assert stored == {
        "FluxPipeline", "QwenImagePipeline", "SanaSprintPipeline", "ZImagePipeline",
        "StableDiffusion3Pipeline", "StableDiffusionXLPipeline", "StableDiffusionPipeline",
    }  # fmt: skip
    for name in ("SanaSprintImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"):
        folder = tmp_path / name
        toy_editors.MADE[name]().save_pretrained(folder)
        index = json.loads((folder / "model_index.json").read_text())
        (index["_class_name"],) = KNOWN[name].checkpoints
        (folder / "model_index.json").write_text(json.dumps(index))
        editor = load_editor(f"diffusers:{folder}", steps=2)
        assert type(editor._pipeline).__name__ == name
        assert editor.edit([request()])[0].picture is not None
