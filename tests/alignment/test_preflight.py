"""A dry run of an alignment: servers are asked, the generator is built without weights, faults are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bad_server import CLEAN, Server, completion
from click.testing import CliRunner
from toy import RECIPES, small

from sdg.alignment.preflight import preflight
from sdg.alignment.recipe import AlignRecipe
from sdg.cli import cli
from sdg.recipes import load_recipe
from sdg.runs.rehearsal import GPUS, USE, Gpu, Rehearsal


def page(options: list[str], processes: int = 2, recipe: str = "boxflow-flux1-dev.yaml") -> Rehearsal:
    settings = load_recipe(AlignRecipe, RECIPES / recipe, options[1::2])
    return preflight(settings, gpu="H100", processes=processes)


def test_a_sound_recipe_has_a_page_and_the_command_prints_it(checkpoints: Path, tmp_path: Path) -> None:
    options = small(checkpoints)
    command = ["align", str(RECIPES / "boxflow-flux1-dev.yaml"), *options, "--dry-run", "--processes", "2"]
    done = CliRunner().invoke(cli, [*command, "--json", str(tmp_path / "page.json"), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "FAILS" not in done.output
    assert "final/ is untrained" in done.output
    found = json.loads((tmp_path / "page.json").read_text())
    # 4 × 4 pictures by 2 processes in batches of 4 are 2 batches each: 2 epochs of 5 steps and 1 trained one,
    # and 3 measurements of 3 prompts with 3 steps, in one batch each. Decoding is what is left.
    sampled, trained = (
        4 * found["numbers"][f"TFLOP a {name} of a picture"] for name in ("pass", "training pass")
    )
    passes = 2 * 2 * (5 * sampled + trained) + 3 * 3 * sampled
    hours = passes * 1e12 / (GPUS["H100"].tflops * 1e12 * USE) / 3600
    assert hours < found["numbers"]["hours"] < 20 * hours
    assert not any((tmp_path / name).exists() for name in ("manifest.json", "checkpoints"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sampling__batch_size": 5}, "groups: Each optimizer step trains on 8 samples"),
        ({"prompts__train": "nowhere.txt"}, "prompts: nowhere.txt cannot be read"),
        ({"policy__height": 18}, "policy: This model draws pictures whose sides are multiples of 4"),
        ({"policy__lora__targets": "[attn.to_qq]"}, "policy: policy.lora.targets names attn.to_qq"),
        ({"policy__model": "no/where/at/all"}, "policy.model: The configurations of no/where/at/all"),
        (
            {"reward__scorers__0__uri": "python:nowhere.score"},
            "reward.scorers, dark: 'python:nowhere.score' names no function (No module named 'nowhere')",
        ),
        (
            {"reward__scorers__0__uri": "python:textwrap.indent?prefx=9"},
            "reward.scorers, dark: 'python:textwrap.indent?prefx=9' cannot be called with what it gets here",
        ),
        ({"reward__scorers__0__uri": "clap:model"}, "reward.scorers, dark: 'clap:model' is no scorer"),
        (
            {"reward__detector": "union:ocr|python:nowhere.find"},
            "reward.detector: 'python:nowhere.find' names no function",
        ),
    ],
)
def test_the_first_thing_that_would_fail_is_named(
    checkpoints: Path, change: dict[str, Any], fault: str
) -> None:
    assert str(page(small(checkpoints, **change)).fault).startswith(fault)


def test_without_prompts_the_cache_of_their_texts_is_not_known(checkpoints: Path, tmp_path: Path) -> None:
    cached = small(checkpoints, prompts__train="nowhere.txt", policy__text_cache=tmp_path)
    (disk,) = [finding for finding in page(cached).findings if finding.what == "disk"]
    assert disk.ok is None
    assert disk.said.endswith("policy.text_cache takes is not known without the prompts")


def test_what_fits_is_said_with_and_without_shared_weights(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = small(checkpoints, run__sharding="fsdp")
    assert str(page(shared, 1).fault).startswith(
        "run.sharding: run.sharding fsdp shares weights among processes"
    )
    found = page(shared)
    assert found.fault is None
    assert any(name.startswith("its 1/2 of the adapter") for name in found.memory)
    assert found.numbers["largest batch"] == 4  # of 8 pictures a step, shared by two processes
    whole = page(small(checkpoints, policy__lora="null"))
    assert whole.fault is None
    assert "of which are trained" in str(whole)
    assert "transformer, fp32: weights, gradients, Adam's moments, average, buckets" in whole.memory
    monkeypatch.setitem(GPUS, "H100", Gpu(1.5, 989))  # no more than CUDA's own
    small_gpu = page(small(checkpoints))
    assert str(small_gpu.fault).startswith("memory: about 1.5 GB a GPU")
    said = next(one.said for one in small_gpu.findings if one.what == "sampling.batch_size")
    assert said.startswith("not even 1 fits beside the weights; with run.sharding fsdp about 1.5 GB a GPU")


def test_servers_are_asked_about_a_picture(checkpoints: Path) -> None:
    good = "Alignment Score (1-5): 4\nCoherence Score (1-5): 4\nStyle Score (1-5): 4"
    with Server(lambda *_: completion(CLEAN)) as judge, Server(lambda *_: completion(good)) as reward:
        detector = f"openai:{judge.url}?profile=default#some/detector"
        scorers = f"[{{name: ur, uri: 'unified-reward:{reward.url}#some/reward'}}]"
        options = small(checkpoints, reward__detector=detector, reward__scorers=scorers, monitor__judges="[]",
                        monitor__best="clip")  # fmt: skip
        assert page(options).fault is None
        assert [len(server.bodies) for server in (judge, reward)] == [1, 1]
        judge.models = [{"id": "some/detector", "max_model_len": 1024}]
        assert "reward.detector: The server reads 1,024 tokens" in str(page(options).fault)
        judge.models = [{"id": "another"}]
        assert str(page(options).fault).endswith(f"{judge.url} serves another, not some/detector.")
        judge.models = [{"id": "some/detector"}]
        reward.models = [{"id": "some/detector"}]
        assert str(page(options).fault).endswith("not some/reward.")
        assert len(judge.bodies) == 2  # where the model is another, no picture is sent
    assert "reward.detector" in str(page(options).fault)  # it is gone
    with Server(lambda *_: completion("I see a cup.")) as judge:
        options[options.index(f"reward.detector={detector}")] = (
            f"reward.detector=openai:{judge.url}?profile=default#some/detector"
        )
        assert "answers, and not as a detector of this wording" in str(page(options).fault)


def test_the_servers_of_a_union_are_asked_each(checkpoints: Path) -> None:
    with Server(lambda *_: completion(CLEAN)) as one, Server(lambda *_: completion("I see a cup.")) as other:
        uris = [f"openai:{server.url}?profile=default#some/detector" for server in (one, other)]
        found = page(small(checkpoints, reward__detector="union:" + " | ".join([*uris, "python:toy.detect"])))
        assert "reward.detector: some/detector answers, and not as a detector" in str(found.fault)
        assert [len(server.bodies) for server in (one, other)] == [1, 1]
        said = [finding.said for finding in found.findings if finding.what == "reward.detector"]
        assert said[0].startswith("answers about a picture")
        assert said[2] == "not loaded or asked here"


@pytest.mark.slow
def test_real_size_is_as_the_models_shapes_say() -> None:
    found = page(["--set", "policy.text_cache=null"], 8, "boxflow-sana15.yaml")
    assert found.memory["transformer, bf16"] == pytest.approx(2 * 1.60e9, rel=0.01)
    assert found.memory["text encoders, bf16"] == pytest.approx(2 * 2.61e9, rel=0.01)
    assert found.memory["autoencoder, bf16"] == pytest.approx(2 * 312e6, rel=0.01)
    # Guidance takes two passes over 1024 locations; 2 FLOP a parameter and location, text less.
    sampled, trained = (found.numbers[f"TFLOP a {n} of a picture"] for n in ("pass", "training pass"))
    assert 0.85 * 2 * 2 * 1.6e9 * 1024 < 1e12 * sampled < 2 * 2 * 1.6e9 * 1024
    # Forward, again for checkpointing, and the gradients of activations, not of frozen weights.
    assert 2.9 * sampled < trained < 3.2 * sampled
