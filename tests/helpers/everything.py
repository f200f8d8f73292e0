"""Everything a report can show, made from testbed pictures, some of it hostile or missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from sdg.defects import Defect, Diagnosis, Status
from sdg.evaluation import PUBLISHED, evaluate
from sdg.images import save_image
from sdg.reporting import (
    Entry,
    Gallery,
    Refinements,
    Scores,
    read_refinements,
    read_run,
)
from sdg.response.strict import write_defects
from sdg.testbed.injection import sample
from sdg.testbed.world.renderer import render

HOSTILE = (
    """<script>window.stolen = 1</script> "quoted" 'single' <img src=x onerror="window.stolen = 1"> & </li>"""
)


CONTRAST = """element => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element, paint;
  do { paint = channels(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
  while (paint.length === 4 && paint[3] < 1);
  const [one, other] = [light(channels(getComputedStyle(element).color)), light(paint)];
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}"""
"""Contrast of an element's text with what lies behind it, as WCAG has it: 4.5 is enough."""


def entries(count: int, size: int = 128) -> list[Entry]:
    """Testbed pictures with what was injected into them."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(count):
        drawn = sample(rng, size=size)
        generator = ("FLUX.2-dev", "SANA-1.5")[number % 2]
        picture = Image.fromarray(drawn.picture)
        made.append(Entry(f"shapes/{number:04d}.png", drawn.prompt, drawn.diagnosis, generator, picture))
    return made


def sections(folder: Path) -> tuple[Scores, Refinements, object, Gallery]:
    """Every kind of section; the files it reads lie in `folder`."""
    rng = np.random.default_rng(3)
    lines, truth, found = [], [], []
    for number in range(6):
        drawn = sample(rng, kind="artifact")
        save_image(Image.fromarray(drawn.picture), folder / f"{number}-before.png")
        save_image(Image.fromarray(render(drawn.scene)), folder / f"{number}-after.png")
        defects = drawn.diagnosis.defects
        lines.append(
            {
                "id": f"picture {number}",
                "prompt": drawn.prompt,
                "before": f"{number}-before.png",
                "after": f"{number}-after.png",
                "diagnosis_before": {"status": "ok", "defects": write_defects(defects)},
                "diagnosis_after": {"status": "ok", "defects": []},
                "rounds": 1,
                "pixels_changed": float(drawn.artifact_mask.mean()),
                "status": "improved",
            }
        )
        truth.append(drawn.diagnosis)
        found.append(Diagnosis(defects[: 1 + number % 2]))
    (folder / "refined.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    log = [{"kind": "monitor", "step": 0, "epoch": 0, "reward": 0.42, "detector/defects": 1.9}]
    for epoch in range(12):
        log.append(
            {
                "kind": "train",
                "epoch": epoch,
                "step": epoch,
                "reward": 0.4 + 0.02 * epoch,
                "loss": [-1e-4, 2e-4],
            }
        )
        log.append(
            {"kind": "monitor", "step": epoch, "epoch": epoch + 1, "reward": 0.43 + 0.015 * epoch}
            | {"detector/defects": 1.9 - 0.1 * epoch}
        )
    run = folder / "boxflow"
    for epoch in (0, 6, 12):
        save_image(
            Image.new("RGB", (1036, 300), (40 * epoch // 2, 120, 160)),
            run / f"pictures/epoch-{epoch:06d}.png",
        )
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, log)) + '\n{"kind": "tra', encoding="utf-8")
    document = evaluate(truth, found, bootstrap=50).to_document()
    document["published"] = {PUBLISHED[0].model: PUBLISHED[0].metrics}
    pictures = entries(12)
    worst = Defect((600, 600, 950, 980), "misalignment", HOSTILE, 97)
    pictures += [
        Entry(
            HOSTILE,
            HOSTILE,
            Diagnosis((worst,), reasoning=HOSTILE),
            "FLUX.2-dev",
            Image.new("RGB", (300, 200)),
        ),
        Entry(
            "gone.png", "a cat", Diagnosis((Defect((0, 0, 90, 90), "artifact"),)), None, folder / "gone.png"
        ),
        Entry("asked.png", "a dog", Diagnosis(status=Status.FAILED), "SANA-1.5", Image.new("RGB", (64, 128))),
        Entry("new.png", "a cow", None, "SANA-1.5", Image.new("RGB", (128, 64), "teal")),
    ]
    return (
        Scores([("ours", document)]),
        Refinements(read_refinements(folder / "refined.jsonl")),
        read_run(run),
        Gallery(pictures, note="Pictures with known defects."),
    )
