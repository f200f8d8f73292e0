"""Drawing a diagnosis onto its image: numbered boxes, legible at 64 to 4096 pixels, and a legend of reasons.

The two types differ in colour (safe for colour-blind readers), in line style and in letter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, sqrt
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdg.defects import Defect, DefectType
from sdg.geometry import touched_pixels

Rect = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are the first column and row outside."""

COLOURS: Final = {DefectType.ARTIFACT: "#C2410C", DefectType.MISALIGNMENT: "#0369A1"}
"""Orange and blue stay apart under every common colour blindness; white text on either has contrast > 5:1."""

MIN_SIDE: Final = 768
"""Smaller images are enlarged until their longer side has this many pixels, or no label could be read."""

_CASING = "white"  # lies under the coloured lines, so that they show on any picture
_PAPER, _INK, _FAINT = "white", "#1F2933", "#6B7280"
_MAX_REASON_LINES = 8
_MEASURED = 256  # letters of a line that are measured at first
_MAX_LABELS = 100
_COVERS_LABEL = 1000.0  # cost of a place on another label, above every other reason together


def draw_overlay(
    image: Image.Image,
    defects: Sequence[Defect],
    *,
    min_side: int = MIN_SIDE,
    legend: Literal["right", "bottom"] | None = None,
    caption: str = "",
) -> Image.Image:
    """A copy of `image` with every defect's box and a label "index type importance", as RGB.

    Artifacts are solid orange, misalignments dashed blue; the index is the position in `defects`, from 1.
    Images with a longer side under `min_side` pixels are enlarged to it; line width and text grow with
    larger ones. Labels stay on the canvas and off each other while there is room; a strip too narrow for
    labels gets boxes only, and of more than 100 defects the 100 most important are labelled.
    `legend` adds a panel beside or under the picture with the `caption` (the prompt) and the reasons.
    """
    canvas = _display_copy(image, min_side)
    draw = ImageDraw.Draw(canvas)
    line, text_size = _scale(canvas.size)
    boxes: list[Rect] = [
        (x0, y0, x1, y1) for x0, y0, x1, y1 in touched_pixels([d.box for d in defects], canvas.size).tolist()
    ]
    # Large boxes first, so that a small box inside a large one stays on top.
    for i in sorted(range(len(defects)), key=lambda i: -_area(boxes[i])):
        _draw_box(draw, boxes[i], canvas.size, line, defects[i].type)
    for label in _place_labels(defects, boxes, canvas.size, text_size, line):
        _draw_label(draw, label)
    if legend is None:
        return canvas
    return _with_legend(canvas, defects, legend, caption)


def _display_copy(image: Image.Image, min_side: int) -> Image.Image:
    longer = max(image.size)
    if longer >= min_side:
        return image.convert("RGB") if image.mode != "RGB" else image.copy()
    width, height = (max(1, round(side * min_side / longer)) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def _scale(size: tuple[int, int]) -> tuple[int, int]:
    """Line width and text size in pixels: in proportion to the image's mean side, with a legible minimum."""
    side = sqrt(size[0] * size[1])
    return max(2, round(side / 256)), max(13, round(side / 45))


def _area(rect: Rect) -> int:
    return max(0, rect[2] - rect[0]) * max(0, rect[3] - rect[1])


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


# --- boxes ---------------------------------------------------------------------------------------------


def _draw_box(
    draw: ImageDraw.ImageDraw, box: Rect, size: tuple[int, int], line: int, type: DefectType
) -> None:
    """A coloured frame between two thin white ones, just outside the box so that it hides little of it."""
    casing = max(1, line // 2)
    reach = line + casing
    # Pushed back onto the canvas where the box touches its edge.
    x0, y0 = max(0, box[0] - reach), max(0, box[1] - reach)
    x1, y1 = min(size[0], box[2] + reach), min(size[1], box[3] + reach)
    _frame(draw, (x0, y0, x1, y1), line + 2 * casing, _CASING)
    middle = (x0 + casing, y0 + casing, x1 - casing, y1 - casing)
    if type is DefectType.ARTIFACT:
        _frame(draw, middle, line, COLOURS[type])
    else:
        _dashed_frame(draw, middle, line, COLOURS[type])


def _fill(draw: ImageDraw.ImageDraw, rect: Rect, colour: str) -> None:
    if rect[0] < rect[2] and rect[1] < rect[3]:
        draw.rectangle((rect[0], rect[1], rect[2] - 1, rect[3] - 1), fill=colour)


def _sides(rect: Rect, line: int) -> tuple[Rect, Rect, Rect, Rect]:
    """Top, bottom, left and right bars of a frame of `line` pixels drawn inside `rect`."""
    x0, y0, x1, y1 = rect
    return (
        (x0, y0, x1, min(y1, y0 + line)),
        (x0, max(y0, y1 - line), x1, y1),
        (x0, y0, min(x1, x0 + line), y1),
        (max(x0, x1 - line), y0, x1, y1),
    )


def _frame(draw: ImageDraw.ImageDraw, rect: Rect, line: int, colour: str) -> None:
    for side in _sides(rect, line):
        _fill(draw, side, colour)


def _dashed_frame(draw: ImageDraw.ImageDraw, rect: Rect, line: int, colour: str) -> None:
    for x0, y0, x1, y1 in _sides(rect, line):
        horizontal = x1 - x0 >= y1 - y0
        for start, end in _dashes(x1 - x0 if horizontal else y1 - y0, line):
            dash = (x0 + start, y0, x0 + end, y1) if horizontal else (x0, y0 + start, x1, y0 + end)
            _fill(draw, dash, colour)


def _dashes(length: int, line: int) -> Iterator[tuple[int, int]]:
    """Dashes of about four line widths with gaps of three; one at each end, so that corners are closed."""
    dash, gap = 4 * line, 3 * line
    count = max(1, round((length - dash) / (dash + gap)) + 1)
    if count == 1:
        yield 0, length
        return
    step = (length - dash) / (count - 1)
    for i in range(count):
        start = round(i * step)
        yield start, start + dash


# --- labels --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Label:
    text: str
    rect: Rect
    type: DefectType
    size: int  # of the text, in pixels


def _place_labels(
    defects: Sequence[Defect], boxes: Sequence[Rect], size: tuple[int, int], text_size: int, line: int
) -> list[_Label]:
    """A place for each label, small boxes first: they have the fewest places to go."""
    weightiest = sorted(range(len(defects)), key=lambda i: -(defects[i].importance or 0))[:_MAX_LABELS]
    placed: list[_Label] = []
    all_boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    taken = np.zeros_like(all_boxes)  # the first len(placed) rows hold the labels placed so far
    for i in sorted(weightiest, key=lambda i: _area(boxes[i])):
        best: tuple[float, _Label] | None = None
        for text in _texts(i + 1, defects[i]):
            places = list(_places(boxes[i], _extent(text, text_size), size, 2 * line))
            if not places:
                continue
            costs = _costs(np.array(places, dtype=float), i, all_boxes, taken[: len(placed)])
            at = int(costs.argmin())
            if best is None or costs[at] < best[0]:
                best = float(costs[at]), _Label(text, places[at], defects[i].type, text_size)
            if best[0] < _COVERS_LABEL:
                break  # the short text is for where the full one finds no free place
        if best is not None:
            taken[len(placed)] = best[1].rect
            placed.append(best[1])
    return placed


def _texts(index: int, defect: Defect) -> tuple[str, str]:
    parts = [str(index), defect.type.value]
    if defect.importance is not None:
        parts.append(str(defect.importance))
    short = [f"{index}{defect.type.value[0].upper()}", *parts[2:]]
    return " · ".join(parts), " · ".join(short)


def _extent(text: str, text_size: int) -> tuple[int, int]:
    """(width, height) of a label."""
    return ceil(_font(text_size).getlength(text)) + 2 * _padding(text_size), text_size + _padding(text_size)


def _padding(text_size: int) -> int:
    return max(3, round(text_size * 0.35))


def _places(box: Rect, extent: tuple[int, int], size: tuple[int, int], margin: int) -> Iterator[Rect]:
    """Where a label may go, best first: around the box, then inside it, then further and further away.

    Empty if the label is larger than the canvas.
    """
    width, height = extent
    if width > size[0] or height > size[1]:
        return
    x0, y0, x1, y1 = box
    above, below = y0 - margin - height, y1 + margin
    left, right = x0 - margin - width, x1 + margin
    corners_x, corners_y = (x0 - margin, x1 + margin - width), (y0 - margin, y1 + margin - height)
    candidates = [(x, y) for y in (above, below) for x in corners_x]
    candidates += [(x, y) for x in (right, left) for y in corners_y]
    candidates += [
        (x, y) for y in (y0 + margin, y1 - margin - height) for x in (x0 + margin, x1 - margin - width)
    ]
    for step in range(1, 9):  # rows above and below, columns beside
        candidates += [(x, y) for x in corners_x for y in (above - step * height, below + step * height)]
        candidates += [(x, y0 - margin + step * height) for x in (right, left)]
        candidates += [(x0 + margin, y0 + margin + step * height)]
    for x, y in candidates:
        x, y = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
        yield x, y, x + width, y + height


def _costs(places: np.ndarray, own: int, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How bad each of the (P, 4) places is: covering labels is worst, then hiding small boxes, then rank."""
    covered = _overlaps(places, labels).sum(axis=1)  # (P,) pixels
    hidden = _overlaps(places, boxes) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)  # (P, N) shares
    hidden[:, own] *= 2
    nuisance = 10 * hidden.sum(axis=1) + 0.1 * np.arange(len(places))
    return np.minimum(nuisance, _COVERS_LABEL / 2) + np.where(covered > 0, _COVERS_LABEL + covered, 0)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) common pixels of every pair of (A, 4) and (B, 4) rectangles."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def _draw_label(draw: ImageDraw.ImageDraw, label: _Label) -> None:
    x0, y0, x1, y1 = label.rect
    _fill(draw, label.rect, _CASING)
    _fill(draw, (x0 + 1, y0 + 1, x1 - 1, y1 - 1), COLOURS[label.type])
    draw.text(((x0 + x1) / 2, (y0 + y1) / 2), label.text, fill="white", font=_font(label.size), anchor="mm")


# --- legend --------------------------------------------------------------------------------------------


def _with_legend(
    canvas: Image.Image, defects: Sequence[Defect], side: Literal["right", "bottom"], caption: str
) -> Image.Image:
    """The canvas with a panel of all defects and their reasons beside or under it."""
    _, text_size = _scale(canvas.size)
    pad = round(text_size * 1.2)
    beside = side == "right"
    panel_width = max(round(canvas.width * 0.62) if beside else canvas.width, text_size * 20)
    rows = _legend_rows(defects, caption, panel_width - 2 * pad, text_size)
    panel_height = sum(height for height, _ in rows) + 2 * pad
    if beside:
        size = canvas.width + panel_width, max(canvas.height, panel_height)
        x, y = canvas.width + pad, pad
    else:
        size = panel_width, canvas.height + panel_height
        x, y = pad, canvas.height + pad
    figure = Image.new("RGB", size, _PAPER)
    figure.paste(canvas, (0, 0))
    draw = ImageDraw.Draw(figure)
    for height, paint in rows:
        paint(draw, x, y)
        y += height
    return figure


_Row = tuple[int, Callable[[ImageDraw.ImageDraw, int, int], None]]
"""One line of the legend: its height, and how to draw it with its top left corner at (x, y)."""


def _legend_rows(defects: Sequence[Defect], caption: str, width: int, text_size: int) -> list[_Row]:
    font = _font(text_size)

    def line(text: str, colour: str) -> _Row:
        return round(text_size * 1.4), lambda draw, x, y: draw.text((x, y), text, fill=colour, font=font)

    def paragraph(text: str, colour: str) -> list[_Row]:
        return [line(part, colour) for part in _wrap(text, font, width)]

    gap: _Row = (round(text_size * 0.9), lambda draw, x, y: None)
    rows = [*paragraph(f"“{caption}”", _FAINT), gap] if caption else []
    if not defects:
        return rows + paragraph("No defects.", _INK)
    for index, defect in enumerate(defects, 1):
        rows += [_head_row(index, defect, text_size), *paragraph(defect.reason, _INK), gap]
    return rows[:-1]


def _head_row(index: int, defect: Defect, text_size: int) -> _Row:
    """The label as it stands on the picture, and the tier in words."""
    text, _ = _texts(index, defect)
    width, height = _extent(text, text_size)

    def paint(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
        _draw_label(draw, _Label(text, (x, y, x + width, y + height), defect.type, text_size))
        if defect.tier is not None:
            place = (x + width + _padding(text_size), y + height / 2)
            draw.text(place, defect.tier.value, fill=_FAINT, font=_font(text_size), anchor="lm")

    return height + round(text_size * 0.4), paint


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most `width` pixels and at most `_MAX_REASON_LINES` of them; words too long are broken."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and _fitting(longer, font, width) < len(longer):
            lines.append(line)
            line = word
        else:
            line = longer
        while len(lines) < _MAX_REASON_LINES and (cut := max(1, _fitting(line, font, width))) < len(line):
            lines.append(line[:cut])
            line = line[cut:]
        if len(lines) >= _MAX_REASON_LINES:
            kept = lines[:_MAX_REASON_LINES]
            while kept[-1] and font.getlength(kept[-1] + "…") > width:
                kept[-1] = kept[-1][:-1]
            return [*kept[:-1], kept[-1] + "…"]
    return [*lines, line] if line else lines


def _fitting(line: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many letters of a line fit; a letter more makes none shorter.

    Of endless text only the beginning is measured.
    """
    most = min(len(line), _MEASURED)
    while font.getlength(line[:most]) <= width:
        if most == len(line):
            return most
        most = min(2 * most, len(line))
    return bisect_right(range(1, most), float(width), key=lambda n: font.getlength(line[:n]))
