"""The three panels of the paper's Figure 3, drawn from `Statistics` (needs matplotlib, the `plot` extra)."""

from __future__ import annotations

import io
import pathlib
from typing import TYPE_CHECKING, Final

from sdg.data.statistics import BINS, KINDS, Group, Statistics
from sdg.defects import DefectType
from sdg.errors import SdgError
from sdg.io.files import atomic_writer
from sdg.records import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe–Ito colours, which colour-blind readers tell apart.
_TYPE_COLOURS: Final = {DefectType.ARTIFACT: "#d55e00", DefectType.MISALIGNMENT: "#0072b2"}
_KIND_COLOURS: Final = dict(zip(KINDS, ("#009e73", "#d55e00", "#0072b2", "#cc79a7"), strict=True))
_FORMATS: Final = (".png", ".svg", ".pdf")


def plot_statistics(statistics: Statistics, path: Path) -> None:
    """Draw the three panels into a PNG, SVG or PDF file.

    Raises SdgError where matplotlib is missing, the name has another ending or the file cannot be written.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise SdgError(f"A plot is a .png, .svg or .pdf file, not {path}.")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SdgError("Plots need matplotlib: pip install 'structured-defect-grounding[plot]'.") from None
    groups = statistics.generators
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    per_image, shares, importance = figure.subplots(1, 3)
    _plot_defects_per_image(per_image, groups)
    _plot_shares(shares, groups | {"all": statistics.overall})
    _plot_importance(importance, groups)
    content = io.BytesIO()
    figure.savefig(content, format=suffix[1:], dpi=150)
    with atomic_writer(path) as file:
        file.write(content.getvalue())


def _plot_defects_per_image(axes: Axes, groups: dict[str, Group]) -> None:
    """Two bars a generator, one for each type."""
    for offset, kind in zip((-0.2, 0.2), DefectType, strict=True):
        heights = [group.defects_per_image(kind) or 0.0 for group in groups.values()]
        places = [place + offset for place in range(len(groups))]
        bars = axes.bar(places, heights, 0.4, label=kind.value, color=_TYPE_COLOURS[kind])
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(groups)), list(groups), rotation=20, ha="right")
    axes.set(title="Defects per image")
    axes.margins(y=0.2)
    axes.legend(frameon=False, loc="upper center", ncols=2)


def _plot_shares(axes: Axes, groups: dict[str, Group]) -> None:
    """One bar a generator, divided by what its images hold."""
    names = list(groups)
    left = [0.0] * len(names)
    for kind in KINDS:
        widths = [100 * (group.shares()[kind] or 0.0) for group in groups.values()]
        bars = axes.barh(names, widths, left=left, label=kind, color=_KIND_COLOURS[kind])
        labels = [f"{width:.1f}" if width >= 4 else "" for width in widths]
        axes.bar_label(bars, labels=labels, label_type="center", color="white", fontsize=8)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(title="Images by what they hold", xlabel="% of images", xlim=(0, 100))
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8)


def _plot_importance(axes: Axes, groups: dict[str, Group]) -> None:
    """One line a generator: its defects' share in each bin of importance."""
    middles = [(low + high) / 2 for low, high in BINS]
    for name, group in groups.items():
        counts = group.importance.sum(0)
        axes.plot(middles, 100 * counts / max(1, counts.sum()), marker="o", markersize=3, label=name)
    axes.set(title="Importance", xlabel="importance", ylabel="% of defects", xlim=(0, 101), ylim=(0, None))
    if groups:
        axes.legend(frameon=False, fontsize=8)
