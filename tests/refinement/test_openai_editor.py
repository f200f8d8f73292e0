"""The images-edit API: what is sent, and that whatever a server does costs the request it concerns."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.refinement import build_request, load_editor
from sdg.refinement.openai_editor import OpenAIEditor

FOUND = Diagnosis((Defect((250, 250, 750, 750), "artifact", "a melted handle", 60),))


def reply(colour="red", size=(64, 64)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return 200, json.dumps({"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}).encode()


def failure(status, message):
    return status, json.dumps({"error": {"message": message}}).encode()


class Api:
    """Answers with the replies given, one after the other, and keeps what it was asked."""

    def __init__(self, *replies):
        self.replies, self.asked, self.paths, self.keys = list(replies), [], [], []
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
                    status, content = outer.replies.pop(0) if outer.replies else failure(500, "empty")
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
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def editor(self, **settings):
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return OpenAIEditor(
            url, "painter", **{"first_pause": 0.01, "per_minute": 1e6, "attempts": 3, **settings}
        )


def requests(count=1, mode="sdg"):
    picture = Image.new("RGB", (40, 24), "green")
    return [build_request(picture, "a cup", FOUND, mode=mode) for _ in range(count)]


def test_the_request_holds_picture_frames_mask_and_instruction(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    (request,) = requests()
    with Api(reply()) as api:
        (result,) = api.editor().edit([request])
    assert result.picture.size == (40, 24)
    assert result.picture.getpixel((20, 12)) == (255, 0, 0)
    assert api.paths == ["/v1/images/edits"]
    assert api.keys == ["Bearer secret-key"]
    fields = api.asked[0]
    assert sorted(name for name, _ in fields) == ["image[]", "image[]", "mask", "model", "n", "prompt"]
    sent = dict(fields)
    assert sent["prompt"].decode() == request.instruction
    images = [np.asarray(Image.open(io.BytesIO(data))) for name, data in fields if name == "image[]"]
    assert np.array_equal(images[0], np.asarray(request.picture))
    assert np.array_equal(images[1], np.asarray(request.marked))
    alpha = np.asarray(Image.open(io.BytesIO(sent["mask"])))[..., 3]
    assert np.array_equal(alpha == 0, request.mask > 0)


def test_the_prompt_alone_is_sent_without_mask_and_frames():
    with Api(reply()) as api:
        api.editor().edit(requests(mode="fixed"))
    assert sorted(name for name, _ in api.asked[0]) == ["image[]", "model", "n", "prompt"]


@pytest.mark.parametrize(
    "trouble",
    [
        failure(429, "slow down"),
        failure(500, "broken"),
        (0, b""),
        (200, b'{"data": [{'),
        (200, b'{"data": []}'),
    ],
    ids=["busy", "broken", "hang-up", "half JSON", "no picture"],
)
def test_trouble_is_waited_out(trouble):
    with Api(trouble, trouble, reply()) as api:
        (result,) = api.editor().edit(requests())
    assert result.picture is not None
    assert len(api.asked) == 3


def test_a_refusal_costs_its_picture_alone_and_is_not_repeated(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    with Api(failure(400, "Content policy, secret-key."), reply()) as api:
        first, second = api.editor(concurrency=1).edit(requests(2))
    assert first.picture is None
    assert "Content policy" in first.error
    assert "secret-key" not in first.error
    assert second.picture is not None
    assert len(api.asked) == 2


def test_what_is_no_picture_is_an_error_in_words():
    nonsense = json.dumps({"data": [{"b64_json": base64.b64encode(b"no picture").decode()}]}).encode()
    with Api((200, nonsense)) as api:
        (result,) = api.editor().edit(requests())
    assert result.picture is None
    assert "the edited picture" in result.error


def test_a_dead_server_is_not_asked_for_ever():
    with Api() as api:
        results = api.editor(concurrency=1, attempts=2).edit(requests(9))
    assert len(results) == 9
    assert all(result.picture is None and result.error for result in results)
    assert len(api.asked) == 8  # four requests, twice each
    assert "Not asked" in results[-1].error


def test_requests_start_no_faster_than_the_limit(monkeypatch):
    asked_for, sleep = [], asyncio.sleep

    async def note(seconds, *rest):
        asked_for.append(seconds)
        await sleep(0)

    monkeypatch.setattr("sdg.refinement.openai_editor.asyncio.sleep", note)
    with Api(*[reply()] * 4) as api:
        api.editor(per_minute=1, concurrency=4).edit(requests(4))
    pauses = sorted(seconds for seconds in asked_for if seconds > 20)  # the first one waits for nothing
    assert pauses == pytest.approx([60, 120, 180], abs=15)


def test_an_address_that_is_none_is_said():
    for uri in ("openai:nowhere#m", "openai:http://localhost:1/v1"):
        with pytest.raises(SdgError, match="openai:BASE_URL#MODEL"):
            load_editor(uri)
