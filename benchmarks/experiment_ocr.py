"""How well the `ocr` detector finds misspelt, missing and garbled text, on signs whose faults are known.

    python benchmarks/experiment_ocr.py                              # 200 signs; two minutes on one core
    python benchmarks/experiment_ocr.py --count 20 --out /tmp/few    # a try

Thresholds were chosen on signs of another seed. A picture counts as found where the detector names a defect
of that kind on it; intervals are Wilson's. Writes table.md and signs.jsonl (what was shown and found).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest
from text_renders import DISTORTIONS, FONTS, KINDS, SIZE, signs

from sdg.detectors.text import text_defects
from sdg.io import jsonl
from sdg.io.files import write_text
from sdg.models.ocr import find_text, quoted_texts, reader

SEED = 2026
MISALIGNED = ("misspelt", "missing", "garbled")  # in all of them the quoted text does not stand there


def measure(count: int, seed: int) -> list[dict[str, Any]]:
    """One row a sign: what it is, and what was found on it."""
    rows = []
    for sign in signs(count, seed):
        lines = reader().read(sign.picture)
        (quoted,) = quoted_texts(sign.prompt)
        defects = text_defects(lines, sign.prompt, (SIZE, SIZE))
        rows.append(
            {
                "kind": sign.kind,
                "font": sign.font,
                "distortion": sign.distortion,
                "quoted": quoted,
                "shown": sign.shown,
                "read": [[line.text, round(line.confidence, 3)] for line in lines],
                "score": round(find_text(quoted, lines).score, 3),
                "misaligned": any(defect.subtype == "wrong text" for defect in defects),
                "garbled": any(defect.subtype == "garbled text" for defect in defects),
            }
        )
    return rows


def share(hits: int, of: int) -> str:
    """A share in percent with its 95 % Wilson interval."""
    if not of:
        return "–"
    low, high = binomtest(hits, of).proportion_ci(method="wilson")
    return f"{100 * hits / of:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({hits}/{of})"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Precision and recall of both findings, then recall by kind, font and distortion."""
    lines = ["| finding | precision, % | recall, % |", "|---|---|---|"]
    for title, key, kinds in (
        ("text unlike the quoted one", "misaligned", MISALIGNED),
        ("garbled text", "garbled", ("garbled",)),
    ):
        there = [row["kind"] in kinds for row in rows]
        said = [row[key] for row in rows]
        right = sum(a and b for a, b in zip(there, said, strict=True))
        lines.append(f"| {title} | {share(right, sum(said))} | {share(right, sum(there))} |")
    lines += ["", "| kind | signs | text unlike the quoted one, % | garbled text, % |", "|---|---|---|---|"]
    for kind in KINDS:
        part = [row for row in rows if row["kind"] == kind]
        found = [share(sum(row[key] for row in part), len(part)) for key in ("misaligned", "garbled")]
        lines.append(f"| {kind} | {len(part)} | {found[0]} | {found[1]} |")
    for name, values in (("font", FONTS), ("distortion", DISTORTIONS)):
        lines += [
            "",
            f"| {name} | signs | clean ones with a false defect | faulty ones found |",
            "|---|---|---|---|",
        ]
        for value in values:
            part = [row for row in rows if row[name] == value]
            clean = [row for row in part if row["kind"] == "clean"]
            faulty = [row for row in part if row["kind"] != "clean"]
            false = sum(row["misaligned"] or row["garbled"] for row in clean)
            found_on = sum(row["misaligned"] or row["garbled"] for row in faulty)
            lines.append(f"| {value} | {len(part)} | {false}/{len(clean)} | {found_on}/{len(faulty)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw, read, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=Path("docs/experiments/ocr"))
    options = parser.parse_args()
    rows = measure(options.count, options.seed)
    text = table(rows)
    jsonl.write_objects(options.out / "signs.jsonl", rows)
    write_text(options.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
