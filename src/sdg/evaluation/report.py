"""An evaluation as one HTML file that needs no network: the tables, and the worst images with their boxes.

Everything that comes from data or from a model is escaped.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Final

from sdg.defects import Defect
from sdg.errors import SdgError
from sdg.evaluation.join import Joined
from sdg.evaluation.result import Case, Evaluation, describe_settings, describe_status
from sdg.evaluation.tables import Rows

PICTURE_SIDE: Final = 640
"""Longer side of the pictures in a report, in pixels."""

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2933; --faint: #5f6b7a; --paper: #fff; --line: #d5dae1;
  --artifact: #c2410c; --misalignment: #0369a1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --faint: #9aa5b4; --paper: #14181d;
  --line: #333b46; --artifact: #fb923c; --misalignment: #38bdf8; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 70rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.note, .faint { color: var(--faint); }
article { border-top: 1px solid var(--line); padding: 1rem 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 0; }
.pictures figure { margin: 0; flex: 1 1 18rem; max-width: 26rem; }
.pictures img { width: 100%; height: auto; display: block; }
li { margin: .3rem 0; } .artifact { color: var(--artifact); } .misalignment { color: var(--misalignment); }
"""


def render_report(
    evaluation: Evaluation,
    joined: Joined,
    tables: Iterable[Rows],
    *,
    title: str = "SDG-Eval",
    images: str | os.PathLike[str] | None = None,
    worst: int = 20,
) -> str:
    """The report as HTML text.

    joined: what was evaluated, for paths, prompts and all that did not pair up. images: folder the paths are
    relative to; without it the worst cases are shown without pictures. An image that cannot be read is named
    with the reason in its place.
    """
    mismatch = joined.mismatch()
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(describe_status(evaluation.status))}.</p>",
        f'<p class="faint">{escape(describe_settings(evaluation.settings))}.</p>',
        f"<p>Not evaluated: {escape(mismatch)}.</p>" if mismatch else "",
        _repairs(evaluation),
        *map(_table, tables),
        _cases(evaluation.worst(worst), joined, images),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _repairs(evaluation: Evaluation) -> str:
    repairs = evaluation.status["repairs"]
    if not repairs:
        return ""
    listed = ", ".join(f"{name} {count:,}" for name, count in repairs.items())
    return f'<p class="faint">Repairs made while reading the answers: {escape(listed)}.</p>'


def _table(rows: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in rows.columns)
    body = "\n".join(
        f"<tr{' class=note' if at in rows.notes else ''}>"
        + "".join(f"<td>{escape(value)}</td>" for value in row)
        + "</tr>"
        for at, row in enumerate(rows.rows)
    )
    caption = "" if rows.title == rows.columns[0] else f"<caption>{escape(rows.title)}</caption>"
    return (
        f'<div class="scroll"><table>{caption}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cases(cases: Sequence[Case], joined: Joined, images: str | os.PathLike[str] | None) -> str:
    if not cases:
        return "<h2>Worst images</h2>\n<p>No image has a missed or a spurious defect.</p>"
    intro = (
        "<h2>Worst images</h2>\n<p>By the importance of what was missed and of what was found wrongly "
        "(IoU under 0.1), in hundreds; an unknown importance counts as 50.</p>"
    )
    return "\n".join([intro, *(_case(case, joined, images) for case in cases)])


def _case(case: Case, joined: Joined, images: str | os.PathLike[str] | None) -> str:
    path, prompt = joined.paths[case.image], joined.prompts[case.image]
    parts = [
        f"<article>\n<h3>{escape(path)} · {case.cost:.2f}</h3>",
        f"<p>{escape(prompt)}</p>" if prompt else "",
        "" if images is None else _pictures(Path(images) / path, case),
        _defects("Missed", case.missed),
        _defects("Found wrongly", case.spurious),
        _matched(case),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _pictures(path: Path, case: Case) -> str:
    """The truth and the prediction, drawn on the image side by side; errors have the first numbers."""
    from sdg.images import draw_overlay, load_image

    try:
        image = load_image(path)
    except SdgError as error:
        return f'<p class="faint">No picture: {escape(str(error))}</p>'
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    sides = (
        ("truth", [*case.missed, *(pair[0] for pair in case.matched)]),
        ("prediction", [*case.spurious, *(pair[1] for pair in case.matched)]),
    )
    figures = []
    for name, defects in sides:
        drawn = draw_overlay(image, defects, min_side=PICTURE_SIDE)
        file = BytesIO()
        drawn.save(file, "JPEG", quality=85)
        source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        size = f'width="{drawn.width}" height="{drawn.height}"'
        figures.append(
            f'<figure><img src="{source}" {size} loading="lazy" alt="{name} drawn on the image">'
            f"<figcaption>{name}: {len(defects)} defect{'' if len(defects) == 1 else 's'}"
            "</figcaption></figure>"
        )
    return f'<div class="pictures">{"".join(figures)}</div>'


def _defects(heading: str, defects: Sequence[Defect]) -> str:
    if not defects:
        return ""
    items = "\n".join(f"<li>{_defect(defect)}</li>" for defect in defects)
    return f"<p>{heading}</p>\n<ol>\n{items}\n</ol>"


def _matched(case: Case) -> str:
    """Matched pairs, under the numbers they have in the two pictures."""
    if not case.matched:
        return ""
    items = "\n".join(
        f"<li>{_defect(true)}<br>found as {number}: {_defect(found)}</li>"
        for number, (true, found) in enumerate(case.matched, start=len(case.spurious) + 1)
    )
    return (
        f"<details><summary>Found: {len(case.matched)}</summary>\n"
        f'<ol start="{len(case.missed) + 1}">\n{items}\n</ol></details>'
    )


def _defect(defect: Defect) -> str:
    importance = "" if defect.importance is None else f" {defect.importance}"
    box = ", ".join(map(str, defect.box))
    reason = escape(defect.reason) or "<i>no reason given</i>"
    return f'<b class="{defect.type.value}">{defect.type.value}{importance}</b> [{box}] {reason}'
