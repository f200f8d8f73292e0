"""The page for one person in headless Chromium: drawn, said, kept, downloaded, and read as rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from everything import HOSTILE
from PIL import Image

from sdg.annotate.offline import read_offline, write_offline
from sdg.cli import main
from sdg.data.formats import label_studio
from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.runs.inputs import Item


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for number, prompt in enumerate((HOSTILE, "a cat", "a dog")):
        Image.new("RGB", (400, 200 + 100 * number), (30, 80 * number, 90)).save(folder / f"{number}.png")
        found.append(Item(f"{number}.png", prompt, folder / f"{number}.png"))
    return found


@pytest.fixture(scope="module")
def page_file(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_offline(tmp_path_factory.mktemp("page") / "annotate.html", items)


@pytest.fixture(params=[(1280, 800, False), (390, 844, True)], ids=["desktop", "phone"])
def page(browser, request, page_file: Path):
    """The page in a browser that keeps nothing yet; whatever it logs, throws or asks for is a failure."""
    width, height, touch = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=touch)
    tab = context.new_page()
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda request: trouble.append(request.url))
    tab.goto(page_file.as_uri())
    tab.keyboard.type("ann@lab.org")
    tab.keyboard.press("Enter")
    yield tab
    assert [one for one in trouble if not one.startswith(("data:", "blob:", "file:"))] == []
    context.close()


def draw(page, x0: float, y0: float, x1: float, y1: float) -> None:
    """A box, in parts of the picture, with the mouse."""
    page.locator(".stage").scroll_into_view_if_needed()
    frame = page.locator(".stage").bounding_box()
    page.mouse.move(frame["x"] + x0 * frame["width"], frame["y"] + y0 * frame["height"])
    page.mouse.down()
    page.mouse.move(frame["x"] + x1 * frame["width"], frame["y"] + y1 * frame["height"], steps=3)
    page.mouse.up()


def downloaded(page, tmp_path: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator("#work button.download").click()
    file = tmp_path / "annotations.json"
    waiting.value.save_as(file)
    return file


def test_what_is_drawn_and_said_becomes_rows(page, tmp_path: Path) -> None:
    assert page.locator(".side .prompt").inner_text().split() == HOSTILE.split()
    draw(page, 0.1, 0.2, 0.3, 0.6)
    assert "has no reason" in page.locator(".fault").inner_text()
    page.locator("#reason").fill("The hand has six fingers.")
    page.locator("#importance").fill("72")
    assert page.locator("output.tier").inner_text() == "major"
    page.locator("#subtype").select_option("anatomy")
    page.locator("[data-kind=misalignment]").first.click()
    draw(page, 0.9, 0.9, 0.5, 0.5)  # from the lower right
    page.locator("#reason").fill("The hat is blue.")
    page.locator("#importance").fill("101")
    assert "whole number from 1 to 100" in page.locator(".fault").inner_text()
    page.locator("#importance").fill("35")
    assert page.locator(".fault").inner_text() == ""
    page.locator("button.next").click()
    page.locator("#clean").check()
    page.reload()  # it begins with the first picture that is not done
    assert page.locator(".count").inner_text() == "3 of 3"
    records, faults = read_offline(file := downloaded(page, tmp_path))
    assert [str(fault).partition(": ")[2] for fault in faults] == [
        "2.png is not annotated yet; open the page and draw a box, or say it is clean."
    ]
    first, second = records
    assert (first.filepath, first.prompt, first.annotator) == ("0.png", HOSTILE, "ann@lab.org")
    hand, hat = first.diagnosis.defects
    assert hand.box == pytest.approx((100, 200, 300, 600), abs=5)
    assert hat.box == pytest.approx((500, 500, 900, 900), abs=5)
    assert (hand.type, hand.reason, hand.importance, hand.subtype) == (
        "artifact",
        "The hand has six fingers.",
        72,
        "anatomy",
    )
    assert (hat.type, hat.importance, hat.subtype) == ("misalignment", 35, None)
    assert second.diagnosis.is_clean
    # The same file is a Label Studio export.
    assert [one.diagnosis for one in label_studio.read(file)][:2] == [first.diagnosis, second.diagnosis]


def test_a_box_is_chosen_by_a_tap_changed_and_deleted(page, tmp_path: Path) -> None:
    draw(page, 0.1, 0.1, 0.8, 0.8)
    draw(page, 0.3, 0.3, 0.5, 0.5)
    frame = page.locator(".stage").bounding_box()
    page.mouse.click(frame["x"] + 0.7 * frame["width"], frame["y"] + 0.7 * frame["height"])
    page.locator("#type").select_option("misalignment")
    assert page.locator(".boxes b").all_inner_texts() == ["misalignment", "artifact"]
    page.mouse.click(frame["x"] + 0.4 * frame["width"], frame["y"] + 0.4 * frame["height"])
    page.locator("button.delete").click()
    assert page.locator(".boxes b").all_inner_texts() == ["misalignment"]
    _, faults = read_offline(downloaded(page, tmp_path))
    assert any("Region 1 has no reason" in fault.reason for fault in faults)


def test_files_that_are_none_of_a_page_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text in ('{"a": 1}', "[]"):
        file.write_text(text)
        with pytest.raises(SdgError, match="holds no annotations; give a file downloaded from the page"):
            read_offline(file)
    task = {"data": {"filepath": "a.png", "prompt": "a cat"}}
    broken = [3, {}, task, task | {"annotations": [1]}, task | {"annotations": [{"result": 3}]}]
    file.write_text(json.dumps(broken))
    records, faults = read_offline(file)
    assert (records, len(faults)) == ([], 5)
    defect = Defect((100, 200, 300, 400), "artifact", "Six fingers.", 70)
    annotation = {"completed_by": {"email": "ann"}, "lead_time": 120, "result": []}
    annotation["result"] = label_studio.write_regions(Diagnosis((defect,)), "x", (10, 10))
    file.write_text(json.dumps([task | {"annotations": [annotation]}]))
    (record,), _ = read_offline(file)
    assert record.metadata["annotation"][0]["minutes"] == 2.0


def test_two_downloads_of_one_page_are_not_two_opinions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("annotations.json", "annotations (1).json", "bob.json")]
    for file, person in zip(files, ("ann", "ann", "bob"), strict=True):
        annotation = {"completed_by": {"email": person}, "lead_time": 120}
        annotation["result"] = label_studio.write_regions(Diagnosis(), "x", (10, 10))
        task = {"data": {"filepath": "a.png", "prompt": "a cat"}, "annotations": [annotation]}
        file.write_text(json.dumps([task]))
    rows = tmp_path / "rows.jsonl"
    with pytest.raises(SystemExit, match="1"):
        main(["annotate", "read", *map(str, files), "--out", str(rows)])
    said = f"{files[0]} and {files[1]} both hold what ann says of a.png; give the newer alone."
    assert said in capsys.readouterr().err
    assert not rows.exists()
    with pytest.raises(SystemExit) as ended:
        main(["annotate", "read", str(files[0]), str(files[2]), "--out", str(rows)])
    assert ended.value.code == 0
    assert len(rows.read_text().splitlines()) == 2


def test_a_download_is_not_replaced_by_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, link = tmp_path / "annotations.json", tmp_path / "rows.jsonl"
    task = {"data": {"filepath": "a.png", "prompt": "a cat"}, "annotations": []}
    file.write_text(json.dumps([task]))
    link.symlink_to(file)
    for out in (file, link):
        with pytest.raises(SystemExit, match="1"):
            main(["annotate", "read", str(file), "--out", str(out)])
        assert f"{out} is what was downloaded, and would be replaced" in capsys.readouterr().err
    assert json.loads(file.read_text()) == [task]


def test_a_page_of_too_many_pictures_is_refused(items: list[Item], tmp_path: Path) -> None:
    many = [Item(f"{number}.png", "a cat", items[0].file) for number in range(201)]
    with pytest.raises(SdgError, match="200 pictures at most"):
        write_offline(tmp_path / "a.html", many)
