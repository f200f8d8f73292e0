"""Figures of results (needs matplotlib, the `plot` extra): one place that makes and one that writes them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdg.defects import DefectType
from sdg.errors import SdgError, installed
from sdg.io.files import atomic_writer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe–Ito colours, which colour-blind readers tell apart.
TYPE_COLOURS: Final = {DefectType.ARTIFACT: "#d55e00", DefectType.MISALIGNMENT: "#0072b2"}
FORMATS: Final = (".png", ".svg", ".pdf")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; raises SdgError where matplotlib is missing."""
    with installed("Plots need matplotlib", "plot"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """The figure, written as PNG, SVG or PDF where a path is given; SdgError where that cannot be done."""
    if path is None:
        return figure
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise SdgError(f"A plot is a .png, .svg or .pdf file, not {path}.")
    content = io.BytesIO()
    figure.savefig(content, format=suffix[1:], dpi=150)
    with atomic_writer(path) as file:
        file.write(content.getvalue())
    return figure
