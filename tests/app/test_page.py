"""The app in headless Chromium, as its command serves it: what users do on each tab, what never happens."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from app_models import FOUND
from everything import HOSTILE
from PIL import Image

from sdg.data.formats import sdg30k
from sdg.data.formats.sdg30k import write_annotations
from sdg.defects import Defect, Diagnosis
from sdg.io.jsonl import write_objects
from sdg.records import Record

pytestmark = [
    pytest.mark.slow,
    # Looked for and not loaded, which takes seconds: the app has a process of its own.
    pytest.mark.skipif(
        find_spec("gradio") is None, reason="gradio is not installed: pip install -e '.[app]'"
    ),
]

PROMPT = "a red shape on a grey ground"
PATIENCE = 120_000  # ms: several trainings may share this machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures with their truth, and where corrections go."""
    place = tmp_path_factory.mktemp("app")
    for name in ("a", "b"):
        Image.new("RGB", (320, 240), (128, 128, 128)).save(place / f"{name}.png")
    records = [Record("a.png", PROMPT, Diagnosis(FOUND[:1])), Record("b.png", PROMPT, Diagnosis())]
    write_annotations(place / "truth.jsonl", records)
    return place


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The app, started as a user starts it; Ctrl-C ends it."""
    command = [sys.executable, "-m", "sdg", "app", "--detector", "python:app_models.find"]
    command += ["--detector", "python:app_models.other", "--detector", "python:app_models.Sampling"]
    command += ["--editor", "python:app_models.edit"]
    command += ["--out", str(folder / "out"), str(folder / "truth.jsonl")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=dict(os.environ)
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", line), process.communicate(timeout=60)
    yield line
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.rstrip().endswith("Stopped.")


def opened(browser, address: str, **options):
    """The app in a tab of a context of its own, and a list that trouble is added to."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE)
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on(
        "request",
        lambda request: (
            None if request.url.startswith((address, "data:", "blob:")) else trouble.append(request.url)
        ),
    )
    tab.goto(address)
    tab.get_by_role("tab", name="Diagnose").wait_for()
    return tab, trouble


@pytest.fixture
def page(browser, address: str):
    """The app in a fresh tab; whatever the page logs as an error, throws or asks of others is a failure."""
    tab, trouble = opened(browser, address)
    yield tab
    assert trouble == []
    assert tab.evaluate("window.stolen") is None
    tab.context.close()


def diagnose(page, picture: Path, prompt: str = PROMPT) -> None:
    """Drop a picture, say its prompt, and ask."""
    page.locator("input[type=file]").first.set_input_files(picture)
    page.locator("[data-testid=image] img, .image-frame img").first.wait_for()
    page.get_by_label("Prompt that it was made for").fill(prompt)
    page.get_by_role("button", name="Diagnose", exact=True).click()


def shown(page, picture: Path, prompt: str = PROMPT):
    """The card of a picture that was diagnosed."""
    diagnose(page, picture, prompt)
    page.locator("#diagnosis .card").wait_for()
    return page.locator("#diagnosis .card")


def turn(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_boxes_and_reasons_light_up_each_other_and_a_hostile_reason_stays_text(page, folder: Path) -> None:
    card = shown(page, folder / "a.png")
    assert card.locator(".box").count() == len(FOUND)
    card.locator('.box[data-at="1"] .tag').hover()
    assert HOSTILE in card.locator(".tip").inner_text()
    assert card.locator("li.on").count() == 1
    card.locator(".defects li").first.hover()
    assert card.locator(".box.on").get_attribute("data-at") == "0"
    card.locator(".defects button").first.focus()
    page.keyboard.press("ArrowDown")
    assert card.locator(".box.on").get_attribute("data-at") == "1"
    assert [float(meter.get_attribute("value")) for meter in card.locator("meter").all()] == [72, 35]
    assert not card.locator(".reasoning").is_visible()
    card.locator("summary").click()
    assert "I looked." in card.locator(".reasoning").inner_text()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="JSON").or_(page.get_by_role("button", name="JSON")).click()
    found = json.loads(Path(waiting.value.path()).read_text())
    assert [Defect.from_dict(one) for one in found["defects"]] == list(FOUND)
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Overlay").or_(page.get_by_role("button", name="Overlay")).click()
    with Image.open(waiting.value.path()) as overlay:
        assert overlay.format == "PNG"


def test_a_tap_lights_a_box_on_a_phone(browser, address: str, folder: Path) -> None:
    page, trouble = opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True)
    card = shown(page, folder / "a.png")
    card.locator('.box[data-at="0"] .tag').tap()
    assert card.locator(".box.on").get_attribute("data-at") == "0"
    assert page.get_by_role("tab", name="Compare").is_visible()
    assert trouble == []
    page.context.close()


def test_what_fails_is_a_sentence_in_the_page(page, folder: Path) -> None:
    page.get_by_role("button", name="Diagnose", exact=True).click()
    page.get_by_text("There is no picture yet").wait_for()
    diagnose(page, folder / "a.png", "please fail")
    page.get_by_text("the server is on fire").first.wait_for()
    address = page.get_by_label("Or the address of a picture of this app")
    address.fill("https://example.org/cat.png")
    address.press("Enter")
    page.get_by_text("is not on this machine").wait_for()
    address.fill((folder / "truth.jsonl").as_uri())
    address.press("Enter")
    page.get_by_text("none of the pictures").wait_for()


def dropped(page, picture: Path) -> None:
    """A file dragged from a file manager and let go over the picture's place."""
    data = page.evaluate_handle(
        """async ([data, name]) => {
            const bytes = await (await fetch(`data:image/png;base64,${data}`)).blob();
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name, { type: "image/png" }));
            return carried;
        }""",
        [base64.b64encode(picture.read_bytes()).decode(), picture.name],
    )
    page.locator("#picture button[aria-dropeffect]").dispatch_event("drop", {"dataTransfer": data})


def holds(page, size: tuple[int, int]) -> None:
    """Waits until the picture of the tab has this size."""
    page.wait_for_function(
        """([width, height]) => {
            const image = document.querySelector("#picture img");
            return image && image.naturalWidth === width && image.naturalHeight === height;
        }""",
        arg=list(size),
    )


def copied(page, picture: Path) -> None:
    """A picture in the clipboard, as after "Copy image" elsewhere."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (data) => {
            const bytes = await (await fetch(`data:image/png;base64,${data}`)).blob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": bytes })]);
        }""",
        base64.b64encode(picture.read_bytes()).decode(),
    )


def test_a_picture_is_dropped_pasted_and_opened_by_its_address(page, folder: Path) -> None:
    sizes = {"drop": (300, 200), "button": (200, 300), "keys": (100, 300), "keys again": (300, 100)}
    for way, size in sizes.items():
        Image.new("RGB", size, (90, 40, 140)).save(folder / "given.png")
        if way == "drop":
            dropped(page, folder / "given.png")
        else:
            copied(page, folder / "given.png")
            if way == "button":
                page.get_by_role("button", name="Paste from clipboard").click()
            else:
                page.keyboard.press("Control+v")  # in place of the one that is there
        holds(page, size)
    address = page.get_by_label("Or the address of a picture of this app")
    address.fill((folder / "b.png").as_uri())
    address.press("Enter")
    holds(page, (320, 240))
    page.get_by_label("Prompt that it was made for").fill(PROMPT)
    page.get_by_role("button", name="Diagnose", exact=True).click()
    page.locator("#diagnosis .card").wait_for()
    assert page.locator("#diagnosis .box").count() == len(FOUND)


def test_text_that_is_pasted_stays_text(page, folder: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('a cat')")
    page.get_by_label("Prompt that it was made for").focus()
    page.keyboard.press("Control+v")
    assert page.get_by_label("Prompt that it was made for").input_value() == "a cat"
    assert page.locator("#picture img").count() == 0


def test_sliders_change_what_a_sampling_detector_answers(page, folder: Path) -> None:
    page.get_by_label("Detector", exact=True).click()
    page.get_by_role("option", name="python:app_models.Sampling").click()
    page.get_by_role("button", name="Several looks").click()
    looks = page.get_by_role("spinbutton", name="Looks: sampled")
    threshold = page.get_by_role("spinbutton", name="Threshold: share")
    answers = []
    for number, share in ((1, 0.375), (4, 0.375), (4, 0.9), (4, 0.2)):
        looks.fill(str(number))
        threshold.fill(str(share))
        threshold.press("Tab")
        Image.new("RGB", (320, 240), (128, 128, len(answers))).save(folder / "looked.png")
        if answers:
            page.get_by_role("button", name="Remove Image").click()
        diagnose(page, folder / "looked.png", f"{PROMPT}, {len(answers)}")
        page.locator("#diagnosis .card").get_by_text(f"{PROMPT}, {len(answers)}").wait_for()
        answers.append(page.locator("#diagnosis .box").count())
    assert answers == [1, 2, 1, 3]


def test_a_picture_of_twelve_megapixels_is_shown(page, folder: Path) -> None:
    large = folder / "large.jpg"
    Image.new("RGB", (4000, 3000), (40, 90, 140)).save(large)
    image = shown(page, large).locator("img")
    assert image.get_attribute("width") == "1024"


def test_three_users_wait_for_their_turns(browser, address: str, folder: Path) -> None:
    users = [opened(browser, address) for _ in range(3)]
    for page, _ in users:
        diagnose(page, folder / "a.png", "a slow shape")
    for page, trouble in users:
        page.locator("#diagnosis .card").wait_for()
        assert page.locator("#diagnosis .box").count() == len(FOUND)
        assert trouble == []
        page.context.close()


def test_waiting_can_be_cancelled(page, folder: Path) -> None:
    diagnose(page, folder / "a.png", "a slow shape")
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_text("Cancelled.").wait_for()
    assert page.locator("#diagnosis .card").count() == 0
    card = shown(page, folder / "b.png")  # and the next one is answered
    assert card.locator(".box").count() == len(FOUND)


def test_boxes_are_corrected_by_mouse_and_keys_undone_and_saved_as_rows(page, folder: Path) -> None:
    shown(page, folder / "b.png")
    turn(page, "Correct")
    editor = page.locator("#editor")
    editor.locator(".stage").wait_for()
    editor.locator(".stage").scroll_into_view_if_needed()
    editor.locator(".boxes button").first.click()
    page.keyboard.press("ArrowRight")  # 5 of 1000
    page.keyboard.press("ArrowRight")
    frame = editor.locator(".stage").bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]

    page.mouse.move(*at(0.26, 0.35))  # the middle of the first box, where it is now
    page.mouse.down()
    page.mouse.move(*at(0.36, 0.45), steps=3)
    page.mouse.up()
    editor.locator("#importance").fill("90")
    editor.locator(".boxes button").nth(1).click()
    page.keyboard.press("Delete")
    assert editor.locator(".boxes button").count() == 1
    page.keyboard.press("Control+z")
    assert editor.locator(".boxes button").count() == 2
    page.keyboard.press("Control+Shift+z")
    assert editor.locator(".boxes button").count() == 1
    editor.locator(".stage").focus()
    page.keyboard.press("2")
    page.keyboard.press("n")
    page.keyboard.type(HOSTILE)  # the reason has the focus
    page.get_by_role("button", name="Save as a row").click()
    page.get_by_text("Box 2: It needs an importance").wait_for()
    editor.locator("#importance").fill("12")
    page.get_by_role("button", name="Save as a row").click()
    page.get_by_text("holds 1 row.").wait_for()
    (row,) = sdg30k.read_annotations(folder / "out" / "annotations.jsonl")
    first, second = row.diagnosis.defects
    assert first.box == pytest.approx((210, 300, 510, 600), abs=8)
    assert (first.type, first.importance) == ("artifact", 90)
    assert (second.type, second.reason, second.importance) == ("misalignment", HOSTILE, 12)
    assert second.box == (400, 400, 600, 600)
    with Image.open(folder / "out" / row.filepath) as picture:
        assert picture.size == (320, 240)
    assert len(row.metadata["corrected_from"]["defects"]) == 2
    assert page.locator("#corrected .sides figure").count() == 2


def test_chosen_defects_are_repaired_and_nothing_else_changes(page, folder: Path) -> None:
    shown(page, folder / "a.png")
    turn(page, "Repair")
    page.locator("#chosen input").nth(1).uncheck()
    page.get_by_role("button", name="Repair", exact=True).click()
    page.locator("#repaired .compare").wait_for()
    assert re.search(r"repaired\. .* 0 of [\d,]+ pixels changed", page.locator("body").inner_text())
    assert "After: 1 defect" in page.locator("#repaired .card").inner_text()
    compare = page.locator("#repaired .compare")
    compare.locator("input").focus()
    page.keyboard.press("End")
    assert compare.evaluate("one => getComputedStyle(one).getPropertyValue('--cut')") == "100%"


def test_two_detectors_are_compared_and_disagreements_kept(page, folder: Path) -> None:
    turn(page, "Compare")
    page.get_by_role("button", name="Compare detectors").click()
    cards = page.locator("#compared .card:not([hidden])")
    cards.first.wait_for()
    assert cards.count() == 2
    both = cards.first.locator('.box[data-at="0"]')
    assert both.count() == 2, "the pair is on both pictures"
    assert both.first.get_attribute("class") == both.last.get_attribute("class")
    cards.first.locator(".defects li").first.hover()
    assert cards.first.locator(".box.on").count() == 2
    assert page.locator("#compared table").count() == 2, "SDG-Eval, as the truth is known"
    page.locator("#compared select[name=status]").select_option("agree")
    assert cards.count() == 0


def test_two_files_are_compared(page, folder: Path) -> None:
    for name, answers in (("one", ["[]", "[]"]), ("two", ["[]", None])):
        rows = [
            {
                "filepath": f"{picture}.png",
                "caption": PROMPT,
                "response": answer and f"<answer>{answer}</answer>",
            }
            for picture, answer in zip("ab", answers, strict=True)
        ]
        write_objects(folder / f"{name}.jsonl", rows)
    turn(page, "Compare")
    page.get_by_role("button", name="Two files of predictions").click()
    panel = page.get_by_role("tabpanel").filter(has=page.get_by_role("button", name="Compare files"))
    inputs = panel.locator("input[type=file]")
    for name in ("one", "two"):  # a file that is chosen takes its input away
        inputs.first.set_input_files(folder / f"{name}.jsonl")
        panel.get_by_text(name).first.wait_for()
    page.get_by_role("button", name="Compare files").click()
    cards = page.locator("#compared .card:not([hidden])")
    cards.first.wait_for()
    page.locator("#compared select[name=status]").select_option("disagree")
    assert cards.count() == 1
    assert "no answer" in cards.inner_text()


def test_only_this_machine_by_its_own_names_is_answered(address: str) -> None:
    def status(**headers: str) -> int:
        request = urllib.request.Request(address, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status() == 200
    assert status(Host="rebound.example.org") == 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser, address: str, folder: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page, _ = opened(browser, address, color_scheme=scheme)
    shown(page, folder / "a.png")
    faults = []
    for name, waited in (
        ("Diagnose", "#diagnosis .card"),
        ("Correct", "#editor .stage"),
        ("Repair", "#chosen input"),
        ("Compare", "#compared"),
    ):
        turn(page, name)
        page.locator(waited).first.wait_for(state="attached")
        if name == "Compare":
            page.get_by_role("button", name="Compare detectors").click()
            page.locator("#compared .card").first.wait_for()
        faults += [
            (name, fault["id"], node["html"][:200])
            for fault in axe.run(page).response["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
    assert faults == []
    page.context.close()
