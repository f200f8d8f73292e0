"""The report in headless Chromium: what pointing, keys, filters and sliders do, and what never happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from everything import CONTRAST, HOSTILE, entries

from sdg.reporting import Gallery, Report, write_report

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture
def page(browser, page_file):
    """The report in a fresh tab; whatever the page logs, throws or asks the network for is a failure."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda request: trouble.append(request.url) if request.url[:5] != "data:" else None)
    tab.goto(page_file.as_uri())
    assert trouble == [page_file.as_uri()]
    trouble.clear()
    yield tab
    assert [one for one in trouble if not one.startswith("data:")] == []
    tab.close()


def card(page, at: int = 0):
    """A card of the gallery."""
    return page.locator("section.gallery .card:not([hidden])").nth(at)


def choose(page, name: str, value: str) -> None:
    page.locator(f"section.gallery select[name={name}]").select_option(value)


def test_pointing_at_a_box_lights_it_and_shows_its_reason_and_importance(page):
    one = card(page)
    reason = one.locator(".defects li .reason").first.inner_text()
    importance = one.locator(".defects li").first.get_attribute("data-importance")
    tip = one.locator(".tip")
    assert not tip.is_visible()
    one.locator('.box[data-at="0"] .tag').hover()
    assert reason in tip.inner_text()
    assert importance in tip.inner_text()
    assert one.locator(".box.on").get_attribute("data-at") == "0"
    page.locator("h1").hover()
    assert not tip.is_visible()
    assert one.locator(".box.on").count() == 0


def test_pointing_at_a_reason_lights_its_box(page):
    one = card(page)
    one.locator(".defects li").nth(1).hover()
    assert one.locator(".box.on").get_attribute("data-at") == "1"


def test_a_click_holds_a_reason_and_a_second_one_lets_go(page):
    one = card(page)
    button = one.locator(".defects button").first
    button.click()
    page.locator("h1").hover()
    assert button.get_attribute("aria-pressed") == "true"
    assert one.locator(".tip").is_visible()
    button.click()
    page.locator("h1").hover()
    assert button.get_attribute("aria-pressed") == "false"


def test_keys_move_between_defects_and_between_cards(page):
    page.locator("section.gallery input[type=search]").focus()
    page.keyboard.press("Tab")  # one stop a card: the first defect
    assert card(page).locator("li.on").count() == 1
    assert card(page).locator(".tip").is_visible()
    page.keyboard.press("ArrowDown")
    assert card(page).locator(".box.on").get_attribute("data-at") == "1"
    page.keyboard.press("ArrowRight")
    assert card(page).locator("li.on").count() == 0
    assert card(page, 1).locator(".box.on").get_attribute("data-at") == "0"
    page.keyboard.press("Enter")
    assert card(page, 1).locator('button[aria-pressed="true"]').count() == 1
    page.keyboard.press("Escape")
    assert card(page, 1).locator('button[aria-pressed="true"]').count() == 0
    page.keyboard.press("ArrowLeft")
    assert card(page).locator(".box.on").get_attribute("data-at") == "1", "a card remembers where one was"


def test_filters_keep_the_pictures_that_fit_and_say_how_many(page):
    total = page.locator("section.gallery .card").count()
    visible = page.locator("section.gallery .card:not([hidden])")
    choose(page, "type", "misalignment")
    shown = visible.count()
    assert 0 < shown < total
    assert page.locator("section.gallery .count").inner_text() == f"{shown} of {total}"
    assert all(visible.nth(i).locator("li[data-type=misalignment]").count() for i in range(shown))
    kinds = visible.locator(".defects li:not([hidden])").evaluate_all("all => all.map(li => li.dataset.type)")
    assert set(kinds) == {"misalignment"}
    choose(page, "tier", "critical")
    assert visible.count() <= shown
    assert set(
        visible.locator(".defects li:not([hidden])").evaluate_all("a => a.map(li => li.dataset.tier)")
    ) == {"critical"}
    choose(page, "type", "")
    choose(page, "tier", "")
    choose(page, "generator", "SANA-1.5")
    assert set(visible.evaluate_all("all => all.map(card => card.dataset.generator)")) == {"SANA-1.5"}
    choose(page, "generator", "")
    choose(page, "status", "failed")
    assert visible.count() == 1
    assert "no answer" in visible.text_content()
    choose(page, "status", "")
    page.locator("input[name=text]").fill("QUOTED")
    assert visible.count() == 1
    page.locator("input[name=text]").fill("no picture says this")
    assert visible.count() == 0
    assert page.get_by_text("No picture fits these filters.").is_visible()


def test_the_order_can_be_worst_first(page):
    choose(page, "order", "worst")
    worst = page.locator("section.gallery .card").evaluate_all(
        "all => all.map(card => [...card.querySelectorAll('.defects li')])"
        ".map(items => Math.max(0, ...items.map(item => +item.dataset.importance)))"
    )
    assert worst == sorted(worst, reverse=True)


def test_a_slider_moves_the_divider_by_mouse_and_by_key(page):
    compare = page.locator(".compare").first
    compare.scroll_into_view_if_needed()
    cut = "element => getComputedStyle(element).getPropertyValue('--cut')"
    assert compare.evaluate(cut) == "50%"
    box = compare.bounding_box()
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    assert 75 < float(compare.evaluate(cut).rstrip("%")) < 85
    page.keyboard.press("Home")
    assert compare.evaluate(cut) == "0%"
    clip = compare.locator(".after").evaluate("element => getComputedStyle(element).clipPath")
    assert clip == "inset(0px 0px 0px 0%)"


def test_the_figures_of_a_run_are_stepped_through(page):
    steps = page.locator(".steps")
    assert steps.locator(".step:not([hidden])").get_attribute("data-name") == "Epoch 12"
    steps.locator("input").focus()
    page.keyboard.press("Home")
    assert steps.locator(".step:not([hidden])").get_attribute("data-name") == "Epoch 0"


def test_text_of_a_model_stays_text(page):
    page.locator("input[name=text]").fill("quoted")
    one = card(page)
    # The text as it is in the document: what lies outside the window is not laid out yet.
    assert one.locator(".reason").text_content() == HOSTILE
    assert one.locator(".prompt").text_content() == HOSTILE
    assert one.get_attribute("aria-label") == HOSTILE
    one.locator(".defects button").hover()
    assert HOSTILE in one.locator(".tip").inner_text()
    assert page.evaluate("window.stolen") is None
    assert page.locator("script").count() == 1
    assert page.locator('img[src="x"]').count() == 0


def test_the_policy_of_the_page_stops_what_is_not_its_own(browser, page_file, tmp_path):
    """Were something ever not escaped, it would still not run and not reach anyone."""
    text = page_file.read_text(encoding="utf-8")
    changed = text.replace(
        "</main>", '<script>window.stolen = 1</script><img src="https://example.org/a.png"></main>', 1
    )
    file = tmp_path / "changed.html"
    file.write_text(changed, encoding="utf-8")
    tab = browser.new_page()
    asked: list[str] = []
    tab.on("requestfinished", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    assert tab.evaluate("window.stolen") is None
    assert [url for url in asked if url.startswith("https:")] == []
    tab.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_off_the_side_and_text_has_contrast(browser, page_file, size, scheme):
    width, height = SIZES[size]
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab.goto(page_file.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    for selector in (".reason", ".meta", ".tier", "b.artifact", "b.misalignment", ".interval", ".facts dt"):
        assert tab.locator(selector).first.evaluate(CONTRAST) >= 4.5, f"{selector} {scheme}"
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 150) == (scheme == "dark")
    tab.close()


def test_motion_is_left_out_for_who_asks_for_that(browser, page_file):
    tab = browser.new_page(reduced_motion="reduce")
    tab.goto(page_file.as_uri())
    assert tab.locator(".box").first.evaluate("e => getComputedStyle(e).transitionProperty") == "none"
    tab.close()


def test_pictures_have_words_and_inputs_have_names(page):
    assert page.locator("img:not([alt])").count() == 0
    nameless = page.locator("input, select, button").evaluate_all(
        "all => all.filter(e => !e.closest('label') && !e.ariaLabel && !e.textContent.trim()).length"
    )
    assert nameless == 0
    assert page.locator("html").get_attribute("lang") == "en"


def test_a_picture_that_is_not_there_is_named(page):
    missing = page.locator(".missing").filter(has_text="gone.png")
    assert "does not exist" in missing.text_content()


@pytest.mark.slow
def test_a_thousand_pictures_stay_usable(browser, tmp_path: Path):
    few = entries(50)
    many = [few[number % 50] for number in range(1000)]
    file = write_report(Report("Many", (Gallery(many),)), tmp_path / "many.html")
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(300_000)  # a loaded machine is no fault
    tab.goto(file.as_uri())
    assert tab.locator(".card").count() == 1000
    holder = tab.locator("section.gallery")
    holder.evaluate("""gallery => {
        window.changes = 0;
        const observer = new MutationObserver((list) => { window.changes += list.length; });
        observer.observe(gallery, { attributes: true, childList: true, subtree: true });
    }""")
    choose(tab, "type", "artifact")
    tab.wait_for_function("document.querySelector('.count').textContent !== '1,000 of 1,000'")
    # Each thing is changed once, none is built anew, and what is out of sight is not laid out.
    things = holder.locator(".card, .defects li, .defects button, .box").count()
    assert 0 < tab.evaluate("window.changes") <= things + 2
    assert tab.locator(".card").last.evaluate("card => getComputedStyle(card).contentVisibility") == "auto"
    assert holder.locator("img:not([loading=lazy])").count() == 0
    tab.close()
