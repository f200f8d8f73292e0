"""Reading speed: well-formed responses of the released size, and the same ones each with a fault.

Run: python benchmarks/bench_parser.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from sdg import Defect, Diagnosis
from sdg.response import format_fault, parse_response, render_response

RESPONSES = 28_945  # the training split, on average 2.4 defects an image
REASON = "On the raised image-right hand, the fingers appear fused, lacking clear anatomical separation. " * 2
THINK = "- Key action: the caption asks for a star jump upside down on a long glowing neon skateboard.\n" * 16


def responses(rng: random.Random) -> list[str]:
    texts = []
    for number in range(RESPONSES):
        defects = []
        for _ in range(rng.choice((0, 1, 2, 3, 6))):
            x, y = rng.randrange(900), rng.randrange(900)
            kind = rng.choice(("artifact", "misalignment"))
            defects.append(Defect((x, y, x + 60, y + 80), kind, REASON, rng.randint(1, 100)))
        texts.append(render_response(Diagnosis(tuple(defects), f"{THINK}{number}")))
    return texts


def measure(name: str, read: Callable[[str], object], texts: list[str]) -> None:
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for text in texts:
            read(text)
        best = min(best, time.perf_counter() - began)
    print(f"{name:<34} {len(texts) / best:>9,.0f} responses/s   {best * RESPONSES / len(texts):.2f} s in all")


def fenced(text: str) -> str:
    return text.replace("<answer>", "<answer>\n```json").replace("</answer>", "```\n</answer>")


def main() -> None:
    rng = random.Random(0)
    texts = responses(rng)
    measure("parse, well-formed", parse_response, texts)
    measure("parse, fenced", parse_response, [fenced(text) for text in texts])
    measure("parse, cut off in the answer", parse_response, [t[:-25] for t in texts])
    measure("strict gate", format_fault, texts)


if __name__ == "__main__":
    main()
