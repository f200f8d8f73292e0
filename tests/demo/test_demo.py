"""The demo on toy models: what it computes, what its page shows, and what happens where a part fails."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import toy
from click.testing import CliRunner

from sdg import Defect, Diagnosis, Status
from sdg.alignment.recipe import AlignRecipe
from sdg.cli import cli
from sdg.data.formats import read_records
from sdg.demo import Ending, Settings, run_demo
from sdg.demo.part_refinement import worst
from sdg.demo.settings import demo_recipe, recipe_file
from sdg.demo.stages import LeftOut, Stages
from sdg.errors import SdgError
from sdg.images import load_image
from sdg.recipes import load_recipe, to_document
from sdg.runs.begin import leaves

TINY = (
    "policy.height=32",
    "policy.width=32",
    "policy.dtype=float32",
    "precision=fp32",
    "sampling.steps=4",
    "sampling.batch_size=2",
    "groups.prompts=2",
    "groups.size=2",
    "optimizer.steps_per_epoch=1",
    "monitor.prompts=2",
    "monitor.steps=2",
    "reward.scorers=[{name: dark, uri: 'python:toy.darkness'}]",
)


def settings(folder: Path, **changes: object) -> Settings:
    """Two prompts, one step, toy models; no adapter is shipped."""
    chosen = {"prompts": 2, "steps": 1, "refined": 1, "detector": "python:toy.detect", "overrides": TINY}
    return Settings(**{**chosen, "pipeline": folder / "flux", "aligned": folder / "no-such", **changes})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy generator."""
    folder = tmp_path_factory.mktemp("models")
    toy.flux_pipeline(guidance_embeds=False).save_pretrained(folder / "flux")
    return folder


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the demo says while it runs."""
    return []


@pytest.fixture(scope="module")
def ending(models: Path, tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Ending:
    """A demo that went well."""
    return run_demo(settings(models), tmp_path_factory.mktemp("demo") / "demo", told.append)


def states(ending: Ending) -> dict[str, str]:
    return {part.name: part.state for part in ending.parts}


def titles(ending: Ending) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", ending.report.read_text(encoding="utf-8"))


def test_every_part_is_done_and_only_the_adapter_that_is_not_there_is_left_out(ending: Ending) -> None:
    assert [(part.name, part.result) for part in ending.failed] == []
    assert [name for name, state in states(ending).items() if state == "left out"] == ["Aligned generator"]
    assert len(ending.parts) == 6


def test_the_page_tells_the_whole_story_and_what_it_leaves_out(ending: Ending) -> None:
    text = ending.report.read_text(encoding="utf-8")
    assert titles(ending) == [
        "In short",
        "Diagnosed pictures",
        "How good is the detector?",
        "A few steps of BoxFlow-NFT",
        "Refinement of the worst pictures",
    ]
    assert "This build ships without an aligned adapter" in text
    assert all(part.result in text for part in ending.parts if "'" not in part.result)
    assert "In short" in text
    assert text.count('alt="Epoch ') == 2, "the figures of the first and the last epoch"


def test_each_part_says_a_line_with_its_result_and_time(ending: Ending, told: list[str]) -> None:
    results = [line for line in told if not line.endswith("…")]
    assert [line[:5] for line in results] == [f"[{n}/6]" for n in range(1, 7)]
    assert all(re.search(r"\([\d.]+ s\)$", line) for line in results if "left out" not in line)


def test_the_files_behind_the_page_are_what_the_other_commands_read(ending: Ending, tmp_path: Path) -> None:
    folder = ending.report.parent
    [first, second] = read_records(folder / "predictions.jsonl")
    assert load_image(folder / first.filepath).size == (128, 128)
    assert first.prompt != second.prompt
    files = ["--truth", str(folder / "truth.jsonl"), "--predictions", str(folder / "predictions.jsonl")]
    done = CliRunner().invoke(cli, ["evaluate", *files, "--embedder", "minilm", "--json", "-"])
    scores = json.loads((folder / "scores.json").read_text())["metrics"]
    again = json.loads(done.stdout)["metrics"]  # with similarities of texts that are computed anew
    assert again.keys() == scores.keys()
    for kind, values in scores.items():
        assert again[kind] == {
            name: value if value is None else pytest.approx(value, rel=1e-5) for name, value in values.items()
        }
    page = tmp_path / "page.html"
    run = ["--alignment", str(folder / "alignment"), "--scores", str(folder / "scores.json")]
    assert CliRunner().invoke(cli, ["report", *run, "--out", str(page)]).exit_code == 0


@pytest.mark.slow
def test_with_an_adapter_both_generators_are_compared_and_it_is_called_shipped(
    ending: Ending, models: Path, tmp_path: Path
) -> None:
    adapter = ending.report.parent / "alignment" / "final"
    again = run_demo(settings(models, aligned=adapter), tmp_path / "demo", lambda line: None)
    assert set(states(again).values()) == {"done"}
    assert [title for title in titles(again) if "shipped" in title] == [
        "Aligned generator (shipped adapter)",
        "Without and with the shipped adapter",
    ]
    cells = json.loads((tmp_path / "demo" / "comparison.json").read_text())["cells"]
    assert list(cells) == ["base", "aligned (shipped)"]
    assert {"reward", "detector/defects", "oracle/defects"} <= set(cells["base"])
    [said] = [part.result for part in again.parts if part.name == "Aligned generator"]
    assert re.search(r"counts \d+ defects in 2 pictures, without it \d+", said)
    drawn = [tmp_path / "demo" / folder / "001.png" for folder in ("pictures", "aligned")]
    assert drawn[0].read_bytes() != drawn[1].read_bytes()
    first = [
        np.asarray(load_image(f.parent / "pictures" / "000.png"), int) for f in (ending.report, again.report)
    ]
    np.testing.assert_allclose(*first, atol=1, err_msg="the same seed draws the same pictures")


def no_answer(picture: object, prompt: str) -> Diagnosis:
    """A detector whose server is down."""
    return Diagnosis(status=Status.FAILED)


def test_a_failing_part_is_told_in_the_report_and_those_that_need_it_are_left_out(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "no_answer", no_answer, raising=False)
    ended = run_demo(settings(models, detector="python:toy.no_answer"), tmp_path / "demo", lambda line: None)
    assert states(ended) == {
        "Pictures": "done",
        "Diagnosis": "failed",
        **dict.fromkeys(("SDG-Eval", "BoxFlow-NFT", "Aligned generator", "Refinement"), "left out"),
    }
    text = ended.report.read_text(encoding="utf-8")
    assert "<strong>Failed:</strong> The detector python:toy.no_answer gave no usable answer" in text
    assert titles(ended) == ["In short", "Diagnosed pictures"], "what was drawn is shown all the same"


def test_a_build_without_the_embedded_detector_says_so_and_has_not_failed(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdg.testbed.models.packaged.DETECTOR", tmp_path / "none")
    ended = run_demo(settings(models, detector="testbed"), tmp_path / "demo", lambda line: None)
    assert not ended.failed
    assert states(ended)["Diagnosis"] == "left out"
    assert "ships without the embedded detector" in ended.report.read_text(encoding="utf-8")


def test_without_a_generator_there_is_still_a_page_that_says_so(tmp_path: Path) -> None:
    ended = run_demo(settings(tmp_path), tmp_path / "demo", lambda line: None)
    assert states(ended)["Pictures"] == "failed"
    assert "holds no pipeline" in ended.report.read_text(encoding="utf-8")
    assert titles(ended) == ["In short"]


def test_a_second_run_takes_away_what_an_earlier_one_left_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    run_demo(settings(tmp_path), out, lambda line: None)
    (out / "alignment").mkdir()  # of a run that was killed
    (out / "alignment" / "log.jsonl").write_text('{"kind": "tra')
    (out / "scores.json").write_text("{}")
    (out / "mine.txt").write_text("keep")
    run_demo(settings(tmp_path), out, lambda line: None)
    assert sorted(path.name for path in out.iterdir()) == ["demo.json", "mine.txt", "report.html"]


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SdgError, match="holds something that is no demo"):
        run_demo(settings(tmp_path), tmp_path, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SdgError, match=r"cannot be written|not a folder|is a file"):
        run_demo(settings(tmp_path), tmp_path / "file" / "demo", lambda line: None)


def test_the_demo_aligns_by_the_recipe_of_sdg_align_only_shorter(tmp_path: Path) -> None:
    shipped = dict(leaves(to_document(load_recipe(AlignRecipe, recipe_file()))))
    ours = dict(leaves(to_document(demo_recipe(Settings(steps=6, seed=3)))))
    different = {name for name in shipped | ours if shipped.get(name) != ours.get(name)}
    shorter = {"seed", "optimizer.steps", "groups.prompts", "groups.size"}
    watched = {f"monitor.{name}" for name in ("every", "prompts")}
    assert different == shorter | watched | {f"run.{n}" for n in ("pictures", "pictures_every", "save_every")}
    named = dict(leaves(to_document(demo_recipe(Settings(detector="openai:http://h:1/v1#a/b", steps=6)))))
    assert named["reward.detector"] == "openai:http://h:1/v1#a/b"


def test_the_worst_pictures_come_first_and_clean_or_unknown_ones_never() -> None:
    def weighing(*importances: int) -> Diagnosis:
        return Diagnosis(tuple(Defect((0, 0, 9, 9), "artifact", "", i) for i in importances))

    unknown = Diagnosis(status=Status.FAILED)
    assert worst([weighing(30), Diagnosis(), weighing(90, 20), unknown, weighing(60)], 2) == [2, 4]
    assert worst([Diagnosis(), unknown], 2) == []


def test_a_part_that_breaks_is_a_failure_and_an_interruption_is_none(capsys: pytest.CaptureFixture) -> None:
    def raising(error: BaseException):
        def work(*needs: object):
            raise error

        return work

    stages = Stages(4, lambda line: None)
    assert stages.run("a", raising(ZeroDivisionError("by zero"))) is None
    assert stages.run("b", raising(SdgError("The disk is full."))) is None
    assert stages.run("c", raising(LeftOut("There is none."))) is None
    assert stages.run("d", lambda value: (value + 1, "fine"), 1) == 2
    assert [(part.state, part.result) for part in stages.parts] == [
        ("failed", "ZeroDivisionError: by zero"),
        ("failed", "The disk is full."),
        ("left out", "There is none."),
        ("done", "fine"),
    ]
    assert "ZeroDivisionError" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        stages.run("e", raising(KeyboardInterrupt()))


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_the_page_opens_without_trouble_and_a_phone_shows_all_of_it(
    browser, ending: Ending, size: tuple[int, int]
) -> None:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url) if request.url[:5] != "data:" else None)
    page.goto(ending.report.as_uri())
    page.locator("section").last.scroll_into_view_if_needed()
    assert trouble == [ending.report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == size[0], "nothing sticks out"
    assert page.locator(".parts li").count() == 6
    assert page.locator(".parts li.left-out").inner_text().startswith("Aligned generator")
    assert page.locator("section.gallery .card").count() == 2
    page.close()
