"""One picture diagnosed, in the words and files that a page shows of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdg.defects import Diagnosis, Status
from sdg.errors import SdgError
from sdg.images import draw_overlay, load_image, save_image
from sdg.io.files import write_text
from sdg.reporting import Entry, Gallery
from sdg.reporting.page import Section, render_section

SIDE = 1024
"""Longer side of a picture on a page, in pixels at most."""
_STATUS = {
    Status.OK: "",
    Status.REPAIRED: "The answer was not in its exact form and has been read with care",
    Status.TRUNCATED: "The answer was cut off: there may be more than is listed",
    Status.UNPARSEABLE: "The detector answered, and no list of defects could be read from it",
    Status.FAILED: "The detector gave no answer",
}


@dataclass(frozen=True, slots=True)
class Looked:
    """A picture, its prompt, and what a detector found; name: what the page calls the picture."""

    picture: Path
    prompt: str
    diagnosis: Diagnosis
    detector: str = ""
    name: str = "picture"


def words(diagnosis: Diagnosis) -> str:
    """What came of a diagnosis, as a sentence: how much was found, how it was read, what was mended."""
    count = len(diagnosis.defects)
    if diagnosis.is_clean:
        found = "No defects."
    elif count:
        found = f"{count} defect{'' if count == 1 else 's'}."
    else:
        found = ""
    reading = _STATUS[diagnosis.status]
    if diagnosis.error:
        reading = diagnosis.error.rstrip(".")
    if diagnosis.repairs:
        mended = Counter(name.replace("-", " ") for name in diagnosis.repairs)
        listed = ", ".join(name if times == 1 else f"{name} ×{times}" for name, times in mended.items())
        reading += f" ({listed})"
    return " ".join(filter(None, (found, reading and f"{reading}.")))


def page_of(looked: Looked) -> str:
    """The picture with its boxes, reasons, importances and reasoning, as a report shows it."""
    entry = Entry(looked.name, looked.prompt, looked.diagnosis, picture=looked.picture)
    return render_section(Gallery((entry,), "Diagnosis"), SIDE)


def rendered(sections: Sequence[Section]) -> str:
    """Sections of a report, one below the other."""
    return "".join(render_section(section, SIDE) for section in sections)


def write_downloads(looked: Looked, folder: Path) -> tuple[Path | None, Path | None]:
    """The diagnosis as JSON and the overlay as PNG, in `folder`; None where nothing is known.

    Raises SdgError where the picture cannot be read.
    """
    if not looked.diagnosis.is_informative:
        return None, None
    document = {"prompt": looked.prompt, "detector": looked.detector, **looked.diagnosis.to_dict()}
    diagnosis = folder / "diagnosis.json"
    write_text(diagnosis, json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    image = load_image(looked.picture)
    image.thumbnail((2048, 2048), reducing_gap=3.0)
    drawn = draw_overlay(image, looked.diagnosis.defects, legend="right", caption=looked.prompt)
    return diagnosis, save_image(drawn, folder / "overlay.png")


def require_picture(picture: str | None, prompt: str) -> Path:
    """The picture's file; raises SdgError where there is none, or no prompt."""
    if not picture:
        raise SdgError("There is no picture yet; drop one, paste one, or take an example.")
    if not prompt.strip():
        raise SdgError("Give the prompt that the picture was made for: half of the defects are about it.")
    return Path(picture)
