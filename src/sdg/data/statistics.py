"""What a data set looks like: the three panels of the paper's Figure 3, over all and by generator.

Defects per image by type; the share of clean, artifact-only, misalignment-only and doubly defective images;
the distribution of importance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.defects import DefectType
from sdg.records import Path, Record
from sdg.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Groups = Mapping[str, Mapping[str, Any]]

KINDS: Final = ("clean", "artifact only", "misalignment only", "both")
"""What an image may hold (Figure 3, middle)."""

BINS: Final = tuple((low, low + 9) for low in range(1, 101, 10))
"""Importances counted together (Figure 3, right): 1–10, …, 91–100."""

NO_GENERATOR: Final = "(no generator)"

_TYPES: Final = tuple(DefectType)
_KIND_COLOURS: Final = ("#009e73", "#d55e00", "#0072b2", "#cc79a7")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Counts over a set of annotated images.

    defects: by type (artifact, misalignment). kinds: images by what they hold, as `KINDS`. importance:
    (2, 10) defects by type and bin of `BINS`; those without an importance are in no bin.
    """

    defects: NDArray[np.int64]
    kinds: NDArray[np.int64]
    importance: NDArray[np.int64]

    @property
    def images(self) -> int:
        """Number of annotated images."""
        return int(self.kinds.sum())

    def defects_per_image(self, type: DefectType | str) -> float | None:
        """Mean number of defects of a type on an image; None where there are no images."""
        return float(self.defects[_TYPES.index(DefectType(type))]) / self.images if self.images else None

    def shares(self) -> dict[str, float | None]:
        """Share of the images of each kind; None where there are no images."""
        return {
            kind: float(count) / self.images if self.images else None
            for kind, count in zip(KINDS, self.kinds, strict=True)
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "images": self.images,
            "defects": {kind.value: int(count) for kind, count in zip(_TYPES, self.defects, strict=True)},
            "defects_per_image": {kind.value: self.defects_per_image(kind) for kind in _TYPES},
            "shares": self.shares(),
            "importance": {
                kind.value: {f"{low}-{high}": int(n) for (low, high), n in zip(BINS, row, strict=True)}
                for kind, row in zip(_TYPES, self.importance, strict=True)
            },
        }


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Counts over all images and for each generator, by name; images of which nothing is known are apart."""

    overall: Group
    generators: dict[str, Group]
    unknown: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "overall": self.overall.to_dict(),
            "generators": {name: group.to_dict() for name, group in self.generators.items()},
            "unknown": self.unknown,
        }

    def tables(self) -> tuple[Table, Table, Table]:
        """The three panels of Figure 3: a row a generator, and for the importance a column."""
        groups = [*self.generators.items(), ("all", self.overall)]
        names = [name for name, _ in groups]
        means = (
            (
                name,
                f"{group.images:,}",
                *(_cell(group.defects_per_image(kind), "{:.2f}") for kind in DefectType),
            )
            for name, group in groups
        )
        shares = (
            (name, *(_cell(share, "{:.1%}") for share in group.shares().values())) for name, group in groups
        )
        binned = [group.importance.sum(0) for _, group in groups]
        bins = (
            (
                f"{low}–{high}",
                *(_cell(counts[at] / counts.sum() if counts.sum() else None, "{:.1%}") for counts in binned),
            )
            for at, (low, high) in enumerate(BINS)
        )
        return (
            Table("Defects per image", ("generator", "images", *map(str, DefectType)), tuple(means)),
            Table("Images by what they hold, %", ("generator", *KINDS), tuple(shares)),
            Table("Importance, % of defects", ("importance", *names), tuple(bins)),
        )

    def __str__(self) -> str:
        """The same three tables in plain text."""
        return "\n\n".join(map(str, self.tables()))

    def plot(self, path: Path | None = None) -> Figure:
        """The three panels of Figure 3 as a figure of matplotlib, also written to `path` where one is given.

        Raises SdgError where matplotlib is missing, for a path that is no .png, .svg or .pdf, and where it
        cannot be written.
        """
        return plot_statistics(self.to_dict(), path)


def statistics(records: Iterable[Record]) -> Statistics:
    """Count what records hold, streaming (SDG Figure 3).

    A record without diagnosis, or with one that says nothing about the image, counts as unknown.
    """
    groups: dict[str, Group] = {}
    unknown = 0
    for record in records:
        if record.diagnosis is None or not record.diagnosis.is_informative:
            unknown += 1
            continue
        name = record.generator or NO_GENERATOR
        group = groups.get(name)
        if group is None:
            group = groups[name] = _empty()
        present = [0, 0]
        for defect in record.diagnosis.defects:
            row = 0 if defect.type is DefectType.ARTIFACT else 1
            present[row] += 1
            if defect.importance is not None:
                group.importance[row, (defect.importance - 1) // 10] += 1
        group.defects[:] += present
        group.kinds[bool(present[0]) + 2 * bool(present[1])] += 1
    return Statistics(_sum(groups.values()), dict(sorted(groups.items())), unknown)


def plot_statistics(document: Mapping[str, Any], path: Path | None = None) -> Figure:
    """The three panels of what `Statistics.to_dict` gives; see `Statistics.plot`."""
    from sdg.io.plotting import finish, new_figure

    groups = document["generators"]
    figure = new_figure(15, 4.5)
    per_image, shares, importance = figure.subplots(1, 3)
    _plot_defects_per_image(per_image, groups)
    _plot_shares(shares, groups | {"all": document["overall"]})
    _plot_importance(importance, groups)
    return finish(figure, path)


def _plot_defects_per_image(axes: Axes, groups: Groups) -> None:
    """Two bars a generator, one for each type."""
    from sdg.io.plotting import TYPE_COLOURS

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


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value).removesuffix("%")


def _empty() -> Group:
    return Group(np.zeros(2, int), np.zeros(len(KINDS), int), np.zeros((2, len(BINS)), int))


def _sum(groups: Iterable[Group]) -> Group:
    total = _empty()
    for group in groups:
        total.defects[:] += group.defects
        total.kinds[:] += group.kinds
        total.importance[:] += group.importance
    return total
