"""Overlays of a bulk run: one picture an image, with its boxes, its prompt and the reasons."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sdg.errors import SdgError
from sdg.images import draw_overlay, load_image, save_image
from sdg.io.paths import parts, real_path
from sdg.io.predictions import read_prediction
from sdg.runs.inputs import Item

_IN_PARQUET: Final = re.compile(r"\.parquet#[0-9]+", re.IGNORECASE)


def draw_overlays(
    items: Sequence[Item], rows: Iterable[Mapping[str, Any]], folder: str | os.PathLike[str]
) -> int:
    """Draw each image that has an answer into `folder`, under its own path, as PNG; returns how many.

    items and rows belong together one by one. A path leads nowhere outside of the folder; of two images
    that would get the same name the second gets a number, whether or not the first has an answer. Raises
    SdgError where a file cannot be written, and as `refuse_overwriting` does.
    """
    refuse_overwriting(items, folder)
    drawn = 0
    for item, row, target in zip(items, rows, _targets(items, folder), strict=True):
        diagnosis = read_prediction(row).diagnosis
        if diagnosis is None or not diagnosis.is_informative:
            continue
        try:
            image = load_image(item.file)
        except SdgError:
            continue  # diagnosed before, gone since
        save_image(draw_overlay(image, diagnosis.defects, legend="right", caption=item.prompt), target)
        drawn += 1
    return drawn


def refuse_overwriting(items: Sequence[Item], folder: str | os.PathLike[str]) -> None:
    """Raise SdgError where an overlay in `folder` would be written over one of the images."""
    images = {real_path(item.file) for item in items}
    for item, target in zip(items, _targets(items, folder), strict=True):
        if real_path(target) in images:
            raise SdgError(
                f"The overlay of {item.filepath} in {folder} would replace an image; name another folder."
            )


def _inside(filepath: str) -> tuple[str, ...]:
    """The parts of a path that stay inside of a folder."""
    anchor = Path(filepath).anchor
    kept = tuple(part for part in parts(filepath) if part not in ("..", anchor))
    return kept or ("image",)


def _targets(items: Iterable[Item], folder: str | os.PathLike[str]) -> list[Path]:
    """Where each image's overlay is written, which depends on nothing but the images."""
    targets: dict[Path, None] = {}
    for item in items:
        path = Path(folder, *_inside(item.filepath))
        if _IN_PARQUET.fullmatch(path.suffix):  # which says what row it is, not what kind of file
            path = path.with_name(f"{path.name}.png")
        first = path.with_suffix(".png")
        target, number = first, 2
        while target in targets:
            target, number = first.with_name(f"{first.stem}-{number}.png"), number + 1
        targets[target] = None
    return list(targets)
