"""The folder of a study: who annotates which picture, and the pictures under names that tell nothing.

    study.json       settings, written once
    pictures.jsonl   one picture a line, with its people
    files/pictures/  the pictures as the server shows them; `files` is its document root

What people enter lies on the server alone, and is read from there whenever it is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sdg.annotate.assignment import Assignment, assign
from sdg.annotate.protocol import Picture
from sdg.defects import Diagnosis
from sdg.errors import SdgError
from sdg.images import image_size, load_image, save_image
from sdg.io import jsonl
from sdg.io.files import writing
from sdg.io.paths import real_path
from sdg.records import text_of
from sdg.runs.begin import begin, read_settings
from sdg.runs.inputs import Item
from sdg.runs.journal import require_once

MANIFEST: Final = "study.json"
PICTURES: Final = "pictures.jsonl"
FILES: Final = "files"
_SHOWN: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"})
"""Files that browsers show as they are."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a study is begun with. people: e-mails. share, reviews, seed: see `assign`.

    proposals: URI of the detector whose boxes pass 1 begins with, "" for none. document_root: the folder on
    the server's disk that it serves files from.
    """

    people: tuple[str, ...]
    share: float
    reviews: int
    seed: int
    proposals: str
    document_root: str


@dataclass(frozen=True, slots=True)
class Study:
    """A study on disk."""

    folder: Path
    id: str
    settings: Settings
    pictures: tuple[Picture, ...]

    def file(self, picture: Picture) -> Path:
        """Where a picture lies for the server."""
        return self.folder / FILES / "pictures" / picture.file


def begin_study(
    folder: Path,
    items: Sequence[Item],
    settings: Settings,
    propose: Callable[[], Mapping[tuple[str, str], Diagnosis]] | None = None,
) -> Study:
    """Write a study, or go on with one that was begun with the same settings.

    propose: what `settings.proposals` says of each (path, prompt), asked for once.
    Raises SdgError where a picture cannot be read, or another study is in the way.
    """
    require_once([item.key for item in items], "picture")
    people = assign(
        len(items),
        settings.people,
        share=settings.share,
        reviews=settings.reviews,
        seed=settings.seed,
    )
    digest = hashlib.sha256(json.dumps([item.key for item in items]).encode()).hexdigest()
    kept = {"study": asdict(settings), "pictures": {"count": len(items), "sha256": digest}}
    work = (folder / PICTURES, folder / FILES)
    sizes = [] if (folder / PICTURES).exists() else [_readable(Path(item.file)) for item in items]
    with begin(folder, folder / MANIFEST, kept, resume=True, work=work, notes={"id": secrets.token_hex(4)}):
        if not (folder / PICTURES).exists():
            proposed = propose() if propose is not None else {}
            jsonl.write_objects(folder / PICTURES, _written(folder, items, sizes, people, proposed))
    return read_study(folder)


def read_study(folder: Path) -> Study:
    """The study in a folder; raises SdgError where there is none."""
    if not (folder / PICTURES).exists():
        raise SdgError(
            f"{folder} holds no study; begin one with `sdg annotate start PICTURES --project {folder}`."
        )
    manifest = read_settings(folder, folder / MANIFEST)
    try:
        values = dict(manifest["study"])
        values["people"] = tuple(values["people"])
        settings, name = Settings(**values), text_of(manifest, "id")
    except (LookupError, TypeError, ValueError):
        raise SdgError(f"{folder / MANIFEST} is damaged; begin the study in another folder.") from None
    return Study(folder, name, settings, tuple(jsonl.read_with(folder / PICTURES, _picture)))


@contextmanager
def held(study: Study) -> Iterator[None]:
    """Keep other processes from moving the same study on."""
    manifest = study.folder / MANIFEST
    with begin(study.folder, manifest, {"study": asdict(study.settings)}, resume=True):
        yield


def _written(
    folder: Path,
    items: Sequence[Item],
    sizes: Sequence[tuple[int, int]],
    people: Sequence[Assignment],
    proposed: Mapping[tuple[str, str], Diagnosis],
) -> Iterator[dict[str, Any]]:
    """Each picture put where the server shows it, and its line."""
    target = folder / FILES / "pictures"
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        given = zip(items, sizes, people, strict=True)
        for number, (item, size, who) in enumerate(given, start=1):
            name = f"{number:06}"
            file = _put(Path(item.file), target, name)
            row: dict[str, Any] = {"picture": name, "filepath": item.filepath, "caption": item.prompt}
            row |= {
                "file": file,
                "size": list(size),
                "annotators": list(who.annotators),
                "reviewers": list(who.reviewers),
            }
            if who.adjudicator is not None:
                row["adjudicator"] = who.adjudicator
            if item.key in proposed:
                row["proposal"] = proposed[item.key].to_dict()
            yield row


def _readable(file: Path) -> tuple[int, int]:
    """A picture's size, upright, as browsers show it; raises SdgError where `_put` could not read it."""
    return image_size(file) if file.suffix.lower() in _SHOWN else load_image(file).size


def _put(file: Path, target: Path, name: str) -> str:
    """A picture put there under a new name, linked where that can be: its file name."""
    ending = file.suffix.lower()
    if ending not in _SHOWN:
        save_image(load_image(file), target / f"{name}.png")
        return f"{name}.png"
    path = target / f"{name}{ending}"
    path.unlink(missing_ok=True)  # of a start that was killed
    try:
        os.link(real_path(file), path)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, path)
    return path.name


def _picture(row: dict[str, Any]) -> Picture:
    try:
        width, height = row["size"]
        people = Assignment(tuple(row["annotators"]), tuple(row["reviewers"]), row.get("adjudicator"))
        proposal = Diagnosis.from_dict(row["proposal"]) if "proposal" in row else None
        return Picture(
            text_of(row, "picture"),
            text_of(row, "filepath"),
            text_of(row, "caption"),
            text_of(row, "file"),
            (width, height),
            people,
            proposal,
        )
    except (LookupError, TypeError):
        raise ValueError("This is no picture of a study.") from None
