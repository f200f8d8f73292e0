"""How long a roll-out waits for its scores once the last picture is drawn, on a server of set latency.

Run: python benchmarks/bench_scoring_wait.py [PICTURES [LATENCY [PIXELS]]]
The server takes LATENCY seconds for each answer, any number at a time, 3.5 times as long as a batch of 8
takes to be drawn. Detector and base reward are both behind it. The least to wait for is one request, a ratio
of 1. A picture of 512 pixels takes 35 ms of a core to be packed; these are small, so as not to measure that.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from sdg import Diagnosis, render_response
from sdg.alignment.policies import FlowPolicy, Rollout, Transitions
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rollout import Row, Sampler, Score, Scoring
from sdg.detectors import load_detector
from sdg.recipes import load_recipe
from sdg.scorers import Scorer, Scores
from sdg.scorers.weighted import ScorerRecipe, load_reward

PICTURES, LATENCY, PIXELS, SLOWER = 96, 3.5, 128, 3.5
RECIPE = Path(__file__).parents[1] / "recipes" / "align" / "boxflow-flux1-dev.yaml"
ANSWERS = {
    "detector": render_response(Diagnosis()),
    "reward": "\n".join(f"{name} Score (1-5): 4" for name in ("Alignment", "Coherence", "Style")),
}


def serve(latency: float, ready: Connection) -> None:
    """Chat completions of the models above, each `latency` seconds after its request has come."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
            await asyncio.sleep(latency)
            message = {"role": "assistant", "content": ANSWERS[body["model"]]}
            content = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
            await writer.drain()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):  # the client has gone
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(guarded, "127.0.0.1", 0, backlog=1024, limit=1 << 20)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class Painter:
    """Draws noise at the pace of a generator, for a policy."""

    def __init__(self, seconds: float, size: int) -> None:
        self.seconds, self.last = seconds, 0.0
        pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
        self.picture = Image.fromarray(pixels)

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> Rollout:
        time.sleep(self.seconds)
        self.last = time.perf_counter()
        nothing = Transitions(tuple(prompts), 0.7, "flow-sde", *[()] * 5, final=torch.zeros(0))
        return Rollout([self.picture.copy() for _ in prompts], nothing)


class InBatches:
    """A scorer or detector without what asks a server about single pictures: batch after batch instead."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        return cast(Scorer, self.inner).score(pictures, prompts)

    def diagnose(self, pairs: Any) -> list[Diagnosis]:
        found: list[Diagnosis] = self.inner.diagnose(pairs)
        return found


def measure(
    recipe: AlignRecipe, scoring: Scoring, pictures: int, painter: Painter
) -> tuple[float, list[Score]]:
    """Seconds from the last picture on to all scores, in an epoch after the first; and the scores."""
    rows = [Row(number, 0, "a red cup", number) for number in range(pictures)]
    with scoring:
        sampler = Sampler(recipe, cast(FlowPolicy, painter), scoring)
        sampler.draw(rows[:8], []).scores()
        scores = sampler.draw(rows, []).scores()
        return time.perf_counter() - painter.last, scores


def main(pictures: int = PICTURES, latency: float = LATENCY, pixels: int = PIXELS) -> float:
    """Prints both ways of waiting; returns the ratio of the first to the latency."""
    recipe = load_recipe(AlignRecipe, RECIPE)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(latency, there), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    try:
        detector = load_detector(f"openai:{url}?profile=default#detector")
        reward = load_reward([ScorerRecipe("reward", f"unified-reward:{url}#reward")])
        ways = {
            "one request a picture": Scoring(reward, detector),
            "batch after batch": Scoring(InBatches(reward), cast(Any, InBatches(detector))),
        }
        painter = Painter(latency / SLOWER, pixels)
        print(f"{pictures} pictures, 8 at a time in {painter.seconds:g} s; a request takes {latency:g} s")
        ratios = []
        for name, scoring in ways.items():
            waited, scores = measure(recipe, scoring, pictures, painter)
            assert all(score.reward is not None and score.diagnosis is not None for score in scores)
            ratios.append(waited / latency)
            print(f"{name:24} waits {waited:6.2f} s after the last picture, {ratios[-1]:5.2f} × one request")
        return ratios[0]
    finally:
        server.kill()
        server.join()


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, float, int), sys.argv[1:], strict=False)))
