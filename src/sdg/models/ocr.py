"""Text in pictures: reading it by rapidocr (PP-OCRv6), and holding it against what a prompt quotes.

The models lie in rapidocr's wheel, so nothing is fetched, and they run on the CPU.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from PIL import Image

from sdg.errors import SdgError, first_line, installed

THINNEST: Final = 20
"""Longer side over shorter side up to which a picture is read; a thinner one is enlarged to gigabytes."""
LONGEST: Final = 200
"""Characters of a quoted text that is looked for; a longer one is no text on a picture."""
_SPACED: Final = "0-9A-Za-z\u00c0-\u052f"  # letters of scripts that put blanks around quotations
_QUOTED: Final = re.compile(
    # Neither an inch mark nor the end of a quotation opens one, and no beginning of one closes it.
    rf"(?<![{_SPACED}])[\"“”„«»]([^\"“”„«»]*)[\"“”«»](?![{_SPACED}])"
    # Nor do the apostrophes of '90s and 'n', nor any within a word.
    rf"|(?<!\w)['‘](?!\d0s\b|n['’])((?:[^'‘’]|(?<=\w)['’](?=\w)){{1,{LONGEST}}})['’](?!\w)"
)
_ALIKE: Final = str.maketrans("0|1i5$8", "olllssb")
"""Signs that one drawing may stand for, to tell a misreading from a misspelling."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text as it was read; confidence: 0 to 1.

    box: xyxy in pixels, upright around it. length, height: of the line itself, which may be turned.
    """

    text: str
    confidence: float
    box: tuple[float, float, float, float]
    length: float
    height: float


@dataclass(frozen=True, slots=True)
class Found:
    """Where a quoted text comes nearest to what was read.

    text: what stands there, "" where nothing does. score: 1 − edit distance over the longer of the two, both
    without case, blanks and punctuation. lines: the lines it is in.
    """

    text: str
    score: float
    lines: tuple[Line, ...] = ()


class TextReader:
    """Reads the text of pictures, on as many threads as OMP_NUM_THREADS says, by default all.

    Raises SdgError where rapidocr is not installed.
    """

    def __init__(self) -> None:
        with installed("Reading text needs rapidocr", "ocr"):
            import rapidocr
        threads = os.environ.get("OMP_NUM_THREADS", "")
        each = int(threads) if threads.isdecimal() and 0 < len(threads) < 4 else -1
        self.version = f"rapidocr {version('rapidocr')}"
        self._engine: Any = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.text_score": 0.0,  # whoever asks decides how sure is sure enough
                "EngineConfig.onnxruntime.intra_op_num_threads": each,
                "EngineConfig.onnxruntime.inter_op_num_threads": each,
            }
        )

    def read(self, picture: Image.Image) -> tuple[Line, ...]:
        """The lines of a picture, from top to bottom and from left to right.

        Raises SdgError for a picture that the reader cannot work on.
        """
        if max(picture.size) > THINNEST * min(picture.size):
            width, height = picture.size
            raise SdgError(
                f"A picture of {width} × {height} pixels is too thin to be read: one side is more than "
                f"{THINNEST} times the other."
            )
        pixels = np.asarray(picture.convert("RGB"))[:, :, ::-1]  # BGR, as OpenCV has it
        try:
            return tuple(_in_reading_order(_lines(self._engine(np.ascontiguousarray(pixels)))))
        except Exception as error:  # rapidocr and its runtime have classes of their own, one a module
            raise SdgError(f"The text of the picture cannot be read ({first_line(error)}).") from error

    def spelling(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """How much of the text that each prompt quotes stands in its picture: from 0 to 1.

        The mean over the quoted texts of `Found.score`; None where none is quoted, and where the picture
        cannot be read.
        """
        return [self._spelling(*pair) for pair in zip(pictures, prompts, strict=True)]

    def _spelling(self, picture: Image.Image, prompt: str) -> float | None:
        if not (texts := quoted_texts(prompt)):
            return None
        try:
            lines = self.read(picture)
        except SdgError:
            return None
        return sum(find_text(text, lines).score for text in texts) / len(texts)


@cache
def reader() -> TextReader:
    """The one reader of this process."""
    return TextReader()


def quoted_texts(prompt: str) -> list[str]:
    """What a prompt has in quotation marks, each text once.

    What holds no letter or digit is left out, and what is longer than LONGEST.
    """
    texts = (double or single for double, single in _QUOTED.findall(prompt))
    return list(dict.fromkeys(text.strip() for text in texts if len(text) <= LONGEST and plain(text)))


def plain(text: str) -> str:
    """A text without case, blanks and punctuation: letters and digits alone."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def same_drawing(one: str, other: str) -> bool:
    """Whether two texts differ by signs alone that look the same, such as O and 0."""
    return plain(one.casefold().translate(_ALIKE)) == plain(other.casefold().translate(_ALIKE))


def find_text(quoted: str, lines: Sequence[Line]) -> Found:
    """Where a text stands best among lines: any run of words that follow each other, over ends of lines."""
    wanted = plain(quoted)
    best = Found("", 0.0)
    for text, where in _runs(lines, len(quoted.split()) + 2, 2 * len(wanted) + 4):
        score = similarity(wanted, plain(text))
        if score > best.score:
            best = Found(text, score, where)
    return best


def similarity(one: str, other: str) -> float:
    """1 − edit distance (Levenshtein) over the longer length: 1 for equal texts, 0 for nothing in common."""
    longer = max(len(one), len(other))
    return 1 - edit_distance(one, other) / longer if longer else 1.0


def edit_distance(one: str, other: str) -> int:
    """How many letters are put in, left out or replaced to make one text the other."""
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, start=1):
        before, row[0] = row[0], at
        for place, sign in enumerate(other, start=1):
            before, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, before + (letter != sign)),
            )
    return row[-1]


def _lines(read: Any) -> Iterator[Line]:
    """What the engine has read, in its order."""
    if read.txts is None or read.boxes is None:
        return
    for text, score, corners in zip(read.txts, read.scores, np.asarray(read.boxes), strict=True):
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        box = float(x0), float(y0), float(x1), float(y1)
        length, height = (float(np.linalg.norm(corners[0] - corners[other])) for other in (1, 3))
        yield Line(str(text), float(score), box, length, height)


def _runs(lines: Sequence[Line], most: int, longest: int) -> Iterator[tuple[str, tuple[Line, ...]]]:
    """Every run of at most so many words, with the lines they are in, that is not far too long."""
    words = [(word, line) for line in lines for word in line.text.split()]
    for start in range(len(words)):
        length = 0
        for stop in range(start + 1, min(start + most, len(words)) + 1):
            length += len(words[stop - 1][0])
            if length > longest and stop > start + 1:
                break
            part = words[start:stop]
            yield " ".join(word for word, _ in part), tuple(dict.fromkeys(line for _, line in part))


def _in_reading_order(lines: Iterable[Line]) -> list[Line]:
    """Lines whose middles lie within half a height of each other are one row, read from the left."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3]):
        y0, y1 = line.box[1], line.box[3]
        if rows and abs((y0 + y1) - sum(rows[-1][0].box[1::2])) < (y1 - y0):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]
