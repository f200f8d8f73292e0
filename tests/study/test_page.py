"""The page of a study in headless Chromium: rating by key and by touch, what is kept, what never is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from everything import CONTRAST, HOSTILE
from PIL import Image

from sdg.errors import SdgError
from sdg.study.make import Question, write_study

SIZES = {"desktop": (1280, 900), "phone": (390, 844), "phone, turned": (844, 390)}
LONG = "seven fishing boats and a lighthouse " * 12


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three pairs, one with a hostile prompt and one with a long one."""
    questions = [
        Question(
            f"pair{number}",
            prompt,
            (
                (f"first{number}", Image.new("RGB", (64, 48), (200, 60 * number, 0))),
                (f"second{number}", Image.new("RGB", (64, 48), (0, 60 * number, 200))),
            ),
        )
        for number, prompt in enumerate((HOSTILE, LONG, "a cat"))
    ]
    return write_study(tmp_path_factory.mktemp("study") / "study.html", "s1", questions, seed=4)


@pytest.fixture
def context(browser):
    """A browser of its own, with nothing kept yet."""
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    yield made
    made.close()


@pytest.fixture
def page(context, study_file: Path):
    """The study in a fresh tab; whatever the page logs, throws or asks the network for is a failure."""
    tab = context.new_page()
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda request: trouble.append(request.url))
    tab.goto(study_file.as_uri())
    yield tab
    assert [one for one in trouble if not one.startswith(("data:", "blob:", "file:"))] == []


def start(page, name: str = "Ann") -> None:
    page.keyboard.type(name)  # the field has the focus
    page.keyboard.press("Enter")


def shown(page) -> list[str]:
    """The ids of the two pictures, from left to right."""
    return page.locator(".two img").evaluate_all("all => all.map(image => image.dataset.picture)")


def kept(page, name: str = "Ann") -> dict:
    return json.loads(page.evaluate("key => localStorage.getItem(key)", f"sdg study s1 {name}"))


def downloaded(page) -> dict:
    with page.expect_download() as waiting:
        page.locator("button.download:visible").click()
    return json.loads(Path(waiting.value.path()).read_text(encoding="utf-8"))


def test_three_pairs_are_rated_by_keys_kept_over_a_reload_and_downloaded(page) -> None:
    start(page)
    expected = []
    for key, side in (("ArrowRight", 1), ("ArrowDown", None)):
        pictures = shown(page)
        expected.append("same" if side is None else pictures[side])
        page.keyboard.press(key)
    assert page.locator(".count").inner_text() == "3 of 3"
    third = shown(page)
    page.reload()
    assert shown(page) == third
    page.keyboard.press("ArrowLeft")
    assert page.get_by_text("All pairs are rated").is_visible()
    written = downloaded(page)
    assert written == kept(page)
    assert (written["study"], written["annotator"]) == ("s1", "Ann")
    assert [one["better"] for one in written["ratings"]] == [*expected, third[0]]
    assert {one["pair"] for one in written["ratings"]} == {"pair0", "pair1", "pair2"}


def test_undo_goes_back_and_the_new_choice_stands(page) -> None:
    start(page)
    assert page.locator("#rating .undo").is_disabled()
    first = shown(page)
    page.keyboard.press("Backspace")
    assert shown(page) == first
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Backspace")
    assert shown(page) == first
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Backspace")
    assert page.locator(".count").inner_text() == "3 of 3"
    better = [one["better"] for one in kept(page)["ratings"]]
    assert (len(better), better[0]) == (2, first[1])


def test_a_key_that_is_held_rates_once_and_a_shortcut_not_at_all(page) -> None:
    start(page)
    page.keyboard.down("ArrowRight")
    page.keyboard.down("ArrowRight")  # as repeated by a held key
    page.keyboard.up("ArrowRight")
    page.keyboard.press("Alt+ArrowDown")
    page.keyboard.press("Control+ArrowDown")
    assert len(kept(page)["ratings"]) == 1


def test_order_and_sides_are_one_annotators_own_and_always_the_same(page) -> None:
    def seen(name: str) -> list[list[str]]:
        page.evaluate("localStorage.clear()")
        page.reload()
        start(page, name)
        found = []
        while page.locator("#rating").is_visible():
            found.append(shown(page))
            page.keyboard.press("ArrowDown")
        return found

    orders = [seen(name) for name in "abcdefgh"]
    assert seen("a") == orders[0]
    assert len({tuple(map(tuple, order)) for order in orders}) > 4  # of 48 that there are
    assert {order[0][0][:-1] for order in orders} == {"first", "second"}


def test_two_annotators_at_one_browser_keep_their_ratings_apart(page) -> None:
    start(page)
    page.keyboard.press("ArrowDown")
    page.get_by_role("button", name="Not Ann?").first.click()
    start(page, "Bob")
    assert page.locator(".count").inner_text() == "1 of 3"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert (len(kept(page)["ratings"]), len(kept(page, "Bob")["ratings"])) == (1, 2)


def test_what_was_kept_and_does_not_fit_is_not_taken(page) -> None:
    start(page)
    page.evaluate(
        'localStorage.setItem(\'sdg study s1 Ann\', \'{"ratings": [{"pair": "x", "better": "same"}]}\')'
    )
    page.reload()
    assert page.locator(".count").inner_text() == "1 of 3"
    page.evaluate("localStorage.setItem('sdg study s1 Ann', 'nonsense')")
    page.reload()
    assert page.locator(".count").inner_text() == "1 of 3"


def test_a_browser_that_keeps_nothing_says_so_and_still_downloads(page) -> None:
    page.evaluate("() => Storage.prototype.setItem = () => { throw new Error('full'); }")
    start(page)
    assert page.get_by_role("alert").is_visible()
    page.keyboard.press("ArrowDown")
    assert len(downloaded(page)["ratings"]) == 1


def test_text_of_a_prompt_stays_text(page) -> None:
    start(page)
    prompts = []
    for _ in range(3):
        prompts.append(page.locator(".prompt").text_content())
        page.keyboard.press("ArrowDown")
    assert sorted(prompts) == sorted((HOSTILE, LONG, "a cat"))
    assert page.evaluate("window.stolen") is None
    assert page.locator("script").count() == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_fits_the_window_and_text_has_contrast(browser, study_file, size, scheme) -> None:
    width, height = SIZES[size]
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab.goto(study_file.as_uri())
    for selector in ("h1", ".faint", "button.strong"):
        assert tab.locator(selector).first.evaluate(CONTRAST) >= 4.5, selector
    start(tab)
    for selector in (".count", ".prompt", ".choices button", "#rating .other", "#rating .download"):
        assert tab.locator(selector).first.evaluate(CONTRAST) >= 4.5, selector
    for _ in range(3):
        boxes = [box.bounding_box() for box in tab.locator(".two img, .choices button, #rating header").all()]
        assert len(boxes) == 6
        for box in boxes:
            assert box["x"] >= 0
            assert box["y"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= height
        assert min(box["height"] for box in boxes[1:3]) >= 150
        tab.get_by_role("button", name="The same").click()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 22, 26)"
    assert dark == (scheme == "dark")
    tab.close()


def test_both_pictures_of_a_pair_are_shown_equally_large(tmp_path: Path, context) -> None:
    small, large = Image.new("RGB", (32, 32), "teal"), Image.new("RGB", (900, 900), "navy")
    file = write_study(tmp_path / "s.html", "s2", [Question("p", "a cat", (("x", small), ("y", large)))])
    tab = context.new_page()
    tab.goto(file.as_uri())
    start(tab)
    one, other = (image.bounding_box() for image in tab.locator(".two img").all())
    assert (one["width"], one["height"]) == (other["width"], other["height"])


def test_a_picture_that_cannot_be_read_is_an_error_and_leaves_no_page(tmp_path: Path) -> None:
    there, gone = Image.new("RGB", (8, 8)), tmp_path / "gone.png"
    with pytest.raises(SdgError, match=r"gone\.png does not exist"):
        write_study(tmp_path / "s.html", "s", [Question("p", "", (("x", there), ("y", gone)))])
    assert list(tmp_path.iterdir()) == []
