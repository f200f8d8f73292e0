"""Speed and size of a report of 1,000 pictures of 1024 × 1024 pixels, each with its defects."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sdg.images import save_image
from sdg.reporting import Entry, Gallery, Report, write_report
from sdg.testbed.injection import sample

PICTURES, FILES, SIDE = 1000, 20, 1024


def main() -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        entries = []
        for number in range(FILES):
            drawn = sample(rng)
            picture = Image.fromarray(drawn.picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            file = save_image(picture, Path(folder) / f"{number}.png")
            entries.append(Entry(file.name, drawn.prompt, drawn.diagnosis, None, file))
        gallery = Gallery([entries[number % FILES] for number in range(PICTURES)])
        began = time.perf_counter()
        out = write_report(Report("Benchmark", (gallery,)), Path(folder) / "report.html")
        seconds, size = time.perf_counter() - began, out.stat().st_size / 1e6
    print(f"{PICTURES:,} pictures: {seconds:.0f} s, {size:.1f} MB")


if __name__ == "__main__":
    main()
