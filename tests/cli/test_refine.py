"""`sdg refine`: what it refuses, what a dry run leaves, and a whole run with a real pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import processes
import pytest
from PIL import Image
from servers import detector

import sdg
from sdg import Defect, Diagnosis

FOUND = Diagnosis((Defect((100, 200, 600, 700), "artifact", "the cup <melts>", 60),), "a cup")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stored = []
    for name, response in {"a.png": FOUND, "b.png": Diagnosis()}.items():
        Image.new("RGB", (40, 40), "green").save(tmp_path / name)
        row = {"filepath": name, "caption": f"of {name}", "response": sdg.render_response(response)}
        stored.append(json.dumps(row))
    (tmp_path / "in.jsonl").write_text("\n".join(stored))
    return tmp_path


def refine(folder: Path, *arguments: str) -> CompletedProcess[str]:
    return processes.run("refine", *arguments, folder=folder)


def test_a_dry_run_writes_the_requests_and_sends_nothing(folder: Path) -> None:
    done = refine(folder, "in.jsonl", "--detector", "replay:in.jsonl", "--out", "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    (request,) = (folder / "out" / "requests").iterdir()
    assert "the cup <melts>" in (request / "instruction.txt").read_text()
    assert "b.png: no request. It is clean." in done.stderr
    assert not (folder / "out" / "refinements.jsonl").exists()


def test_what_does_not_fit_is_said_in_one_sentence(folder: Path) -> None:
    replay = ("--detector", "replay:in.jsonl", "--out", "out")
    done = refine(folder, "in.jsonl", *replay, "--editor", "diffusers:nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "nowhere holds no pipeline" in done.stderr
    done = refine(folder, "in.jsonl", *replay, "--artifact", "0.9", "0.2")
    assert done.returncode == 2
    done = refine(folder, "a.png", *replay)
    assert "has no prompt" in done.stderr


def test_detections_can_be_given_to_an_editor_as_heat(folder: Path) -> None:
    replay = ("--detector", "replay:in.jsonl", "--out", "out", "--dry-run", "--mode", "heatmap")
    done = refine(folder, "in.jsonl", *replay)
    assert done.returncode == 0, done.stderr
    (request,) = (folder / "out" / "requests").iterdir()
    mask = Image.open(request / "mask.png")
    assert mask.getpixel((15, 15)) > 0
    assert mask.getpixel((39, 39)) == 0


def test_a_dry_run_looks_at_the_editor_too(folder: Path, checkpoints: Path) -> None:
    dry = ("in.jsonl", "--detector", "replay:in.jsonl", "--out", "out", "--dry-run", "--editor")
    done = refine(folder, *dry, f"diffusers:{checkpoints / 'flux'}")
    assert done.returncode == 0, done.stderr
    assert "FluxInpaintPipeline, which gets the prompt" in done.stdout
    assert "text_encoder_2" in done.stdout
    done = refine(folder, *dry, f"diffusers:{checkpoints / 'flux'}?lora=nowhere")
    assert done.returncode == 1
    assert "The run would fail. lora: nowhere holds no adapter" in done.stderr
    with detector() as server:
        server.models = [{"id": "another"}]
        done = refine(folder, *dry, f"openai:{server.url}#edits")
        assert "serves another, not edits" in done.stderr
        assert server.bodies == []
