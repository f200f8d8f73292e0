"""Pictures of text whose faults are known: fonts × distortions × spelling, drawn from a seed.

Each sign quotes its text in its prompt. `clean` shows it, plainly or distorted as a photograph is; `misspelt`
has one letter dropped, doubled, swapped or replaced; `missing` shows another text or none; `garbled` has its
glyphs cut up, so that nobody can read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import gaussian_filter, map_coordinates

FONTS: Final = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
)
"""Faces that matplotlib brings, so that they are the same everywhere."""
KINDS: Final = ("clean", "misspelt", "missing", "garbled")
DISTORTIONS: Final = ("none", "blur", "noise", "turned", "low contrast", "jpeg", "perspective")
TEXTS: Final = (
    "OPEN", "HAPPY BIRTHDAY", "Fresh Bread", "No Parking", "Deep Learning", "Est 1987", "Spring Sale",
    "WELCOME HOME", "Coffee Shop", "Danger", "Love Never Fails", "Library", "Hotel Paradise", "Peace",
    "Keep Left", "Grand Opening", "Bakery", "Mind the Gap", "Space Travel", "Stop Here", "Good Morning",
    "Flower Market", "Winter is Coming", "Ice Cream", "Music Festival", "Book Store", "Try Again", "Exit",
)  # fmt: skip
SIZE: Final = 512


@dataclass(frozen=True, slots=True)
class Sign:
    """A picture, its prompt, and what is known of it."""

    picture: Image.Image
    prompt: str
    kind: str
    font: str
    distortion: str
    shown: str


def signs(count: int, seed: int) -> Iterator[Sign]:
    """So many signs: kinds, fonts and distortions in turn, everything else drawn from the seed."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        font = FONTS[(number // len(KINDS)) % len(FONTS)]
        distortion = DISTORTIONS[int(rng.integers(len(DISTORTIONS)))]
        text = TEXTS[int(rng.integers(len(TEXTS)))]
        shown = _shown(text, kind, rng)
        picture = _background(rng)
        if shown:
            picture = _lettered(picture, shown, font, kind == "garbled", rng)
        yield Sign(
            _distorted(picture, distortion, rng),
            f'a wooden sign that says "{text}"',
            kind,
            font,
            distortion,
            shown,
        )


def _shown(text: str, kind: str, rng: np.random.Generator) -> str:
    if kind == "missing":
        other = TEXTS[(TEXTS.index(text) + int(rng.integers(1, len(TEXTS)))) % len(TEXTS)]
        return other if rng.random() < 0.5 else ""
    return misspelt(text, rng) if kind == "misspelt" else text


def misspelt(text: str, rng: np.random.Generator) -> str:
    """One letter dropped, doubled, swapped with its neighbour or replaced; never the same text."""
    letters = [at for at, letter in enumerate(text) if letter.isalpha()]
    while True:
        at = letters[int(rng.integers(len(letters)))]
        how = int(rng.integers(4))
        if how == 0:
            found = text[:at] + text[at + 1 :]
        elif how == 1:
            found = text[:at] + text[at] + text[at:]
        elif how == 2 and at + 1 in letters:
            found = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        else:
            letter = "abdeghkmnrstuwxy"[int(rng.integers(16))]
            found = text[:at] + (letter.upper() if text[at].isupper() else letter) + text[at + 1 :]
        if found.casefold() != text.casefold():
            return found


def _background(rng: np.random.Generator) -> Image.Image:
    """A colour that runs into another, with soft blobs, as behind a sign."""
    ends = rng.integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, SIZE)[:, None, None]
    pixels = ends[0] * (1 - ramp) + ends[1] * ramp + np.zeros((SIZE, SIZE, 3))
    pixels += 40 * gaussian_filter(rng.normal(size=(SIZE, SIZE, 3)), (30, 30, 0)) * 30
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _lettered(
    picture: Image.Image, text: str, font: str, garbled: bool, rng: np.random.Generator
) -> Image.Image:
    """The picture with a board and the text on it."""
    dark = rng.random() < 0.5
    board = tuple(int(v) for v in (rng.integers(0, 70, 3) if dark else rng.integers(190, 256, 3)))
    ink = tuple(int(v) for v in (rng.integers(190, 256, 3) if dark else rng.integers(0, 70, 3)))
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    size = int(rng.integers(34, 70))
    face = ImageFont.truetype(str(folder / f"{font}.ttf"), size)
    while face.getlength(text) > 0.8 * SIZE:
        size -= 2
        face = ImageFont.truetype(str(folder / f"{font}.ttf"), size)
    x0, y0, x1, y1 = face.getbbox(text)
    left = int(rng.integers(20, SIZE - (x1 - x0) - 40))
    top = int(rng.integers(40, SIZE - (y1 - y0) - 60))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 15, top - 15, left + x1 - x0 + 15, top + y1 - y0 + 15), fill=board)
    mask = Image.new("L", (x1 - x0, y1 - y0))
    ImageDraw.Draw(mask).text((-x0, -y0), text, font=face, fill=255)
    if garbled:
        mask = Image.fromarray(_garbled(np.asarray(mask), size, rng))
    picture.paste(Image.new("RGB", mask.size, ink), (left, top), mask)
    return picture


def _garbled(mask: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Glyph by glyph: turned over, halves exchanged, bent: it looks like letters and says nothing."""
    out = mask.copy()
    step = max(8, int(0.62 * size))
    for start in range(0, mask.shape[1], step):
        cell = out[:, start : start + step]
        how = int(rng.integers(4))
        half = cell.shape[0] // 2
        if how == 0:
            cell = cell[::-1]
        elif how == 1:
            cell = np.concatenate([cell[half:], cell[:half]])
        elif how == 2:
            cell = cell[:, ::-1]
        else:
            cell = np.concatenate([cell[:half][:, ::-1], cell[half:]])
        out[:, start : start + step] = cell
    rows, columns = np.mgrid[: out.shape[0], : out.shape[1]].astype(float)
    bend = size / 9
    shift = [gaussian_filter(rng.normal(size=out.shape), size / 8) for _ in range(2)]
    rows += bend * shift[0] / (shift[0].std() + 1e-9)
    columns += bend * shift[1] / (shift[1].std() + 1e-9)
    return map_coordinates(out, [rows, columns], order=1).astype(np.uint8)


def _distorted(picture: Image.Image, how: str, rng: np.random.Generator) -> Image.Image:
    if how == "blur":
        return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.8, 1.8))))
    if how == "noise":
        pixels = np.asarray(picture) + rng.normal(0, 14, (SIZE, SIZE, 3))
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if how == "turned":
        return picture.rotate(float(rng.uniform(-10, 10)), Image.Resampling.BICUBIC, fillcolor=(90, 90, 90))
    if how == "low contrast":
        return Image.blend(picture, Image.new("RGB", picture.size, (128, 128, 128)), 0.55)
    if how == "jpeg":
        file = BytesIO()
        picture.save(file, "JPEG", quality=20)
        return Image.open(file).convert("RGB")
    if how == "perspective":
        pull = rng.uniform(0, 0.12 * SIZE, 8)
        corners = np.array([0, 0, 0, SIZE, SIZE, SIZE, SIZE, 0], float)
        corners += pull * np.array([-1, -1, -1, 1, 1, 1, 1, -1])
        return picture.transform(
            picture.size,
            Image.Transform.QUAD,
            corners.tolist(),
            Image.Resampling.BICUBIC,
            fillcolor=(90, 90, 90),
        )
    return picture
