"""`sdg serve scorer`: a scorer behind HTTP, for models that need an environment of their own.

`POST /v1/score` takes `{"items": [{"image": "<base64 of a picture file>", "prompt": "…"}, …]}` and answers
`{"scores": [number or null, …]}`, one an item, null where it could not be scored. Only the standard library
and what the core of this package needs is used, so that it installs beside anything.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from PIL import Image

from sdg.errors import SdgError, described, first_line, shortened
from sdg.images import load_image
from sdg.scorers import Scorer, Scores
from sdg.scorers.weighted import ScaledScorer
from sdg.serve.bounds import MOST_BYTES, Refusal, is_local, read_document, read_items, sent_image

MOST_WAITING: Final = 8
"""Requests that are worked on or wait, at most; the next one is told to come back."""
SILENCE: Final = 60.0
"""Seconds without a byte after which a client is let go."""

_LOG = logging.getLogger("sdg.serve")


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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error of this server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def scores(self, body: bytes) -> Scores:
        """The scores of a request's items; raises Refusal for a request that is none, or comes too many."""
        if not self._places.acquire(blocking=False):
            raise Refusal(429, f"{MOST_WAITING} requests wait already", **{"Retry-After": "1"})
        try:
            items = read_items(read_document(body))
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
                reason = shortened(described(error), 200)
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
        except Refusal as refusal:
            self._send(refusal.status, {"error": str(refusal)}, **refusal.headers)

    def _body(self) -> bytes:
        if self.path != "/v1/score":
            raise self._refusal(404, "there is POST /v1/score and GET /healthz")
        if not is_local(self.headers.get("Host", "")):
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

    def _refusal(self, status: int, message: str) -> Refusal:
        self.close_connection = True  # what follows has not been read
        return Refusal(status, message)

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


def _picture(text: str) -> Image.Image | None:
    """The picture of an item, upright and RGB; None where it is none."""
    try:
        return load_image(sent_image(text))
    except SdgError as error:
        _LOG.warning("A picture could not be read: %s", first_line(error))
        return None
