"""The three panels of the paper's Figure 3, drawn from the document of a `Statistics`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sdg.defects import DefectType
from sdg.io.plotting import TYPE_COLOURS, finish, new_figure
from sdg.records import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Groups = Mapping[str, Mapping[str, Any]]

_KIND_COLOURS: Final = ("#009e73", "#d55e00", "#0072b2", "#cc79a7")


def plot_statistics(document: Mapping[str, Any], path: Path | None = None) -> Figure:
    """The three panels of what `Statistics.to_dict` gives; see `Statistics.plot`."""
    groups = document["generators"]
    figure = new_figure(15, 4.5)
    per_image, shares, importance = figure.subplots(1, 3)
    _plot_defects_per_image(per_image, groups)
    _plot_shares(shares, groups | {"all": document["overall"]})
    _plot_importance(importance, groups)
    return finish(figure, path)


def _plot_defects_per_image(axes: Axes, groups: Groups) -> None:
    """Two bars a generator, one for each type."""
    for offset, kind in zip((-0.2, 0.2), DefectType, strict=True):
        heights = [group["defects_per_image"][kind] or 0.0 for group in groups.values()]
        places = [place + offset for place in range(len(groups))]
        bars = axes.bar(places, heights, 0.4, label=kind.value, color=TYPE_COLOURS[kind])
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(groups)), list(groups), rotation=20, ha="right")
    axes.set(title="Defects per image")
    axes.margins(y=0.2)
    axes.legend(frameon=False, loc="upper center", ncols=2)


def _plot_shares(axes: Axes, groups: Groups) -> None:
    """One bar a generator, divided by what its images hold."""
    names = list(groups)
    left = [0.0] * len(names)
    for kind, colour in zip(groups["all"]["shares"], _KIND_COLOURS, strict=True):
        widths = [100 * (group["shares"][kind] or 0.0) for group in groups.values()]
        bars = axes.barh(names, widths, left=left, label=kind, color=colour)
        labels = [f"{width:.1f}" if width >= 4 else "" for width in widths]
        axes.bar_label(bars, labels=labels, label_type="center", color="white", fontsize=8)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(title="Images by what they hold", xlabel="% of images", xlim=(0, 100))
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8)


def _plot_importance(axes: Axes, groups: Groups) -> None:
    """One line a generator: its defects' share in each bin of importance."""
    for name, group in groups.items():
        by_type = [group["importance"][kind] for kind in DefectType]
        middles = [sum(map(int, bin.split("-"))) / 2 for bin in by_type[0]]
        counts = [sum(values) for values in zip(*(bins.values() for bins in by_type), strict=True)]
        shares = [100 * count / max(1, sum(counts)) for count in counts]
        axes.plot(middles, shares, marker="o", markersize=3, label=name)
    axes.set(title="Importance", xlabel="importance", ylabel="% of defects", xlim=(0, 101), ylim=(0, None))
    if groups:
        axes.legend(frameon=False, fontsize=8)
