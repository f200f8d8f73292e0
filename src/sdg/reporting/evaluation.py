"""An evaluation as one HTML file that needs no network: the tables, and the worst images with their boxes.

Everything that comes from data or from a model is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from markupsafe import Markup

from sdg.defects import Defect
from sdg.errors import SdgError
from sdg.evaluation.join import Joined
from sdg.evaluation.result import Case, Evaluation, describe_settings, describe_status
from sdg.evaluation.tables import Rows
from sdg.reporting.page import plain_page, table
from sdg.reporting.pictures import data_uri

PICTURE_SIDE: Final = 640
"""Longer side of the pictures in a report, in pixels."""


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
    return plain_page(title, Markup(body))


def _repairs(evaluation: Evaluation) -> str:
    repairs = evaluation.status["repairs"]
    if not repairs:
        return ""
    listed = ", ".join(f"{name} {count:,}" for name, count in repairs.items())
    return f'<p class="faint">Repairs made while reading the answers: {escape(listed)}.</p>'


def _table(rows: Rows) -> str:
    title = "" if rows.title == rows.columns[0] else rows.title
    return table(title, rows.columns, rows.rows, rows.notes)


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
        f'<article class="case">\n<h3>{escape(path)} · {case.cost:.2f}</h3>',
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
        size = f'width="{drawn.width}" height="{drawn.height}"'
        figures.append(
            f'<figure><img src="{data_uri(drawn)}" {size} loading="lazy" alt="{name} drawn on the image">'
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
