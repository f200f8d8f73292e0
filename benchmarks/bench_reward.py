"""Completions the composite reward scores in a second, without text embeddings, in batches of several sizes.

Run: python benchmarks/bench_reward.py
"""

from __future__ import annotations

import random
import time

from sdg import Defect, Diagnosis
from sdg.response import render_response
from sdg.training.reward import composite_rewards

REASON = "On the raised image-right hand, the fingers appear fused, lacking clear anatomical separation. " * 2
THINK = "- Key action: the caption asks for a star jump upside down on a long glowing neon skateboard.\n" * 16


def some_defects(rng: random.Random) -> tuple[Defect, ...]:
    found = []
    for _ in range(rng.choice((0, 1, 2, 3, 6))):
        x, y = rng.randrange(900), rng.randrange(900)
        kind = rng.choice(("artifact", "misalignment"))
        found.append(Defect((x, y, x + 60, y + 80), kind, REASON, rng.randint(1, 100)))
    return tuple(found)


def no_embedding(a: list[str], b: list[str]) -> list[float]:
    return [0.7] * len(a)


def main() -> None:
    rng = random.Random(0)
    count = 8192
    truths = [some_defects(rng) for _ in range(count // 8) for _ in range(8)]
    responses = [render_response(Diagnosis(some_defects(rng), THINK)) for _ in range(count)]
    for batch in (8, 64, 1024):
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            for at in range(0, count, batch):
                composite_rewards(responses[at : at + batch], truths[at : at + batch], no_embedding)
            best = min(best, time.perf_counter() - began)
        print(f"composite reward, {batch:>4} at a time   {count / best:>9,.0f} completions/s")


if __name__ == "__main__":
    main()
