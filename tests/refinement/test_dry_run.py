"""A dry run writes what an editor would be told, folder by folder, and sends nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import Brightness, items
from PIL import Image

from sdg.errors import SdgError
from sdg.refinement.batch import Plan
from sdg.refinement.dry_run import check_editor, write_requests
from sdg.refinement.request import Mode
from sdg.refinement.sources import FATAL_ERRORS


def pictures(folder: Path, **levels: int) -> Path:
    folder.mkdir()
    for name, level in levels.items():
        Image.new("RGB", (32, 32), (level,) * 3).save(folder / f"{name}.png")
    return folder


def written(source: Path, out: Path, plan: Plan | None = None, **options):
    plan = plan or Plan("halver")
    found = write_requests(items(source), out, detector=Brightness(), plan=plan, **options)
    return {one.item.filepath: one for one in found}


def test_requests_are_built_and_what_has_none_says_why(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", a=80, b=0, c=255)
    (source / "d.png").write_bytes(b"no picture")
    found = written(source, tmp_path / "out")
    assert (found["b.png"].folder, found["b.png"].error, found["b.png"].left) == (None, "", "It is clean.")
    assert found["c.png"].error == "The input could not be diagnosed: Too bright to look at."
    assert "d.png" in found["d.png"].error
    folder = found["a.png"].folder
    names = ["instruction.txt", "marked.png", "mask.png", "picture.png"]
    assert sorted(file.name for file in folder.iterdir()) == names
    assert "too bright" in (folder / "instruction.txt").read_text()
    mask = np.asarray(Image.open(folder / "mask.png"))
    assert mask[16, 16] == 255
    assert mask[0, 0] == 0


def test_what_a_run_would_leave_alone_gets_no_request(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", a=80, b=79)
    found = written(source, tmp_path / "out", Plan("halver", from_severity=80))
    assert found["a.png"].folder is not None
    assert (found["b.png"].folder, found["b.png"].left) == (None, "Its severity is 79, below 80.")


def test_in_mode_heatmap_both_maps_are_written(tmp_path: Path) -> None:
    def heat(picture, prompt, found):
        left = np.zeros((1, 2))
        left[0, 0] = 1
        return left, np.full((4, 4), 0.2)

    source = pictures(tmp_path / "in", a=80)
    folder = written(source, tmp_path / "out", Plan("halver", Mode.HEATMAP), heat=heat)["a.png"].folder
    names = ["artifact-heat.png", "instruction.txt", "mask.png", "misalignment-heat.png", "picture.png"]
    assert sorted(file.name for file in folder.iterdir()) == names
    artifact, misalignment, mask = (
        np.asarray(Image.open(folder / f"{name}.png"))
        for name in ("artifact-heat", "misalignment-heat", "mask")
    )
    assert (artifact[0, 0], artifact[0, -1]) == (255, 0)
    assert (misalignment == 51).all()
    assert np.array_equal(mask, np.maximum(artifact, misalignment))
    assert "two heat maps" in (folder / "instruction.txt").read_text()


def test_a_request_of_another_mode_leaves_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", a=80)
    for mode, others in ((Mode.SDG, ["marked.png"]), (Mode.FIXED, [])):
        folder = written(source, tmp_path / "out", Plan("halver", mode))["a.png"].folder
        assert sorted(file.name for file in folder.iterdir()) == sorted(
            ["instruction.txt", "mask.png", "picture.png", *others]
        )


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("python:nomodule.f", "function: 'python:nomodule.f' names no function"),
        ("python:fakes.nothere", "function: 'python:fakes.nothere' names no function"),
        ("python:operator.is_", "function: 'python:operator.is_' cannot be called"),
        ("testbed?stepz=4", "options: The testbed editor has no option 'stepz'; did you mean 'steps'?"),
        ("testbed:nowhere", "class: nowhere holds no pipeline"),
        ("testbed?lora=nowhere", "lora: nowhere holds no adapter"),
        ("diffusers:nowhere?class=FluxFillPipeline", "class: nowhere holds no pipeline"),
        ("diffusers:kontext?batch_size=4", "class: FluxKontextPipeline edits one picture at a time"),
        ("diffusers:flux?batch_size=2&sampling=stochastic", "class: stochastic sampling edits one picture"),
        ("openai:http://127.0.0.1:9/v1#m?quality=hihg", "options: The openai editor's option quality is one"),
        ("openai:http://127.0.0.1:9/v1#m?nonsense=1", "options: The openai editor has no option 'nonsense'"),
        ("openai:http://127.0.0.1:9/v1", "options: Write openai:BASE_URL#MODEL"),
    ],
)
def test_an_editor_that_cannot_be_loaded_fails_a_dry_run(
    uri: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, kind in (("kontext", "FluxKontextPipeline"), ("flux", "FluxPipeline")):
        Path(folder).mkdir()
        Path(folder, "model_index.json").write_text(json.dumps({"_class_name": kind}))
    assert fault in str(check_editor(uri, gpu="H100").fault)


def test_an_editor_of_the_users_own_is_not_called_in_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdg.testbed.entry.editor", None)  # which nothing looks up either
    for uri in ("testbed", "testbed?steps=4&device=cpu&lora=shipped&sampling=ode", "python:builtins.repr"):
        page = check_editor(uri, gpu="H100")
        assert page.fault is None, page
    assert "function  which was not called" in str(page)


def test_a_detector_that_is_down_ends_a_dry_run_too(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", **{f"p{number:02}": 255 for number in range(FATAL_ERRORS + 5)})
    with pytest.raises(SdgError, match=r"8 pictures in a row .* diagnosed, .*Too bright"):
        written(source, tmp_path / "out")
