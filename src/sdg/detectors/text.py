"""`ocr`: two subtypes that reading alone can find: text unlike what the prompt quotes, and garbled text.

It needs no GPU and knows nothing else: a picture without text and a prompt without quotation marks are clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final

from PIL import Image

from sdg.defects import BOX_SCALE, Defect, DefectType, Diagnosis
from sdg.detectors.base import FunctionDetector
from sdg.errors import shortened
from sdg.models.ocr import Found, Line, find_text, plain, quoted_texts, reader, same_drawing

MISSING: Final = 0.5
"""Likeness below which a quoted text does not stand in the picture; above, it is misspelt."""
READ: Final = 0.8
"""Confidence from which a reading is taken at its word."""
UNREADABLE: Final = 0.6
"""Confidence below which a region drawn like text is garbled; between the two nothing is said."""
_LARGEST: Final = 0.4  # share of the picture; what is larger is no line of text but a texture
_LONG: Final = 1.2  # longer side over shorter side of a line of text, at least
_IMPORTANCE: Final = {"missing": 75, "misspelt": 55, "garbled": 50}  # major, moderate, moderate
_WHOLE: Final = (0, 0, BOX_SCALE, BOX_SCALE)


class OcrDetector(FunctionDetector):
    """Diagnoses the text of pictures, see `text_defects`."""

    def __init__(self) -> None:
        """Raises SdgError where rapidocr is not installed."""
        self._reader = reader()
        super().__init__("ocr", self._diagnose)

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": "ocr", "reader": self._reader.version}

    def _diagnose(self, picture: Image.Image, prompt: str) -> Diagnosis:
        return Diagnosis(tuple(text_defects(self._reader.read(picture), prompt, picture.size)))


def text_defects(lines: Sequence[Line], prompt: str, size: tuple[int, int]) -> list[Defect]:
    """What is wrong with the lines read from a picture of (width, height) pixels.

    A text in the prompt's quotation marks that does not stand there, or stands there misspelt, is a
    misalignment, with the box of what stands in its place; text that no reading is sure of is an artifact.
    """
    garbled = [line for line in lines if _is_garbled(line, size)]
    defects = []
    for quoted in quoted_texts(prompt):
        found = find_text(quoted, lines)
        if found.score == 1 or same_drawing(found.text, quoted):
            continue
        sure = all(line.confidence >= READ for line in found.lines)
        if found.score >= MISSING and not sure:
            continue  # a poor reading of it, perhaps
        defects.append(
            _missing(quoted, lines, garbled, size)
            if found.score < MISSING
            else _misspelt(quoted, found, size)
        )
    return defects + [_garbled(line, size) for line in garbled]


def difference(shown: str, wanted: str) -> str:
    """How one text differs from the other, letter by letter, in words."""
    one, other = plain(shown), plain(wanted)
    said = []
    for kind, a, b, c, d in SequenceMatcher(None, other, one, autojunk=False).get_opcodes():
        if kind == "delete":
            said.append(f'"{other[a:b]}" is left out')
        elif kind == "insert":
            said.append(f'"{one[c:d]}" is too much')
        elif kind == "replace":
            said.append(f'"{one[c:d]}" stands for "{other[a:b]}"')
    return ", ".join(said[:3]) + (" and more" if len(said) > 3 else "")


def _is_garbled(line: Line, size: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = line.box
    sides = sorted((line.length, line.height))
    return (
        line.confidence < UNREADABLE
        and len(plain(line.text)) > 1
        and (x1 - x0) * (y1 - y0) <= _LARGEST * size[0] * size[1]
        and sides[1] >= _LONG * sides[0]
    )


def _missing(quoted: str, lines: Sequence[Line], garbled: Sequence[Line], size: tuple[int, int]) -> Defect:
    """In the box of the text that stands in its place, if there is one; else of the whole picture."""
    readable = [line for line in lines if line.confidence >= READ and len(plain(line.text)) > 1]
    instead = readable or list(garbled)
    if readable:
        read = shortened(" / ".join(line.text for line in readable), 60)
        why = f'what can be read instead is "{read}"'
    else:
        why = "what is drawn there cannot be read" if garbled else "no text can be read in the picture at all"
    return Defect(
        _box(instead, size) if instead else _WHOLE,
        DefectType.MISALIGNMENT,
        f'The prompt asks for the text "{quoted}", which does not stand in the picture, '
        f"not even misspelt; {why}.",
        _IMPORTANCE["missing"],
        "wrong text",
    )


def _misspelt(quoted: str, found: Found, size: tuple[int, int]) -> Defect:
    return Defect(
        _box(found.lines, size),
        DefectType.MISALIGNMENT,
        f'The text reads "{shortened(found.text, 80)}" where the prompt asks for "{quoted}": '
        f"{difference(found.text, quoted)}, so that its spelling contradicts the prompt.",
        _IMPORTANCE["misspelt"],
        "wrong text",
    )


def _garbled(line: Line, size: tuple[int, int]) -> Defect:
    return Defect(
        _box([line], size),
        DefectType.ARTIFACT,
        "A line drawn like lettering cannot be read: its strokes form no letters that a reader is sure of "
        f"(confidence {line.confidence:.2f} of 1), so the text is garbled.",
        _IMPORTANCE["garbled"],
        "garbled text",
    )


def _box(lines: Sequence[Line], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box around lines on the 0–1000 scale, with some length on each axis."""
    ends = []
    for axis, pixels in enumerate(size):
        low = min(line.box[axis] for line in lines) * BOX_SCALE / pixels
        high = max(line.box[axis + 2] for line in lines) * BOX_SCALE / pixels
        start = min(max(int(low), 0), BOX_SCALE - 1)
        ends.append((start, max(min(-int(-high // 1), BOX_SCALE), start + 1)))
    (x0, x1), (y0, y1) = ends
    return x0, y0, x1, y1
