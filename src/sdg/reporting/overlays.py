"""Overlays of a bulk run: one picture an image, with its boxes, its prompt and the reasons."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdg.errors import SdgError
from sdg.images import draw_overlay, load_image, save_image
from sdg.io.paths import parts, real_path
from sdg.io.predictions import read_prediction
from sdg.runs.inputs import Item


def draw_overlays(
    items: Sequence[Item], rows: Iterable[Mapping[str, Any]], folder: str | os.PathLike[str]
) -> int:
    """Draw each image that has an answer into `folder`, under its own path, as PNG; returns how many.

    items and rows belong together one by one. A path leads nowhere outside of the folder; of two images
    that would get the same name the second gets a number. Raises SdgError where a file cannot be written,
    and as `refuse_overwriting` does.
    """
    refuse_overwriting(items, folder)
    taken: set[Path] = set()
    for item, row in zip(items, rows, strict=True):
        diagnosis = read_prediction(row).diagnosis
        if diagnosis is None or not diagnosis.is_informative:
            continue
        try:
            image = load_image(item.file)
        except SdgError:
            continue  # diagnosed before, gone since
        target = _free(Path(folder, *_inside(item.filepath)), taken)
        taken.add(target)
        save_image(draw_overlay(image, diagnosis.defects, legend="right", caption=item.prompt), target)
    return len(taken)


def refuse_overwriting(items: Sequence[Item], folder: str | os.PathLike[str]) -> None:
    """Raise SdgError where an overlay in `folder` would be written over one of the images."""
    images = {real_path(item.file) for item in items}
    for item in items:
        if real_path(Path(folder, *_inside(item.filepath)).with_suffix(".png")) in images:
            raise SdgError(
                f"The overlay of {item.filepath} in {folder} would replace an image; name another folder."
            )


def _inside(filepath: str) -> tuple[str, ...]:
    """The parts of a path that stay inside of a folder."""
    anchor = Path(filepath).anchor
    kept = tuple(part for part in parts(filepath) if part not in ("..", anchor))
    return kept or ("image",)


def _free(path: Path, taken: set[Path]) -> Path:
    target, number = path.with_suffix(".png"), 2
    while target in taken:
        target, number = path.with_name(f"{path.stem}-{number}.png"), number + 1
    return target
