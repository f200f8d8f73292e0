"""An overlay shows every defect at any image size, tells the types apart, and leaves the rest as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor, ImageDraw, ImageFont

from sdg import overlay
from sdg.defects import Defect, DefectType
from sdg.images import draw_overlay
from sdg.overlay import COLOURS, MIN_SIDE

ORANGE, BLUE = (np.array(ImageColor.getrgb(COLOURS[type])) for type in DefectType)
GREY = (90, 90, 90)

spans = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted)
boxes = st.tuples(spans, spans).map(lambda span: (span[0][0], span[1][0], span[0][1], span[1][1]))
defects = st.lists(
    st.builds(Defect, boxes, st.sampled_from(DefectType), st.just("Why."), st.none() | st.integers(1, 100)),
    max_size=12,
)


def plain(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def changed(image: Image.Image, before: Image.Image) -> np.ndarray:
    """(H, W) bool: where two pictures of the same size differ."""
    return (np.asarray(image) != np.asarray(before)).any(axis=2)


def near(image: Image.Image, colour: np.ndarray) -> np.ndarray:
    return np.abs(np.asarray(image, dtype=int) - colour).max(axis=2) < 12


class Written:
    """Records where text goes, as Pillow itself measures it, and on which canvas."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        self.rects: list[tuple[float, float, float, float]] = []
        draw_text = ImageDraw.ImageDraw.text

        def text(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **options: object) -> None:
            self.texts.append(text)
            where = {name: options[name] for name in ("font", "anchor") if name in options}
            self.rects.append(draw.textbbox(xy, text, **where))  # type: ignore[arg-type]
            draw_text(draw, xy, text, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)

    def clear(self) -> None:
        self.texts.clear()
        self.rects.clear()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(monkeypatch)


# --- size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((64, 64), (MIN_SIDE, MIN_SIDE)),
        ((64, 32), (MIN_SIDE, MIN_SIDE // 2)),
        ((1, 96), (8, MIN_SIDE)),
        ((1024, 768), (1024, 768)),
        ((4096, 4096), (4096, 4096)),
    ],
)
def test_small_images_are_enlarged_and_large_ones_keep_their_size(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    assert draw_overlay(plain(*size), [Defect((100, 100, 900, 900), "artifact")]).size == shown


def test_min_side_can_be_set() -> None:
    assert draw_overlay(plain(64, 64), [], min_side=64).size == (64, 64)


def test_without_defects_the_picture_is_as_it_was_and_the_input_is_untouched() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (800, 900, 3), dtype=np.uint8))
    before = noise.copy()
    assert draw_overlay(noise, []) == before
    draw_overlay(noise, [Defect((0, 0, 500, 500), "artifact", "Why.", 50)], legend="right")
    assert noise == before


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_come_out_as_rgb(mode: str) -> None:
    assert draw_overlay(plain(100, 100).convert(mode), [Defect((1, 1, 9, 9), "artifact")]).mode == "RGB"


@pytest.mark.parametrize("side", [64, 128, 256, 512, 1024, 2048, 4096])
def test_text_and_lines_keep_their_share_of_the_picture(written: Written, side: int) -> None:
    shown = draw_overlay(plain(side, side), [Defect((250, 250, 750, 750), "artifact", "", 50)])
    [(_, top, _, bottom)] = written.rects
    assert bottom - top >= 10
    assert 0.01 <= (bottom - top) / shown.height <= 0.05
    lines = near(shown, ORANGE)[shown.height // 2].sum()  # the two vertical lines, cut in the middle
    assert lines >= 4
    assert 0.004 <= lines / shown.width <= 0.02


# --- boxes ---------------------------------------------------------------------------------------------


def test_only_the_frame_and_the_label_are_drawn(written: Written) -> None:
    canvas = plain(1000, 1000)
    shown = draw_overlay(canvas, [Defect((300, 400, 600, 700), "artifact", "", 50)])
    touched = changed(shown, canvas)
    assert not touched[400:700, 300:600][10:-10, 10:-10].any()  # what the box points at stays visible
    around = touched.copy()
    around[385:715, 285:615] = False  # the frame, within 15 pixels of the box's edge
    [(x0, y0, x1, y1)] = (map(int, rect) for rect in written.rects)
    around[y0 - 15 : y1 + 15, x0 - 15 : x1 + 15] = False
    assert not around.any()


@pytest.mark.parametrize(
    "box", [(300, 400, 600, 700), (0, 0, 1000, 1000), (998, 0, 1000, 2), (0, 500, 1, 501)]
)
def test_a_frame_encloses_its_box_wherever_it_lies(box: tuple[int, int, int, int]) -> None:
    canvas = plain(1000, 1000)
    touched = changed(draw_overlay(canvas, [Defect(box, "artifact")]), canvas)
    x0, y0, x1, y1 = box
    # Walking outwards from the box on each side, a line is met within a few pixels, or the box is at the
    # canvas's edge and the line is just inside it.
    middle_y, middle_x = (y0 + y1) // 2, (x0 + x1) // 2
    assert touched[middle_y, max(0, x0 - 8) : x0 + 8].any()
    assert touched[middle_y, max(0, x1 - 8) : x1 + 8].any()
    assert touched[max(0, y0 - 8) : y0 + 8, middle_x].any()
    assert touched[max(0, y1 - 8) : y1 + 8, middle_x].any()


def test_types_differ_in_colour_and_in_line_style() -> None:
    solid = draw_overlay(plain(1000, 1000), [Defect((200, 200, 800, 800), "artifact")])
    dashed = draw_overlay(plain(1000, 1000), [Defect((200, 200, 800, 800), "misalignment")])
    assert not near(solid, BLUE).any()
    assert not near(dashed, ORANGE).any()

    def runs(image: Image.Image, colour: np.ndarray) -> int:
        """How many separate strokes the box's lower edge has."""
        band = near(image, colour)[796:812, 190:810].any(axis=0).astype(int)
        return int((np.diff(band) == 1).sum())

    assert runs(solid, ORANGE) == 1
    assert runs(dashed, BLUE) > 10


def test_label_text_contrasts_with_its_background() -> None:
    def luminance(colour: np.ndarray) -> float:  # WCAG 2
        linear = np.where(
            colour / 255 <= 0.03928, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in (ORANGE, BLUE):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_colours_stay_apart_for_colour_blind_readers() -> None:
    # Viénot, Brettel and Mollon (1999): linear RGB as dichromats see it.
    protan = np.array([[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.004, -0.004, 1]])
    deutan = np.array([[0.2927, 0.7073, 0], [0.2927, 0.7073, 0], [-0.0223, 0.0223, 1]])
    for seen_as in (protan, deutan):
        orange, blue = (seen_as @ (colour / 255) ** 2.2 for colour in (ORANGE, BLUE))
        assert np.abs(orange - blue).max() > 0.25


def test_a_small_box_inside_a_large_one_is_drawn_on_top() -> None:
    small, large = Defect((400, 400, 500, 500), "artifact"), Defect((400, 300, 900, 900), "misalignment")
    first = draw_overlay(plain(1000, 1000), [small, large])
    second = draw_overlay(plain(1000, 1000), [large, small])
    for shown in (first, second):  # the left edge of the small box lies on that of the large one
        assert near(shown, ORANGE)[450, 385:415].any()
        assert not near(shown, BLUE)[450, 385:415].any()


# --- labels --------------------------------------------------------------------------------------------


def test_labels_give_index_type_and_importance(written: Written) -> None:
    found = [
        Defect((0, 600, 200, 900), "artifact", "A long reason is never drawn on the picture.", 22),
        Defect((600, 600, 800, 900), "misalignment", "", 95),
        Defect((300, 100, 500, 300), "artifact"),
    ]
    draw_overlay(plain(1000, 1000), found)
    assert sorted(written.texts) == ["1 · artifact · 22", "2 · misalignment · 95", "3 · artifact"]


SIZES = [(64, 64), (64, 700), (700, 64), (300, 1200), (1920, 1080)]


@settings(max_examples=60, deadline=None)
@given(found=defects, size=st.sampled_from(SIZES))
def test_labels_stay_on_the_canvas_and_none_is_lost(found: list[Defect], size: tuple[int, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        record = Written(patch)
        shown = draw_overlay(plain(*size), found)
    assert sorted(int(text.split(" ")[0].rstrip("AM")) for text in record.texts) == list(
        range(1, len(found) + 1)
    )
    for x0, y0, x1, y1 in record.rects:
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= shown.width
        assert y1 <= shown.height


def overlapping(rects: list[tuple[float, float, float, float]]) -> int:
    pairs = [(a, b) for i, a in enumerate(rects) for b in rects[:i]]
    return sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in pairs)


@settings(max_examples=60, deadline=None)
@given(found=defects)
def test_a_dozen_labels_do_not_cover_each_other(found: list[Defect]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        record = Written(patch)
        draw_overlay(plain(1024, 1024), found)
    assert overlapping(record.rects) == 0


@pytest.mark.parametrize("box", [(0, 0, 1000, 1000), (500, 500, 501, 501), (999, 0, 1000, 1)])
def test_labels_of_one_box_repeated_do_not_cover_each_other(
    written: Written, box: tuple[int, int, int, int]
) -> None:
    draw_overlay(plain(768, 768), [Defect(box, "artifact", "", 100)] * 8)
    assert len(written.rects) == 8
    assert overlapping(written.rects) == 0


def test_a_label_leaves_a_small_box_visible(written: Written) -> None:
    for corner in ((0, 0), (970, 0), (0, 970), (970, 970), (500, 500)):
        written.clear()
        x, y = corner
        draw_overlay(plain(1000, 1000), [Defect((x, y, x + 30, y + 30), "artifact", "", 50)])
        assert overlapping([*written.rects, (x, y, x + 30, y + 30)]) == 0


def test_where_room_is_short_the_label_is_shortened(written: Written) -> None:
    # A strip 110 pixels wide holds "1M · 80" and not the long form.
    draw_overlay(plain(110, 768), [Defect((0, 400, 1000, 600), "misalignment", "", 80)])
    assert written.texts == ["1M · 80"]


def test_a_strip_too_narrow_for_any_label_still_shows_its_box(written: Written) -> None:
    canvas = plain(12, 768)
    shown = draw_overlay(canvas, [Defect((0, 400, 1000, 600), "artifact", "", 80)])
    assert written.texts == []
    assert changed(shown, canvas).any()


def test_of_very_many_defects_the_most_important_are_labelled(written: Written) -> None:
    many = [Defect((i, i, i + 50, i + 50), "artifact", "", 1 + i % 100) for i in range(150)]
    draw_overlay(plain(768, 768), many)
    assert len(written.texts) == 100
    # Of 150, the importances 1–50 occur twice and 51–100 once: the upper hundred starts at 26.
    assert min(int(text.split(" · ")[-1]) for text in written.texts) == 26


# --- legend --------------------------------------------------------------------------------------------

LONG = " ".join(["The fingers of the raised hand are fused and have no joints."] * 3)


@pytest.mark.parametrize("side", ["right", "bottom"])
@pytest.mark.parametrize("size", [(64, 64), (1024, 512), (40, 900)])
def test_a_legend_tells_everything_and_leaves_the_overlay_as_it_is(
    written: Written, side: str, size: tuple[int, int]
) -> None:
    found = [
        Defect((100, 100, 300, 300), "artifact", LONG, 22),
        Defect((500, 500, 900, 900), "misalignment", "Blue, not green.", 95),
    ]
    without = draw_overlay(plain(*size), found)
    written.clear()
    figure = draw_overlay(plain(*size), found, legend=side, caption="A girl")  # type: ignore[arg-type]
    assert figure.crop((0, 0, *without.size)) == without
    assert (figure.width > without.width) if side == "right" else (figure.height > without.height)
    told = " ".join(written.texts)
    for part in (
        "“A girl”",
        LONG,
        "Blue, not green.",
        "1 · artifact · 22",
        "2 · misalignment · 95",
        "minor",
        "critical",
    ):
        assert part in told
    for x0, y0, x1, y1 in written.rects:
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= figure.width
        assert y1 <= figure.height


def test_the_legend_of_a_clean_picture_says_so(written: Written) -> None:
    draw_overlay(plain(768, 768), [], legend="bottom")
    assert written.texts == ["No defects."]


def test_a_word_without_end_is_broken_in_a_moment() -> None:
    font = ImageFont.load_default(14)
    assert isinstance(font, ImageFont.FreeTypeFont)
    lines = overlay._wrap("a" * 50_000, font, 300)  # by each prefix in turn it would take hours
    assert len(lines) == 8
    assert all(font.getlength(line) <= 300 for line in lines)


@given(text=st.text(max_size=400), width=st.integers(20, 400))
def test_wrapped_lines_fit_and_keep_the_words(text: str, width: int) -> None:
    font = ImageFont.load_default(14)
    assert isinstance(font, ImageFont.FreeTypeFont)
    lines = overlay._wrap(text, font, width)
    assert all(font.getlength(line) <= width or len(line) == 1 for line in lines)
    said, whole = ("".join("".join(part).split()) for part in (lines, text))
    if said != whole:
        assert len(lines) == 8
        assert said[-1] == "…"
        assert whole.startswith(said[:-1])
