"""`sdg serve scorer`: a scorer behind HTTP, for models that need an environment of their own.

`POST /v1/score` takes `{"items": [{"image": "<base64 of a picture file>", "prompt": "…"}, …]}` and answers
`{"scores": [number or null, …]}`, one an item, null where it could not be scored. Only the standard library
and what the core of this package needs is used, so that it installs beside anything.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from sdg.errors import SdgError, first_line, shortened
from sdg.images import load_image_bytes
from sdg.scorers import Scorer, Scores
from sdg.scorers.weighted import ScaledScorer

MOST_ITEMS: Final = 64
"""Pictures of a request, at most."""
MOST_BYTES: Final = 64 * 2**20
"""Bytes of a request, at most."""
MOST_PIXELS: Final = 4096 * 4096
"""Pixels of a picture, at most; it is refused before it is decoded."""
MOST_WAITING: Final = 8
"""Requests that are worked on or wait, at most; the next one is told to come back."""
SILENCE: Final = 60.0
"""Seconds without a byte after which a client is let go."""
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_LOG = logging.getLogger("sdg.serve")


class _Answer(Exception):
    """What a request is answered with in place of scores."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class ScorerServer(ThreadingHTTPServer):
    """Serves one scorer on 127.0.0.1; requests are scored one after the other, as models are not shared.

    port: 0 takes a free one, see `address`. Raises SdgError where the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, scorer: Scorer, port: int) -> None:
        self._scorer = ScaledScorer(scorer, 1.0)  # checks the number of scores, and that each is one
        self._turn, self._places = threading.Lock(), threading.BoundedSemaphore(MOST_WAITING)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise SdgError(f"Port {port} cannot be served: {error.strerror or error}.") from None

    @property
    def address(self) -> str:
        """What a client is given: `remote:` and this."""
        return f"http://127.0.0.1:{self.server_port}"

    def scores(self, body: bytes) -> Scores:
        """The scores of a request's items; raises _Answer for a request that is none, or comes too many."""
        if not self._places.acquire(blocking=False):
            raise _Answer(429, f"{MOST_WAITING} requests wait already", **{"Retry-After": "1"})
        try:
            items = _items(body)
            pictures = [_picture(item["image"]) for item in items]
            known = [place for place, picture in enumerate(pictures) if picture is not None]
            scores: Scores = [None] * len(items)
            with self._turn:
                found = self._score(
                    [picture for picture in pictures if picture is not None],
                    [items[place]["prompt"] for place in known],
                )
            for place, score in zip(known, found, strict=True):
                scores[place] = score
            return scores
        finally:
            self._places.release()

    def _score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Scores of a batch; where it fails as a whole, of each by itself, None where that fails too."""
        if not pictures:
            return []
        try:
            return self._scorer.score(pictures, prompts)
        except Exception as error:  # a function of the user's, which may raise whatever it likes
            if len(pictures) == 1:
                reason = shortened(f"{type(error).__name__}: {first_line(error)}", 200)
                _LOG.warning("A picture could not be scored: %s", reason)
                return [None]
        return [
            self._score([picture], [prompt])[0] for picture, prompt in zip(pictures, prompts, strict=True)
        ]


class _Handler(BaseHTTPRequestHandler):
    """One connection; requests are refused before they are read where they may be."""

    server: ScorerServer
    protocol_version = "HTTP/1.1"
    timeout = SILENCE

    def do_GET(self) -> None:
        """`/healthz`, for whoever waits until the model is loaded."""
        if self.path == "/healthz":
            self._send(200, {"status": "ok"})
        else:
            self._send(404, {"error": f"there is POST /v1/score and GET /healthz, not {self.path[:80]}"})

    def do_POST(self) -> None:
        """`/v1/score`."""
        try:
            body = self._body()
            self._send(200, {"scores": self.server.scores(body)})
        except _Answer as answer:
            self._send(answer.status, {"error": str(answer)}, **answer.headers)

    def _body(self) -> bytes:
        if self.path != "/v1/score":
            raise self._refusal(404, "there is POST /v1/score and GET /healthz")
        # A page in a browser may reach servers on this machine: by another name, or without asking first.
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in _LOCAL:
            raise self._refusal(403, "this server is asked as localhost only")
        if self.headers.get_content_type() != "application/json":
            raise self._refusal(415, "the content type is application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and len(length) < 12):
            raise self._refusal(411, "the request says how long it is")
        if int(length) > MOST_BYTES:
            raise self._refusal(413, f"a request has {MOST_BYTES:,} bytes at most")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise self._refusal(400, "the request is cut short")
        return body

    def _refusal(self, status: int, message: str) -> _Answer:
        self.close_connection = True  # what follows has not been read
        return _Answer(status, message)

    def _send(self, status: int, value: dict[str, Any], **headers: str) -> None:
        content = json.dumps(value, allow_nan=False).encode("ascii")
        try:
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, text)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client is gone, and nobody is left to tell
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are many, and what a client sends does not belong on a terminal."""


def _items(body: bytes) -> list[dict[str, str]]:
    try:
        items = json.loads(body)["items"]
        if not isinstance(items, list) or not all(_is_item(item) for item in items):
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _Answer(400, 'a request is {"items": [{"image": "<base64>", "prompt": "…"}, …]}') from None
    if len(items) > MOST_ITEMS:
        raise _Answer(413, f"a request has {MOST_ITEMS} items at most")
    return items


def _is_item(item: object) -> bool:
    return isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("image", "prompt"))


def _picture(text: str) -> Image.Image | None:
    """The picture of an item, upright and RGB; None where it is none."""
    try:
        return load_image_bytes(base64.b64decode(text, validate=True), "A picture", max_pixels=MOST_PIXELS)
    except (SdgError, binascii.Error, ValueError) as error:
        _LOG.warning("A picture could not be read: %s", first_line(error))
        return None
