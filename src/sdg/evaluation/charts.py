"""Metrics as a chart: one panel a type, one row a metric, a point and the line of its 95 % interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdg.evaluation.columns import TYPES
from sdg.evaluation.metrics import PAPER_METRICS
from sdg.io.plotting import TYPE_COLOURS, finish, new_figure
from sdg.records import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdg.evaluation.counts import Metrics
    from sdg.evaluation.result import Intervals


def plot_metrics(
    values: Metrics, intervals: Intervals | None, label: str, limits: tuple[float, float], path: Path | None
) -> Figure:
    """The paper's metrics; undefined ones have an empty row. limits: ends of the axis, which is `label`led.

    Raises SdgError as `sdg.io.plotting.finish`.
    """
    figure = new_figure(9, 3.2)
    for kind, axes in zip(TYPES, figure.subplots(1, len(TYPES), sharey=True), strict=True):
        for row, name in enumerate(PAPER_METRICS):
            value = values[kind][name]
            if value is None:
                continue
            axes.plot(value, row, "o", color=TYPE_COLOURS[kind])
            if intervals is not None and (bounds := intervals[kind][name]) is not None:
                axes.plot(bounds, (row, row), color=TYPE_COLOURS[kind])
        axes.set(title=kind.value, xlabel=label, xlim=limits)
        axes.axvline(0, color="0.7", linewidth=1)
        axes.set_yticks(range(len(PAPER_METRICS)), PAPER_METRICS)
        axes.set_ylim(len(PAPER_METRICS) - 0.5, -0.5)
    return finish(figure, path)
