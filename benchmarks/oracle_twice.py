"""Does the oracle say the same of generated pictures that look the same? A ceiling for detectors it teaches.

    python benchmarks/oracle_twice.py --corpus measured [--corpus …] [--count 500]

Pictures of corpora are changed by what nobody sees: noise of one or two channel values, JPEG, two values
brighter, one pixel to the side. What the oracle says of the changed picture is scored against what it says of
the picture itself, as a detector would be. 500 pictures take two minutes on one core.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdg import evaluate
from sdg.data.formats import read_records
from sdg.errors import SdgError
from sdg.testbed.oracle import diagnose_all

Picture = NDArray[np.uint8]


def noise(spread: float) -> Callable[[Picture, np.random.Generator], Picture]:
    def changed(picture: Picture, rng: np.random.Generator) -> Picture:
        return np.clip(picture + rng.normal(0, spread, picture.shape) + 0.5, 0, 255).astype(np.uint8)

    return changed


def jpeg(quality: int) -> Callable[[Picture, np.random.Generator], Picture]:
    def changed(picture: Picture, rng: np.random.Generator) -> Picture:
        held = io.BytesIO()
        Image.fromarray(picture).save(held, "JPEG", quality=quality, subsampling=0)
        return np.asarray(Image.open(held).convert("RGB"))

    return changed


def brighter(picture: Picture, rng: np.random.Generator) -> Picture:
    return np.clip(picture.astype(np.int16) + 2, 0, 255).astype(np.uint8)


def moved(picture: Picture, rng: np.random.Generator) -> Picture:
    return np.pad(picture, ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1]


CHANGES: Final = {
    "noise of 1": noise(1),
    "noise of 2": noise(2),
    "JPEG, quality 95": jpeg(95),
    "JPEG, quality 85": jpeg(85),
    "2 brighter": brighter,
    "1 pixel to the side": moved,
}
METRICS: Final = ("ClnAcc", "BoxF1@0.1", "BoxF1@0.5")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, action="append", required=True, help="folder with test.jsonl")
    parser.add_argument("--generator", default="testbed-20", help="whose pictures")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    drawn = [
        (folder / record.filepath, record.prompt)
        for folder in chosen.corpus
        for record in read_records(folder / "test.jsonl")
        if record.generator == chosen.generator
    ][: chosen.count]
    if not drawn:
        raise SdgError(f"There is no picture by {chosen.generator!r} in the test splits of these corpora.")
    prompts = [prompt for _, prompt in drawn]
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path, _ in drawn]
    first = list(diagnose_all(zip(pictures, prompts, strict=True), workers=1))
    clean = sum(not diagnosis.defects for diagnosis in first)
    print(f"{len(first)} pictures, {clean} of them clean\n")
    print(f"| changed by | artifact: {' | '.join(METRICS)} | misalignment: {' | '.join(METRICS)} |")
    print("|---" * (1 + 2 * len(METRICS)) + "|")
    for name, change in CHANGES.items():
        rng = np.random.default_rng(chosen.seed)
        changed = [change(picture, rng) for picture in pictures]
        second = list(diagnose_all(zip(changed, prompts, strict=True), workers=1))
        scores = evaluate(first, second).to_dict()
        cells = [f"{scores[kind][metric]:.3f}" for kind in ("artifact", "misalignment") for metric in METRICS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except SdgError as error:
        sys.exit(f"Error: {error}")
