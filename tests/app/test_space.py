"""Spaces: folders that are complete, say what they need, and replace nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from everything import HOSTILE

from sdg.app.space import export_app, export_report, requirements
from sdg.errors import SdgError


def header(folder: Path) -> dict[str, object]:
    """What a Space's README says before its text."""
    _, settings, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(settings)


@pytest.fixture
def gradio() -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")


def test_the_space_of_the_embedded_detector_is_complete(gradio: None, tmp_path: Path) -> None:
    folder = export_app(tmp_path / "space", "testbed", title=HOSTILE)
    settings = header(folder)
    assert settings["title"] == " ".join(HOSTILE.split())[:100]
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
    assert settings["sdk_version"] == metadata.version("gradio")
    assert "other worlds" in (folder / "README.md").read_text()
    assert any((folder / "sdg/testbed/weights").rglob("*.safetensors"))
    assert not list(folder.rglob("__pycache__"))
    # Run by itself, with nothing of this checkout: its own package answers for it.
    code = (
        "import app, sdg; print(sdg.__file__); print([one.truth for one in app.offer.examples][0].defects[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(folder / "sdg"))
    assert "Defect(box=" in done.stdout


def test_the_space_of_a_checkpoint_takes_it_along(gradio: None, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    folder = export_app(tmp_path / "space", str(checkpoint))
    assert (folder / "model/config.json").read_text() == "{}"
    assert not (folder / "sdg/testbed/weights").exists(), "weights of another detector"
    assert (folder / "sdg/testbed/entry.py").exists()
    app = (folder / "app.py").read_text()
    assert 'detectors=(str(HERE / "model"),)' in app
    assert "editors=()" in app
    compile(app, "app.py", "exec")
    with pytest.raises(SdgError, match="is there already"):
        export_app(folder, "testbed")


@pytest.mark.parametrize(("before", "options"), [("hf:", ""), ("", "?batch_size=4"), ("hf:", "?looks=8")])
def test_the_options_of_a_checkpoint_in_a_folder_stay(
    gradio: None, tmp_path: Path, before: str, options: str
) -> None:
    (tmp_path / "checkpoint").mkdir()
    folder = export_app(tmp_path / "space", f"{before}{tmp_path / 'checkpoint'}{options}")
    assert (folder / "model").is_dir()
    names = {"Offer": dict, "drawn_examples": list, "__file__": str(folder / "app.py"), "__name__": "other"}
    source = (folder / "app.py").read_text().replace("from sdg.app", "# from sdg.app")
    exec(compile(source, "app.py", "exec"), names)
    assert names["offer"]["detectors"] == (f"{folder / 'model'}{options}",)


@pytest.mark.parametrize(
    ("detector", "editors"),
    [
        ("testbed", ["diffusers:{}"]),
        ("hf:a/b", ["diffusers:c/d?lora={}"]),
        ("union:{}|ocr", []),
        ("union:ocr | hf:{}?looks=2", []),
        ("testbed:{}", []),
        ("{}?profile={}", []),
    ],
)
def test_a_folder_that_stays_behind_is_refused(
    gradio: None, tmp_path: Path, detector: str, editors: list[str]
) -> None:
    here = str(tmp_path)
    with pytest.raises(SdgError, match=r"A Space cannot reach .* on this machine"):
        export_app(tmp_path / "space", detector.format(here, here), [uri.format(here) for uri in editors])
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize(
    ("detector", "editors"),
    [
        ("python:mine.find", []),
        ("union:ocr | python:mine.find?looks=2", []),
        ("testbed", ["python:mine.edit"]),
    ],
)
def test_code_that_stays_behind_is_refused(
    gradio: None, tmp_path: Path, detector: str, editors: list[str]
) -> None:
    with pytest.raises(SdgError, match=r"A Space does not hold the code of 'python:mine\."):
        export_app(tmp_path / "space", detector, editors)
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize(
    ("detector", "editors"),
    [
        ("openai:http://localhost:8911/v1#m", []),
        ("openai:http://127.0.0.2/v1#m?concurrency=4", []),
        ("openai:https://[::1]:8000/v1?timeout=9#m", []),
        ("union:ocr | openai:http://0.0.0.0:8000/v1#m", []),
        ("testbed", ["openai:http://LOCALHOST:8000/v1#m"]),
    ],
)
def test_a_server_of_this_machine_is_refused(
    gradio: None, tmp_path: Path, detector: str, editors: list[str]
) -> None:
    with pytest.raises(
        SdgError, match=r"A Space cannot reach the server of 'openai:.*, which only this machine can"
    ):
        export_app(tmp_path / "space", detector, editors)
    assert not (tmp_path / "space").exists()


def test_a_server_elsewhere_is_taken(gradio: None, tmp_path: Path) -> None:
    detector = "openai:https://api.example.com/v1#localhost"
    assert repr(detector) in (export_app(tmp_path / "space", detector) / "app.py").read_text()


@pytest.mark.parametrize("detector", ["replay:found.jsonl", "heatmap:maps", "union:ocr | replay:found.jsonl"])
def test_stored_answers_are_refused(gradio: None, tmp_path: Path, detector: str) -> None:
    with pytest.raises(SdgError, match="A Space shows new pictures"):
        export_app(tmp_path / "space", detector)
    assert not (tmp_path / "space").exists()


def test_a_space_inside_of_its_checkpoint_is_refused(gradio: None, tmp_path: Path) -> None:
    checkpoint, link = tmp_path / "checkpoint", tmp_path / "link"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    link.symlink_to(checkpoint)
    for detector in (str(checkpoint), f"hf:{link}?looks=2"):
        with pytest.raises(SdgError, match="lies inside of the detector"):
            export_app(checkpoint / "new" / "space", detector)
    assert [path.name for path in checkpoint.iterdir()] == ["config.json"]


def test_a_folder_that_happens_to_have_the_name_of_an_embedded_model_is_not_meant(
    gradio: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "testbed").mkdir()
    monkeypatch.chdir(tmp_path)
    for number, detector in enumerate(("testbed", "testbed?looks=2", "union:testbed | ocr")):
        folder = export_app(tmp_path / f"space{number}", detector)
        assert not (folder / "model").exists()
        assert (folder / "sdg/testbed/weights/detector").exists()
        assert ("onnxruntime" in (folder / "requirements.txt").read_text()) is ("ocr" in detector)
        assert f"detectors=({detector!r},)" in (folder / "app.py").read_text()


def test_a_uri_cannot_become_code(gradio: None, tmp_path: Path) -> None:
    folder = export_app(tmp_path / "space", 'openai:http://x/v1#a",),editors=(print("stolen"),))\n#')
    names = {"Offer": dict, "drawn_examples": list, "__file__": str(folder / "app.py"), "__name__": "other"}
    source = (folder / "app.py").read_text().replace("from sdg.app", "# from sdg.app")
    exec(compile(source, "app.py", "exec"), names)
    assert names["offer"]["detectors"] == ('openai:http://x/v1#a",),editors=(print("stolen"),))\n#',)


def test_requirements_are_those_of_the_package(gradio: None) -> None:
    lines = requirements({"app", "api"})
    assert [line for line in lines if line.startswith("gradio")] == [f"gradio=={metadata.version('gradio')}"]
    assert any(line.startswith("httpx2") for line in lines)
    assert any(line.startswith("pillow") for line in lines)
    assert not any(line.startswith(("torch", "trl", "ray")) for line in lines)
    assert not any("extra" in line for line in lines)


def test_a_report_becomes_a_static_space(tmp_path: Path) -> None:
    report = tmp_path / "look.html"
    report.write_text("<!doctype html><title>A</title>")
    folder = export_report(tmp_path / "space", report)
    assert (folder / "index.html").read_bytes() == report.read_bytes()
    assert (header(folder)["sdk"], header(folder)["title"]) == ("static", "look")
    with pytest.raises(SdgError, match="no HTML file"):
        export_report(tmp_path / "other", tmp_path / "look.txt")
    assert not (tmp_path / "other").exists()


def test_an_export_that_fails_leaves_no_half_of_a_space_and_can_be_done_again(
    gradio: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, checkpoint = tmp_path / "look.html", tmp_path / "checkpoint"
    report.write_text("<title>A</title>")
    checkpoint.mkdir()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    exports = (lambda out: export_app(out, str(checkpoint)), lambda out: export_report(out, report))
    for number, export in enumerate(exports):
        with monkeypatch.context() as patched:
            patched.setattr("sdg.app.space._write_readme", full)
            with pytest.raises(SdgError, match="No space left on device"):
                export(tmp_path / f"space{number}")
        assert not (tmp_path / f"space{number}").exists()
        assert not list(tmp_path.glob(".*"))
        assert (export(tmp_path / f"space{number}") / "README.md").exists()
    (tmp_path / "empty").mkdir()
    assert (export_report(tmp_path / "empty", report) / "index.html").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SdgError, match="is there already"):
        export_report(Path(), report)
