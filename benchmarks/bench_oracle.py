"""How far the oracle can be trusted: its findings against injected defects, and on clean pictures made worse.

    python benchmarks/bench_oracle.py [--count 2000] [--clean 500] [--vae FOLDER] [--seed 0]

The two tables are pictures with injected defects, of level core and rich. Then clean renders are blurred
and tinted, and, given the folder of a diffusers AutoencoderKL, passed through it and back. Takes about a
minute on one core; run it with OMP_NUM_THREADS=1 for steady times.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sdg import Diagnosis
from sdg.testbed.injection import sample
from sdg.testbed.oracle import diagnose
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.renderer import render
from sdg.testbed.world.scene import Level

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

Picture = NDArray[np.uint8]


def injected(count: int, seed: int, level: Level) -> Iterator[tuple[Picture, str, Diagnosis]]:
    for index in range(count):
        drawn = sample(np.random.default_rng([seed, index]), level)
        yield drawn.picture, drawn.prompt, drawn.diagnosis


def clean(count: int, seed: int) -> tuple[list[Picture], list[str]]:
    rng = np.random.default_rng([seed, 1])
    drawn = [sample_scene(rng) for _ in range(count)]
    return [render(scene) for _, _, scene in drawn], [prompt for _, prompt, _ in drawn]


def worsened(pictures: list[Picture], seed: int) -> list[Picture]:
    """Blurred by 0.6 px, with noise of 3 and a colour error of 4 channel values that varies over 20 px."""
    rng = np.random.default_rng([seed, 2])
    out = []
    for picture in pictures:
        values = ndimage.gaussian_filter(picture.astype(np.float32), (0.6, 0.6, 0))
        values += rng.normal(0, 3, values.shape)
        values += ndimage.zoom(rng.normal(0, 4, (6, 6, 3)), (128 / 6, 128 / 6, 1), order=1)
        out.append(np.clip(values + 0.5, 0, 255).astype(np.uint8))
    return out


def through_vae(pictures: list[Picture], folder: Path) -> list[Picture]:
    """Encoded and decoded again by an AutoencoderKL, at the mean of its latents."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder).eval().float()
    out: list[Picture] = []
    for start in range(0, len(pictures), 32):
        batch = torch.from_numpy(np.stack(pictures[start : start + 32])).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            decoded = vae.decode(vae.encode(batch / 127.5 - 1).latent_dist.mode()).sample
        values = ((decoded + 1) * 127.5 + 0.5).clamp(0, 255).byte()
        out += list(values.permute(0, 2, 3, 1).contiguous().numpy())
    return out


def report_clean(name: str, pictures: list[Picture], prompts: list[str]) -> None:
    found = [diagnose(*case) for case in zip(pictures, prompts, strict=True)]
    called = sum(one.is_clean for one in found)
    wrong = Counter(str(defect.subtype) for one in found for defect in one.defects)
    print(f"{name}: {called} of {len(found)} called clean ({100 * called / len(found):.1f} %)")
    print(f"  false alarms: {', '.join(f'{name} {n}' for name, n in wrong.most_common()) or 'none'}")


def report_injected(count: int, seed: int, level: Level) -> None:
    from oracle_check import check

    result = check(injected(count, seed, level))
    scores = result.evaluation.to_dict()
    print(f"Level {level}, {result.pictures} pictures, {result.milliseconds:.1f} ms a picture")
    print(f"  clean called clean: {result.called_clean} of {result.clean}")
    for type in ("misalignment", "artifact"):
        chosen = ("BoxF1@0.1", "BoxF1@0.5", "DetTypeF1", "ClnAcc", "ImpAcc@0.1")
        print(f"  {type}: " + ", ".join(f"{name} {scores[type][name]:.3f}" for name in chosen))
    print(result.table(), "\n", sep="")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="injected pictures of each level")
    parser.add_argument("--clean", type=int, default=500, help="clean renders")
    parser.add_argument("--vae", type=Path, help="folder of an AutoencoderKL")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for level in ("core", "rich"):
        report_injected(options.count, options.seed, level)
    pictures, prompts = clean(options.clean, options.seed)
    report_clean("Clean renders", pictures, prompts)
    report_clean("Blurred, noisy and tinted", worsened(pictures, options.seed), prompts)
    if options.vae is not None:
        report_clean("Through the autoencoder and back", through_vae(pictures, options.vae), prompts)


if __name__ == "__main__":
    main()
