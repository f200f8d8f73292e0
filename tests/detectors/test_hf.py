"""Checkpoints run here: batches and padding, limits, truncation, what is greedy, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import toy_qwen3vl as toy
from kills import kill_and_resume
from PIL import Image

import sdg
from sdg.detectors.hf import TransformersDetector
from sdg.errors import SdgError
from sdg.models.vlm import LoadedModel
from sdg.prompting import Generation, PromptProfile

PAIRS = [(toy.picture(index), toy.PROMPTS[index]) for index in range(len(toy.COLOURS))]


def babbler(folder: Path, tokens: int = 6, **options: Any) -> TransformersDetector:
    """The untaught toy: answers of exactly `tokens` tokens, none of which ends one."""
    profile = dataclasses.replace(toy.PROFILE, generation=Generation(max_new_tokens=tokens))
    return TransformersDetector(folder, profile, device="cpu", **options)


def raws(detector: TransformersDetector, pairs: list[Any] | None = None) -> list[str]:
    return [diagnosis.raw for diagnosis in detector.diagnose(PAIRS if pairs is None else pairs)]


def test_what_ends_at_the_token_limit_is_truncated_and_never_clean(untaught: Path) -> None:
    for diagnosis in babbler(untaught).diagnose(PAIRS):
        assert diagnosis.status == "truncated"
        assert not diagnosis.is_clean


def test_batches_are_of_similar_length_the_longest_first(untaught: Path) -> None:
    sizes = [(40, 40), (64, 64), (10, 10), (640, 640), (48, 64), (32, 32)]
    pairs = [(Image.new("RGB", size), "a") for size in sizes]
    pairs += [("missing.png", "a"), (Image.new("RGB", (64, 64)), "a very long prompt " * 9)]
    profile = PromptProfile(image=dataclasses.replace(toy.PROFILE.image, max_pixels=64 * 64))
    detector = TransformersDetector(untaught, profile, batch_size=3, device="cpu")
    assert detector.batches(pairs) == [[7, 1, 3], [4, 0, 5], [2, 6]]


def test_a_batch_gives_what_each_pair_gives_alone(untaught: Path) -> None:
    together = raws(babbler(untaught, batch_size=6))
    alone = raws(babbler(untaught, batch_size=1))
    assert together == alone
    assert len(set(together)) > 1


def test_a_checkpoints_own_sampling_does_not_leak_in(untaught: Path) -> None:
    assert json.loads((untaught / "generation_config.json").read_text())["do_sample"] is True
    detector = babbler(untaught, tokens=12)
    torch.manual_seed(1)
    first = raws(detector)
    torch.manual_seed(2)
    assert raws(detector) == first


def test_a_sampling_profile_repeats_itself_by_its_seed_and_leaves_the_global_one_alone(
    untaught: Path,
) -> None:
    def sampled(seed: int) -> list[str]:
        generation = Generation(max_new_tokens=6, temperature=5.0, seed=seed)
        profile = dataclasses.replace(toy.PROFILE, generation=generation)
        return raws(TransformersDetector(untaught, profile, device="cpu"))

    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = sampled(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert sampled(0) == first
    assert sampled(1) != first


def test_one_bad_pair_fails_alone(untaught: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.png").write_bytes(b"junk")
    Image.new("RGBA", (40, 40)).save(tmp_path / "fine.png")
    bad: list[Any] = [
        (tmp_path / "junk.png", "a"),
        (tmp_path / "none.png", "a"),
        (Image.new("RGB", (900, 1)), "a"),  # no processor of the kind takes such a line
        (toy.picture(0), "an <|image_pad|> in the prompt"),
        (toy.picture(0), "<|im_end|>"),
        (toy.picture(0), None),
        (7, "a"),
        (tmp_path / "fine.png", ""),
        (toy.picture(1), "{caption} {{ 1 + 1 }} <image>"),
    ]
    found = dict(babbler(untaught, batch_size=4).stream(bad))
    assert [found[i].status == "failed" for i in range(9)] == [True] * 7 + [False] * 2
    reasons = [
        "junk.png",
        "does not exist",
        "processor refuses",
        "<|image_pad|>",
        "<|im_end|>",
        "text",
        "PIL",
    ]
    for index, reason in enumerate(reasons):
        assert reason in found[index].error


def test_an_answer_that_ends_at_once_is_a_failure(untaught: Path, tmp_path: Path) -> None:
    detector = babbler(untaught)
    detector._loaded._end = frozenset(range(10_000))  # every token ends an answer
    ((_, outcome),) = detector.stream(PAIRS[:1])
    assert (outcome.status.value, outcome.error) == ("failed", "The model's answer is empty.")


def test_wanted_pairs_are_run_in_the_batches_of_the_full_run(untaught: Path) -> None:
    detector = babbler(untaught, batch_size=2)
    seen: list[int] = []
    generate = detector._loaded._generate

    def counting(inputs: Any, seed: int) -> Any:
        seen.append(len(inputs["input_ids"]))
        return generate(inputs, seed)

    detector._loaded._generate = counting  # type: ignore[method-assign]
    wanted = {detector.batches(PAIRS)[1][0]}
    assert {index for index, _ in detector.stream(PAIRS, wanted)} == wanted
    assert seen == [2]


WEIGHTS = "model.safetensors"


def test_loading_says_in_one_sentence_what_is_wrong(untaught: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(SdgError, match=r"brings no sdg_profile\.toml; add \?profile=FILE"):
        sdg.load_detector(str(bare))
    with pytest.raises(SdgError, match="bare cannot be loaded as a detector"):
        sdg.load_detector(f"{bare}?profile=default")
    with pytest.raises(SdgError, match="There is no device 'cuda:7' here"):
        sdg.load_detector(str(untaught), device="cuda:7")
    pickled = tmp_path / "pickled"
    shutil.copytree(untaught, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(SdgError, match="pickled cannot be loaded"):
        sdg.load_detector(str(pickled))
    for content in (b"version https://git-lfs.github.com/spec/v1", (untaught / WEIGHTS).read_bytes()[:5000]):
        shutil.copytree(untaught, tmp_path / "cut", dirs_exist_ok=True)
        (tmp_path / "cut" / WEIGHTS).write_bytes(content)
        with pytest.raises(SdgError, match="cut cannot be loaded as a detector"):
            sdg.load_detector(str(tmp_path / "cut"))


@pytest.mark.parametrize("adapter", [False, True])
def test_a_loaded_model_is_asked_as_its_folder_is_and_keeps_its_own_settings(
    untaught: Path, adapter: bool
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = inner = AutoModelForImageTextToText.from_pretrained(untaught, dtype=torch.float32)
    if adapter:
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(inner, config)  # changes nothing before it is trained
    own = inner.generation_config
    profile = dataclasses.replace(toy.PROFILE, generation=Generation(max_new_tokens=6))
    loaded = LoadedModel(model, AutoProcessor.from_pretrained(untaught), profile, batch_size=4)
    answers = dict(loaded.answers([*PAIRS, (toy.picture(0), "a <|im_end|> picture")]))
    assert [answers[index].text for index in range(6)] == raws(babbler(untaught, batch_size=4))
    assert not any(answers[index].whole for index in range(6))
    assert "<|im_end|>" in answers[6].error
    assert model.generation_config is own or adapter
    assert inner.generation_config is own
    assert (own.do_sample, own.temperature) == (True, 5.0)


@pytest.mark.parametrize("path", ["/nowhere", "./nowhere", "../no/where", "runs/sft/final", "~/nowhere"])
@pytest.mark.parametrize("profile", ["", "?profile=default"])
def test_a_folder_that_is_not_there_is_called_so(path: str, profile: str) -> None:
    with pytest.raises(SdgError, match=rf"^There is no folder {re.escape(path)}; [^.]*\.$"):
        sdg.load_detector(f"hf:{path}{profile}")


def test_code_in_a_checkpoint_is_not_run(untaught: Path, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    shutil.copytree(untaught, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "trap.Model", "AutoConfig": "trap.Config"}
    config["model_type"] = "trap"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    with pytest.raises(SdgError, match="cannot be loaded"):
        sdg.load_detector(str(folder))
    assert not (tmp_path / "sprung").exists()


def test_dtype_and_device_are_chosen(untaught: Path) -> None:
    auto = babbler(untaught)
    assert auto.identity["dtype"] == "float32"
    half = babbler(untaught, dtype="bfloat16")
    assert half._loaded._model.dtype is torch.bfloat16
    assert len(raws(half)) == 6


RELEASED = '''"""Prepares training data."""
import no_such_module_anywhere

raise SystemExit("this file must not be run")

ROLE = "caption "
USER_PROMPT = (
    "<image>" + ROLE +
    ": {caption}"
)
'''


def test_a_released_checkpoint_loads_with_wording_read_from_a_file_that_would_raise(
    untaught: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "released"
    shutil.copytree(untaught, folder)
    (folder / "sdg_profile.toml").unlink()
    (tmp_path / "prepare.py").write_text(RELEASED)
    profile = tmp_path / "released.toml"
    profile.write_text(
        'name = "released"\nsystem = ""\n'
        'template_from = { file = "prepare.py", constant = "USER_PROMPT" }\n'
        "[image]\nmax_pixels = 4096\n[generation]\nmax_new_tokens = 6\n"
    )
    detector = sdg.load_detector(f"hf:{folder}?profile={profile}", device="cpu")
    # The same words as the toy's own profile, so the same answers.
    assert raws(detector) == raws(babbler(untaught))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_taught_checkpoint_says_what_it_was_taught(taught: Path) -> None:
    detector = sdg.load_detector(str(taught), device="cpu", batch_size=4)
    found = detector.diagnose(PAIRS)
    assert found == [toy.truth(index) for index in range(6)]
    assert found[0].is_clean
    assert sdg.load_detector(f"hf:{taught}?device=cpu").diagnose(PAIRS[::-1]) == found[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("tokens", range(2, 40, 5))
def test_a_limit_anywhere_in_a_clean_answer_never_reads_as_clean(taught: Path, tokens: int) -> None:
    whole = sdg.render_response(toy.truth(0))
    (found,) = babbler(taught, tokens).diagnose(PAIRS[:1])
    assert found.is_clean == (found.status == "ok") == (found.raw == whole and tokens > 8)
    if not found.is_clean:
        assert found.status == "truncated"


def numbered(folder: Path, count: int) -> Path:
    """A JSON Lines file of so many turned pictures with other pictures' prompts."""
    lines = []
    for index in range(count):
        toy.picture(index % 6).rotate(index).save(folder / f"{index:02}.png")
        lines.append(json.dumps({"filepath": f"{index:02}.png", "caption": toy.PROMPTS[(index * 5) % 6]}))
    (folder / "in.jsonl").write_text("\n".join(lines))
    return folder / "in.jsonl"


@pytest.mark.slow
def test_kill_9_in_mid_run_then_resume_gives_the_output_of_an_undisturbed_run(
    taught: Path, tmp_path: Path
) -> None:
    count = 36
    source = numbered(tmp_path, count)

    def command(out: Path) -> list[Any]:
        settings = ["--detector", taught, "--batch-size", 3, "--device", "cpu"]
        return ["diagnose", source, *settings, "--out", out]

    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert processes.run(*command(whole)).returncode == 0
    partial = tmp_path / "out.jsonl.partial"
    process = processes.start(*command(out), stderr=tmp_path / "stderr")
    limit = time.monotonic() + 120
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 7):
        assert process.exitcode is None
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.kill()
    process.join()
    assert 7 <= partial.read_bytes().count(b"\n") < count
    # As if the crash had come in the middle of a batch and of a line.
    journal = partial.read_bytes().splitlines(True)
    partial.write_bytes(b"".join(journal[:7]) + journal[0][:20])
    last = processes.run(*command(out), "--resume")
    assert last.returncode == 0, last.stderr
    assert f"{count} images in {out}, {count - 7} of them asked for now." in last.stderr
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.kill
def test_killed_at_any_moment_the_output_is_that_of_an_undisturbed_run(taught: Path, tmp_path: Path) -> None:
    source = numbered(tmp_path, 36)

    def command(out: Path) -> list[Any]:
        settings = ["--detector", taught, "--batch-size", 3, "--device", "cpu"]
        return ["diagnose", source, *settings, "--out", out]

    def assert_same(killed: Path, whole: Path) -> None:
        assert killed.read_bytes() == whole.read_bytes()
        assert len(killed.read_bytes().splitlines()) == 36

    kill_and_resume("diagnose, a checkpoint", command, tmp_path, assert_same, suffix=".jsonl")


@pytest.mark.parametrize("key", [True, False, None])
def test_a_checkpoint_that_vllm_would_read_wrongly_is_named(
    untaught: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: bool | None
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(untaught, folder)
    config = json.loads((folder / "config.json").read_text())
    rope = config["text_config"]["rope_parameters"]
    assert rope.pop("mrope_interleaved") is True
    if key is not None:
        rope["mrope_interleaved"] = key
    (folder / "config.json").write_text(json.dumps(config))
    babbler(folder)
    assert ("mrope_interleaved" in caplog.text) is (key is not True)
