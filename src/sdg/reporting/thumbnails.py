"""Pictures inside a report: scaled down and written into the page as data URIs, so that it is one file."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from PIL import Image, features

from sdg.errors import SdgError
from sdg.images import StoredImage, load_image

Source = Path | StoredImage | Image.Image
"""A picture: a file, a row of one, or what is in memory."""

_FEW: Final = 100
_AHEAD: Final = 8  # pictures prepared before they are written; more would only fill memory
_QUALITY: Final = 80
TO_JUDGE: Final = 92
"""Quality for pictures that people judge: nobody must take the marks of compression for defects."""

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as the page holds it: a data URI with its size in pixels, or why there is none."""

    uri: str = ""
    width: int = 1
    height: int = 1
    problem: str = ""

    @property
    def frame(self) -> tuple[int, int]:
        """Width and height of the drawing laid over it, 1000 units wide."""
        return 1000, max(1, round(1000 * self.height / self.width))


def default_side(pictures: int) -> int:
    """Longer side of each picture in pixels: 640 for a few; for many, what a card shows."""
    return 640 if pictures <= _FEW else 384


def show(source: Source | None, side: int) -> Shown:
    """The picture scaled down to `side` pixels; where it cannot be read, the reason."""
    try:
        return show_or_refuse(source, side)
    except SdgError as error:
        return Shown(problem=str(error))


def show_or_refuse(source: Source | None, side: int, quality: int = _QUALITY) -> Shown:
    """The picture scaled down to `side` pixels, packed by `quality`; SdgError where it cannot be read."""
    if source is None:
        raise SdgError("No picture was given.")
    image = source.convert("RGB") if isinstance(source, Image.Image) else load_image(source)
    if max(image.size) > side:
        image.thumbnail((side, side), reducing_gap=3.0)
    return Shown(data_uri(image, quality), image.width, image.height)


def data_uri(image: Image.Image, quality: int = _QUALITY) -> str:
    """`data:image/webp;base64,…` of an RGB image."""
    kind = "webp" if features.check("webp") else "jpeg"
    file = BytesIO()
    image.save(file, kind, quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def prepared(convert: Callable[[S], T], values: Iterable[S]) -> Iterator[T]:
    """`convert` of each value in order, a few ahead on two threads: decoding leaves Python's lock alone."""
    waiting = iter(values)
    with ThreadPoolExecutor(2) as pool:
        queue = [pool.submit(convert, value) for value in islice(waiting, _AHEAD)]
        while queue:
            done = queue.pop(0).result()
            queue += [pool.submit(convert, value) for value in islice(waiting, 1)]
            yield done
