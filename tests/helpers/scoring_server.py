"""A server of `/v1/score` on 127.0.0.1 that answers, or misbehaves, as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bad_server import Reply


@contextmanager
def answering(answer: Callable[[list[dict]], bytes | int | Reply]) -> Iterator[str]:
    """The address of a server that answers what `answer` makes of the items: a content, a status, a Reply.

    A Reply that claims more bytes than it has is an answer in whose middle the server dies.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
            found = answer(items)
            if isinstance(found, int):
                found = Reply(b"{}", found)
            reply = Reply(found) if isinstance(found, bytes) else found
            time.sleep(reply.delay)
            with suppress(ConnectionError):  # of a client that has waited for long enough
                self.send_response(reply.status)
                self.send_header("Content-Length", str(reply.claimed or len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def cut(content: bytes) -> Reply:
    """An answer of which half comes before the connection is closed."""
    return Reply(content[: len(content) // 2], claimed=len(content))
