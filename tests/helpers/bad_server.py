"""A chat server on 127.0.0.1 that answers, or misbehaves, as a test tells it to."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from PIL import Image

CLEAN = "<think>\nNothing is wrong .\n</think>\n<answer>\n[]\n</answer>"


@dataclass
class Reply:
    """What the server does: wait, then send a status and `claimed` bytes of content, or fewer, or none."""

    content: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    claimed: int | None = None  # Content-Length, where it is a lie
    drip: float = 0.0  # seconds between bytes
    hang_up: bool = False


def completion(text: str | None, finish: str | None = "stop", **message: Any) -> Reply:
    """A well-formed chat completion."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text} | message,
    }
    return Reply(json.dumps({"object": "chat.completion", "choices": [choice]}).encode())


def error(status: int, message: str = "no", **headers: str) -> Reply:
    """An error as OpenAI-compatible servers word it."""
    return Reply(json.dumps({"error": {"message": message}}).encode(), status, dict(headers))


def tagged(index: int) -> Image.Image:
    """A picture that the server knows again as number `index`."""
    return Image.new("RGB", (8, 8), (index, 7, 9))


class Server:
    """Serves `behave(index, attempt)`: which picture, and the how many-th request for it (from 1)."""

    def __init__(self, behave: Callable[[int, int], Reply]) -> None:
        self.asked: Counter[int] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.dripped = 0  # bytes that went out one by one
        self.models: list[dict[str, Any]] | None = None  # what it lists; None: it has no list
        self.busiest = 0
        self._busy, self._lock = 0, threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                index = outer._note(body, dict(self.headers))
                try:
                    outer._reply(self, behave(index, outer.asked[index]))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with outer._lock:
                        outer._busy -= 1

            def do_GET(self) -> None:
                listed = Reply(json.dumps({"object": "list", "data": outer.models}).encode())
                outer._reply(self, error(404) if outer.models is None else listed)

            def log_message(self, *args: object) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            request_queue_size = 256  # connections of one moment; the library's five would be all

        self._server = Listener(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _note(self, body: dict[str, Any], headers: dict[str, str]) -> int:
        parts = body["messages"][-1]["content"]
        url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
        image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        index = int(image.getpixel((0, 0))[0])
        with self._lock:
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            self.asked[index] += 1
            self.bodies.append(body)
            self.headers.append(headers)
        return index

    def _reply(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        time.sleep(reply.delay)
        if reply.hang_up:
            handler.close_connection = True
            return
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header(
            "Content-Length", str(len(reply.content) if reply.claimed is None else reply.claimed)
        )
        handler.end_headers()
        if reply.drip:
            for byte in reply.content:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                self.dripped += 1
                time.sleep(reply.drip)
        else:
            handler.wfile.write(reply.content)
        if reply.claimed is not None:
            handler.close_connection = True
