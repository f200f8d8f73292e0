"""Real pictures from stored responses to a report and a request; they are not in the repository.

Their folder is $SDG_REAL_EXAMPLES, else ../shared/examples/real beside the checkout: pictures with
annotations.jsonl, and NAME.response.txt where a detector's response is stored.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image

import sdg
from sdg.data.formats import read_records
from sdg.images import load_image
from sdg.records import Record

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("SDG_REAL_EXAMPLES") or ROOT.parent / "shared" / "examples" / "real")
ANNOTATIONS = FOLDER / "annotations.jsonl"
pytestmark = pytest.mark.skipif(
    not ANNOTATIONS.is_file(), reason=f"no pictures in {FOLDER}: set SDG_REAL_EXAMPLES"
)


def run(folder: Path, *arguments: str) -> str:
    """What a command prints; it has to end well."""
    done = processes.run(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(read_records(ANNOTATIONS))


@pytest.fixture(scope="module")
def replayed(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a response for each picture: the stored one, else one that says what was annotated."""
    folder = tmp_path_factory.mktemp("real")
    lines = []
    for record in records:
        stored = (FOLDER / record.filepath).with_suffix(".response.txt")
        assert record.diagnosis is not None
        response = stored.read_text() if stored.exists() else sdg.render_response(record.diagnosis)
        lines.append(
            json.dumps({"filepath": record.filepath, "caption": record.prompt, "response": response})
        )
    (folder / "replay.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def diagnosed(replayed: Path) -> Path:
    """The same folder with found.jsonl and look.html."""
    detector = ("--detector", "replay:replay.jsonl")
    said = run(
        replayed, "diagnose", str(ANNOTATIONS), *detector, "--out", "found.jsonl", "--html", "look.html"
    )
    assert said == ""
    return replayed


def test_stored_responses_become_a_report(diagnosed: Path, records: list[Record]) -> None:
    found = {record.filepath: record.diagnosis for record in read_records(diagnosed / "found.jsonl")}
    assert list(found) == [record.filepath for record in records]
    for record in records:
        assert found[record.filepath].status == "ok"
        assert found[record.filepath].defects == record.diagnosis.defects
    page = (diagnosed / "look.html").read_text()
    assert page.count("data:image/webp") == len(records)
    assert all(record.filepath in page for record in records)


@pytest.mark.parametrize("mode", ["sdg", "fixed", "heatmap"])
def test_requests_are_built_for_what_is_wrong_and_nothing_is_sent(
    replayed: Path, records: list[Record], mode: str
) -> None:
    detector, out = ("--detector", "replay:replay.jsonl"), replayed / mode
    said = run(replayed, "refine", str(ANNOTATIONS), *detector, "--dry-run", "--mode", mode, "--out", mode)
    assert said.split() == ["ok", "editor", "python:sdg.testbed.entry.editor", "ok", "options", "none"]
    wrong = [record for record in records if record.diagnosis.defects]
    requests = {(folder / "instruction.txt").read_text(): folder for folder in (out / "requests").iterdir()}
    assert len(requests) == len(wrong) < len(records)
    for record in wrong:
        (text,) = (text for text in requests if record.prompt in text)
        picture = load_image(FOLDER / record.filepath)
        files = {file.stem: file for file in requests[text].glob("*.png")}
        assert np.array_equal(np.asarray(Image.open(files["picture"])), np.asarray(picture))
        mask = np.asarray(Image.open(files["mask"]))
        assert all((defect.reason in text) == (mode != "fixed") for defect in record.diagnosis.defects)
        assert {"sdg": "marked", "heatmap": "artifact-heat", "fixed": "mask"}[mode] in files
        for defect in record.diagnosis.defects:
            x0, y0, x1, y1 = defect.box
            middle = (y0 + y1) * picture.height // 2000, (x0 + x1) * picture.width // 2000
            assert mask[middle] > 0
            if mode == "sdg":
                corner = y0 * picture.height // 1000, x0 * picture.width // 1000
                assert tuple(np.asarray(Image.open(files["marked"]))[corner]) == (255, 0, 0)
    assert not (out / "refinements.jsonl").exists()


def test_the_report_looks_whole_in_a_browser(diagnosed: Path, records: list[Record], browser) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((diagnosed / "look.html").as_uri())
    shown = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(shown) == len(records)
    assert all(shown)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert said == []
    page.close()


def test_no_text_defect_is_found_where_there_is_none(records: list[Record]) -> None:
    pytest.importorskip("rapidocr")
    pairs = [(FOLDER / record.filepath, record.prompt) for record in records]
    assert all(found.is_clean for found in sdg.load_detector("ocr").diagnose(pairs))
