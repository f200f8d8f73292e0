"""Learning curves of the alignment experiment: what the monitor saw on held-out prompts, by optimizer step.

    python benchmarks/plot_alignment.py [--logs docs/experiments/alignment/logs] [--out …/curves.png]

Thin lines are seeds, thick ones their mean. Logs are METHOD-seedN.jsonl, or a folder of unfinished runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

OUT: Final = Path(__file__).resolve().parents[1] / "docs/experiments/alignment"
PANELS: Final = {
    "oracle/defects": "defects a picture (oracle)",
    "oracle/artifacts": "artifacts a picture (oracle)",
    "oracle/misalignments": "misalignments a picture (oracle)",
    "oracle/clean_rate": "share of clean pictures (oracle)",
    "detector/defects": "defects a picture (detector: the reward's own)",
    "reward": "base reward (CLIP score)",
}
COLOURS: Final = {
    "boxflow": "#d1495b",
    "boxflow-nft": "#8f2d56",
    "denseflow": "#edae49",
    "flow-grpo": "#00798c",
    "nft": "#30638e",
}

Curve = dict[int, float]


def read_curves(folder: Path) -> dict[str, dict[str, dict[str, Curve]]]:
    """method -> seed -> measure -> step -> value, of METHOD-seedN.jsonl or METHOD-seedN/log.jsonl."""
    curves: dict[str, dict[str, dict[str, Curve]]] = defaultdict(dict)
    for path in sorted([*folder.glob("*-seed*.jsonl"), *folder.glob("*-seed*/log.jsonl")]):
        name = path.parent.name if path.name == "log.jsonl" else path.stem
        method, _, seed = name.rpartition("-seed")
        of_seed: dict[str, Curve] = {panel: {} for panel in PANELS}
        for line in path.read_text(encoding="utf-8").splitlines():
            entry: dict[str, Any] = json.loads(line)
            for panel, curve in of_seed.items():
                if entry["kind"] == "monitor" and entry.get(panel) is not None:
                    curve[entry["step"]] = entry[panel]
        curves[method][seed] = of_seed
    return curves


def mean_curve(curves: list[Curve]) -> Curve:
    """The mean over seeds, at the steps that all of them have."""
    steps = set.intersection(*(set(curve) for curve in curves))
    return {step: sum(curve[step] for curve in curves) / len(curves) for step in sorted(steps)}


def draw(curves: dict[str, dict[str, dict[str, Curve]]], out: Path) -> None:
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), constrained_layout=True)
    for axis, (panel, title) in zip(axes.flat, PANELS.items(), strict=True):
        for method, seeds in curves.items():
            colour = COLOURS.get(method, "grey")
            of_panel = [seed[panel] for seed in seeds.values() if seed[panel]]
            for curve in of_panel:
                axis.plot(list(curve), list(curve.values()), color=colour, alpha=0.35, linewidth=1)
            if of_panel:
                mean = mean_curve(of_panel)
                axis.plot(list(mean), list(mean.values()), color=colour, linewidth=2.2, label=method)
        axis.set(title=title, xlabel="optimizer step")
        axis.grid(alpha=0.25)
    axes.flat[0].legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=Path, default=OUT / "logs")
    parser.add_argument("--out", type=Path, default=OUT / "curves.png")
    options = parser.parse_args()
    curves = read_curves(options.logs)
    if not curves:
        sys.exit(
            f"Error: {options.logs} holds no logs called METHOD-seedN.jsonl; name their folder by --logs."
        )
    draw(curves, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
