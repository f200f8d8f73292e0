"""What requests may hold, and from whom they come: every size is bounded before it is read."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from sdg.errors import SdgError, quoted
from sdg.images import StoredImage, image_size

MOST_ITEMS: Final = 64
"""Pictures of a request, at most."""
MOST_BYTES: Final = 64 * 2**20
"""Bytes of a request, at most."""
MOST_PIXELS: Final = 4096 * 4096
"""Pixels of a picture, at most; it is refused before it is decoded."""
MOST_CELLS: Final = 1 << 20
"""Cells of all maps of an answer, at most."""
LONGEST_SIDE: Final = 256
"""Rows or columns of a grid, at most."""
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
FORM: Final = '{"items": [{"image": "<base64>", "prompt": "…"}, …]}'


class Refusal(Exception):
    """What a request is answered with in place of results: HTTP's status and a sentence."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class SentImage(StoredImage):
    """A picture file that came with a request; decoded by whoever looks at it."""

    def __init__(self, content: bytes) -> None:
        self.name, self._content = "The picture", content

    def content(self) -> bytes:
        return self._content


def is_local(host: str) -> bool:
    """Whether a Host header names this machine.

    A page in a browser may reach servers on this machine by a name of its own (DNS rebinding).
    """
    try:
        return urlsplit(f"//{host}").hostname in _LOCAL
    except ValueError:
        return False


def read_document(body: bytes, form: str = FORM) -> dict[str, Any]:
    """The JSON object of a request; raises Refusal, saying the form, where it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refusal(400, f"a request is {form}")
    return document


def read_items(document: Mapping[str, Any], *beside: str) -> list[dict[str, Any]]:
    """The items of a request; raises Refusal where there are none or too many.

    beside: the further keys that it may have; one of another name is refused, as it would be without effect.
    """
    known = ("items", *beside)
    if (other := next((key for key in document if key not in known), None)) is not None:
        raise Refusal(400, f"a request to this path has {', '.join(known)}, and no {quoted(other)}")
    items = document.get("items")
    if not isinstance(items, list) or not all(_is_item(item) for item in items):
        raise Refusal(400, f"a request is {FORM}")
    if len(items) > MOST_ITEMS:
        raise Refusal(413, f"a request has {MOST_ITEMS} items at most")
    return items


def is_grid(value: object) -> bool:
    """Whether a value says the rows and columns of maps."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return all(type(side) is int and 1 <= side <= LONGEST_SIDE for side in value)


def _is_item(item: object) -> bool:
    return isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("image", "prompt"))


def sent_image(text: str) -> SentImage:
    """The picture of an item, by its header a picture of a size that may be decoded; raises SdgError."""
    try:
        image = SentImage(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise SdgError("The picture is no base64.") from None
    if not image.content():
        raise SdgError("The picture is empty (0 bytes).")
    image_size(image, max_pixels=MOST_PIXELS)
    return image
