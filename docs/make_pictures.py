"""Draw the pictures of the docs: a scene with known defects, and a contact sheet of the testbed.

Run `python docs/make_pictures.py` from anywhere; `overview` draws one of them only. The same code gives the
same bytes, for generated pictures on one kind of processor.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdg.defects import Diagnosis
from sdg.images import draw_overlay, save_image
from sdg.testbed.injection.sample import sample

PICTURES = Path(__file__).resolve().parent / "pictures"
SEED = 5  # both types of defect, four subtypes, three tiers
COLUMNS = 6
CELL, GAP, TITLE = 256, 8, 34


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


DRAWINGS = {"overview": overview, "testbed": contact_sheet}

if __name__ == "__main__":
    for name in sys.argv[1:] or DRAWINGS:
        sys.stdout.write(f"{save_image(DRAWINGS[name](), PICTURES / f'{name}.png')}\n")
