"""A server of `sdg serve` in a thread, detectors that need no model, and a caller of the standard library."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image

from sdg.defects import Defect, Diagnosis, Status
from sdg.detectors.base import StreamingDetector, failed
from sdg.images import Pair, rgb_picture
from sdg.prompting import PromptProfile
from sdg.response import render_response
from sdg.scorers import Scorer
from sdg.serve.app import Service
from sdg.serve.models import Measures, Models
from sdg.serve.server import listening, server_of


class RedDetector(StreamingDetector):
    """Finds what a picture's red says; refuses red 255 alone, and with red 254 dies, batch and all.

    begun, may_end: for tests that hold a batch up.
    """

    profile = PromptProfile(template="Look at {caption}: {caption}!")

    def __init__(self, batch_size: int = 4) -> None:
        self._batch_size, self.batches = batch_size, list[int]()
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {"detector": "red"}

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Diagnosis]]:
        self.batches.append(len(pairs))
        self.begun.set()
        assert self.may_end.wait(30)
        reds = [rgb_picture(image).getpixel((0, 0))[0] for image, _ in pairs]  # type: ignore[index]
        if 254 in reds:
            raise RuntimeError("the model fell over")
        for index, (red, (_, prompt)) in enumerate(zip(reds, pairs, strict=True)):
            yield index, found(red, prompt)


def found(red: int, prompt: str) -> Diagnosis:
    if red == 255:
        return failed("This picture is too red.")
    if red == 253:
        return Diagnosis(status=Status.UNPARSEABLE, raw="hm")
    defects = [Defect((0, 0, 500, 1000), "artifact", prompt, red)] if red else []
    defects += [Defect((500, 0, 1000, 500), "misalignment", "half", 50)] if red > 50 else []
    diagnosis = Diagnosis(defects=tuple(defects), reasoning="I looked.")
    return Diagnosis(diagnosis.defects, diagnosis.reasoning, raw=render_response(diagnosis))


@contextmanager
def served(
    detector: StreamingDetector,
    scorers: Sequence[Scorer] = (),
    *,
    most: int = 64,
    token: str | None = None,
) -> Iterator[str]:
    """The address of a server that answers while the context lasts."""
    measures = Measures()
    models = Models(detector, scorers, most, measures)
    with listening("127.0.0.1", 0, token) as place:
        server = server_of(Service(models, measures, "red", token, local=True))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(40)
            assert not thread.is_alive()


def plain(red: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, (red, 1, 2))


def encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def item(red: int, prompt: str = "a cat") -> dict[str, str]:
    return {"image": encoded(plain(red)), "prompt": prompt}


def post(url: str, value: object, **headers: str) -> tuple[int, Any, Mapping[str, str]]:
    """Status, JSON and headers of an answer; value: an object to send as JSON, or bytes as they are."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response), response.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
