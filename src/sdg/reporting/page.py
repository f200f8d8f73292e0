"""The page: sections rendered into one HTML file, with everything from data or models escaped.

Style and script are inline; a Content-Security-Policy allows these two by their hashes and, of all else,
only the pictures inside the file, so that nothing is fetched and no text can become code.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sdg.io.files import atomic_writer, require_page
from sdg.reporting.alignment import AlignmentRun
from sdg.reporting.gallery import Gallery
from sdg.reporting.refinement import Refinements
from sdg.reporting.scores import Scores
from sdg.reporting.side_by_side import SideBySide
from sdg.reporting.summary import Summary, Tables
from sdg.reporting.thumbnails import Source

Section = Summary | Gallery | SideBySide | Scores | Refinements | AlignmentRun | Tables

_FOLDER: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Report:
    """What a page shows: its title, a sentence under it, and its sections in order."""

    title: str
    sections: Sequence[Section]
    note: str = ""

    def pictures(self) -> list[Source]:
        """The pictures that its galleries and refinements name."""
        found: list[Source | None] = []
        for section in self.sections:
            if isinstance(section, Gallery):
                found += [entry.picture for entry in section.entries]
            elif isinstance(section, Refinements):
                found += [picture for item in section.items for picture in (item.before, item.after)]
        return [picture for picture in found if picture is not None]

    def missing(self) -> list[Path]:
        """The files among `pictures` that are not there."""
        named = [picture for picture in self.pictures() if isinstance(picture, Path)]
        return [path for path in named if not os.path.isfile(path)]  # noqa: PTH113 (pathlib's raises for a long name)


def write_report(report: Report, path: str | os.PathLike[str], *, side: int | None = None) -> Path:
    """Write the report as one HTML file, whole or not at all; returns its path.

    Pictures are read and scaled while the file is written, so thousands need little memory. side: their
    longer side in pixels at most, by default 640, or 384 in sections of more than 100 pictures. A picture
    that cannot be read is named, with the reason, in its place.
    Raises SdgError where the file cannot be written, or is there and is no page.
    """
    sections = [(f"section-{number}", section) for number, section in enumerate(report.sections, 1)]
    return write_page(path, "page.html", report=report, sections=sections, side=side)


def write_page(
    path: str | os.PathLike[str],
    template: str,
    *,
    scripts: Sequence[str] = ("report.js", "start.js"),
    styles: Sequence[str] = (),
    **values: Any,
) -> Path:
    """Render a template with `values` and write the page, whole or not at all; returns its path.

    styles: what it has beside that of reports. They and the scripts are files of the folder `templates`.
    Raises SdgError where the file cannot be written, or is there and is no page.
    """
    require_page(path)
    stream = _environment().get_template(template).stream(**values, **_head(scripts, styles))
    stream.enable_buffering(64)
    with atomic_writer(path) as file:
        for text in stream:
            file.write(text.encode("utf-8", "replace"))  # half of a surrogate pair is no text
    return Path(path)


def render_section(section: Section, side: int) -> str:
    """The HTML of one section, for pages that are no report; side: longer side of its pictures, in pixels."""
    shown = getattr(section, "entries" if isinstance(section, Gallery) else "items", ())
    one = len(shown) == 1
    return render_part("section.html", section=section, side=side, one=one)


def render_part(template: str, **values: Any) -> str:
    """A template rendered into text, with everything in `values` escaped."""
    return _environment().get_template(template).render(**values).encode("utf-8", "replace").decode()


def assets(*names: str) -> str:
    """Styles, or scripts, of the folder `templates`, as one."""
    return "".join(map(_asset, names))


def palette() -> tuple[str, str]:
    """The colours as CSS declarations, light and dark."""
    light, dark = re.findall(r"\{([^{}]*)\}", _asset("palette.css"))
    return light, dark


def _head(scripts: Sequence[str], styles: Sequence[str]) -> dict[str, Markup]:
    """Style, script and policy of a page."""
    css, js = assets("palette.css", "report.css", *styles), assets(*scripts)
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; "
    policy += (f"script-src '{_hash(js)}'; " if js else "") + "base-uri 'none'; form-action 'none'"
    return {"css": Markup(css), "js": Markup(js), "policy": Markup(policy)}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment


@cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
