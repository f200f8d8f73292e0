"""An images-edit API on 127.0.0.1 that answers, or misbehaves, as a test tells it to."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


def answer(png):
    """A response that holds a picture."""
    return 200, json.dumps({"data": [{"b64_json": base64.b64encode(png).decode()}]}).encode()


def reply(colour="red", size=(1536, 1024)):
    """A response that holds a picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return answer(buffer.getvalue())


def echo(fields):
    """The picture that was sent, as it was."""
    return answer(dict(reversed(fields))["image[]"])


def halved(fields):
    """The picture that was sent, half as bright."""
    sent = Image.open(io.BytesIO(dict(reversed(fields))["image[]"])).convert("RGB")
    buffer = io.BytesIO()
    sent.point(lambda value: value // 2).save(buffer, format="PNG", compress_level=1)
    return answer(buffer.getvalue())


def failure(status, message):
    """An error as the API words it."""
    return status, json.dumps({"error": {"message": message}}).encode()


class Api:
    """Answers with the replies given, one after the other, and keeps what it was asked.

    A reply is status and content, or a function from the fields asked with to these. otherwise: the reply
    after the last. delay: of each, in seconds.
    """

    def __init__(self, *replies, otherwise=(500, b"broken"), delay=0.0):
        self.replies, self.asked, self.paths, self.keys = list(replies), [], [], []
        self.busy = self.busiest = 0
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                parts = message_from_bytes(head + body).get_payload()
                with lock:
                    outer.paths.append(self.path)
                    outer.keys.append(self.headers.get("Authorization"))
                    outer.asked.append(
                        [
                            (
                                part.get_param("name", header="content-disposition"),
                                part.get_payload(decode=True),
                            )
                            for part in parts
                        ]
                    )
                    told = outer.replies.pop(0) if outer.replies else otherwise
                    outer.busy += 1
                    outer.busiest = max(outer.busiest, outer.busy)
                status, content = told(outer.asked[-1]) if callable(told) else told
                time.sleep(delay)
                with lock:
                    outer.busy -= 1
                if status == 0:  # hang up
                    self.connection.close()
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
