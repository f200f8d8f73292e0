"""Draw the pictures of the docs: a scene with known defects, a contact sheet of the testbed, two diagrams.

Run `python docs/make_pictures.py` from anywhere; with `overview`, say, it draws that one only. The same code
gives the same bytes, for generated pictures on one kind of processor.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdg.defects import Diagnosis
from sdg.images import draw_overlay, save_image
from sdg.testbed.injection.sample import sample

PICTURES = Path(__file__).resolve().parent / "pictures"
SEED = 5  # both types of defect, four subtypes, three tiers
COLUMNS = 6
CELL, GAP, TITLE = 256, 8, 34
INK, FAINT, PLAIN, PAPER, STRONG, SIDE = "#1F2933", "#52606D", "#F5F7FA", "#E3F0FB", "#BFDDF5", "#FDF3DC"
LAYERS = (
    ("cli",),
    ("demo", "bench", "serve", "annotate", "integrations", "app"),
    ("study", "alignment", "refinement", "training", "teacher"),
    ("detectors", "scorers", "data", "evaluation", "reporting"),
    ("runs", "models"),
    ("io",),
    ("response", "prompting"),
)
SINGLE = (
    "defects, records, geometry, matching, embeddings, overlay, images, tables, recipes, sections, errors"
)


def overview() -> Image.Image:
    """A picture of both kinds of defect beside its prompt and the reasons."""
    drawn = sample(np.random.default_rng(SEED), kind="both", size=768)
    picture = Image.fromarray(drawn.picture)
    return draw_overlay(picture, drawn.diagnosis.defects, legend="right", caption=drawn.prompt)


def contact_sheet() -> Image.Image:
    """Clean scenes, injected defects with their boxes, and generated pictures with what the oracle finds."""
    from sdg.testbed import oracle
    from sdg.testbed.entry import prompts
    from sdg.testbed.models.generator.sampling import sample_pictures
    from sdg.testbed.models.packaged import load_generator

    rng = np.random.default_rng(SEED)
    clean = [sample(rng, kind="clean", size=CELL) for _ in range(COLUMNS)]
    injected = [
        sample(rng, kind=kind, size=CELL)
        for _ in range(COLUMNS // 3)
        for kind in ("artifact", "misalignment", "both")
    ]
    texts = prompts("test", 2 * COLUMNS, seed=1)
    generated = sample_pictures(load_generator(), texts, steps=20, seed=1)
    found = [oracle.diagnose(picture, text) for picture, text in zip(generated, texts, strict=True)]
    rows = [
        ("Clean scenes", [Image.fromarray(s.picture) for s in clean]),
        ("Injected defects", [_marked(Image.fromarray(s.picture), s.diagnosis) for s in injected]),
        (
            "Generated, with the oracle's findings",
            [_marked(p, d) for p, d in zip(generated, found, strict=True)],
        ),
    ]
    return _sheet(rows)


def _marked(picture: Image.Image, diagnosis: Diagnosis) -> Image.Image:
    return draw_overlay(picture, diagnosis.defects, min_side=CELL)


def _sheet(rows: Sequence[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Titled blocks of pictures, COLUMNS a line."""
    lines = sum(len(pictures) // COLUMNS for _, pictures in rows)
    size = (GAP + COLUMNS * (CELL + GAP), GAP + lines * (CELL + GAP) + len(rows) * TITLE)
    sheet = Image.new("RGB", size, "white")
    draw, font, y = ImageDraw.Draw(sheet), ImageFont.load_default(20), GAP
    for title, pictures in rows:
        draw.text((GAP, y), title, fill="#1F2933", font=font)
        y += TITLE
        for index, picture in enumerate(pictures):
            x = GAP + index % COLUMNS * (CELL + GAP)
            sheet.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (x, y))
            y += (CELL + GAP) * (index % COLUMNS == COLUMNS - 1)
    return sheet


def rooms() -> str:
    """The folders of src/sdg by layer; imports go down only."""
    drawing = Drawing(640)
    drawing.text(24, 34, "src/sdg", 20, bold=True)
    drawing.text(616, 34, "imports go down only", 15, anchor="end", colour=FAINT)
    y = 52
    for names in LAYERS:
        width = (592 - 10 * (len(names) - 1)) / len(names)
        for index, name in enumerate(names):
            drawing.box(24 + index * (width + 10), y, width, 46, name, colour=PAPER)
        y += 46
        if names is not LAYERS[-1]:
            drawing.arrow((320, y), (320, y + 22))
            y += 24
    drawing.text(320, y + 24, SINGLE, 11, anchor="middle", colour=FAINT)
    drawing.box(24, y + 40, 592, 46, "testbed/ — a leaf: nothing imports it but cli/ and demo/", colour=SIDE)
    return drawing.done(y + 104)


def journey() -> str:
    """The way of one picture through the rooms: stations with the files that do the work."""
    drawing = Drawing(640)
    steps = [
        ("an image and its prompt", "images.py: upright RGB · runs/inputs.py: which prompt", PLAIN),
        ("what the model is asked", "prompting/: profile, wording, chat messages", PAPER),
        ("a detector answers", "detectors/ · models/vlm.py here, io/http.py a server", PAPER),
        ("raw text is read", "response/: parse, repairs, status", PAPER),
        ("Diagnosis: a set of Defects", "defects.py: box, type, reason, importance, status", STRONG),
    ]
    y = 16
    for title, where, colour in steps:
        if y > 16:
            drawing.arrow((320, y - 26), (320, y - 2))
        drawing.box(110, y, 420, 62, title, where, colour=colour)
        y += 88
    uses = [
        ("scored", "evaluation/", "SDG-Eval"),
        ("a reward", "alignment/", "a better generator"),
        ("an edit", "refinement/", "a new picture"),
    ]
    top = y + 16
    for index, (title, room, result) in enumerate(uses):
        middle = 320 + (index - 1) * 200
        drawing.arrow((320 + (index - 1) * 120, y - 26), (middle, top))
        drawing.box(middle - 93, top, 186, 62, title, room, colour=PAPER)
        drawing.arrow((middle, top + 62), (middle, top + 86))
        drawing.box(middle - 93, top + 88, 186, 44, result, colour=PLAIN)
    # What is new is diagnosed again.
    drawing.path(f"M 520 {top + 132} V {top + 152} H 627 V 47 H 532", dashed=True)
    drawing.path(f"M 320 {top + 132} V {top + 152} H 520", dashed=True, head=False)
    drawing.text(420, top + 174, "diagnosed again", 14, anchor="middle", colour=FAINT)
    return drawing.done(top + 190)


class Drawing:
    """An SVG of a given width, drawn from boxes, arrows and text; light and dark pages can both show it."""

    def __init__(self, width: int) -> None:
        self.width, self.parts = width, []

    def box(
        self, x: float, y: float, w: float, h: float, title: str, below: str = "", *, colour: str
    ) -> None:
        place = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}"'
        self.parts.append(f'<rect {place} rx="8" fill="{colour}" stroke="{FAINT}"/>')
        middle = y + h / 2
        self.text(x + w / 2, middle + (-4 if below else 6), title, 17, anchor="middle", bold=True)
        if below:
            self.text(x + w / 2, middle + 18, below, 14, anchor="middle")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int,
        *,
        anchor: str = "start",
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        look = (
            f'font-size="{size}" font-weight="{600 if bold else 400}" text-anchor="{anchor}" fill="{colour}"'
        )
        self.parts.append(f'<text x="{x:g}" y="{y:g}" {look}>{escape(text)}</text>')

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.path(f"M {start[0]:g} {start[1]:g} L {end[0]:g} {end[1]:g}")

    def path(self, way: str, *, dashed: bool = False, head: bool = True) -> None:
        extra = ' stroke-dasharray="5 4"' if dashed else ""
        extra += ' marker-end="url(#head)"' if head else ""
        self.parts.append(f'<path d="{way}" fill="none" stroke="{FAINT}" stroke-width="1.5"{extra}/>')

    def done(self, height: float) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height:g}" '
                'font-family="system-ui, sans-serif">',
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
                'markerHeight="7" orient="auto">'
                f'<path d="M 0 0 L 10 5 L 0 10 z" fill="{FAINT}"/></marker></defs>',
                f'<rect width="{self.width}" height="{height:g}" rx="10" fill="white"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


DRAWINGS = {"overview": overview, "testbed": contact_sheet}
DIAGRAMS = {"rooms": rooms, "journey": journey}

if __name__ == "__main__":
    for name in sys.argv[1:] or [*DRAWINGS, *DIAGRAMS]:
        if name in DIAGRAMS:
            file = PICTURES / f"{name}.svg"
            file.write_text(DIAGRAMS[name](), encoding="utf-8")
        else:
            file = save_image(DRAWINGS[name](), PICTURES / f"{name}.png")
        sys.stdout.write(f"{file}\n")
