"""The result of an evaluation: metrics, intervals, how the answers were read, and the cases behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdg.defects import UNKNOWN_IMPORTANCE, Defect, Status
from sdg.evaluation.columns import TYPES, Columns
from sdg.evaluation.metrics import METRICS, PAPER_METRICS, Counts, Metrics
from sdg.evaluation.scoring import Pairs
from sdg.records import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Intervals = dict[str, dict[str, tuple[float, float] | None]]
"""Type -> metric -> 95 % bounds, None where the metric is undefined, in the data or in every resample."""


@dataclass(frozen=True, slots=True, eq=False)
class Details:
    """What was scored: D images as given, of which the failed ones were left out."""

    evaluated: NDArray[np.bool_]  # (D,)
    table: NDArray[np.float64]  # (D, len(TYPES), len(Count))
    truth: Columns
    predicted: Columns
    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Case:
    """One image with the errors made on it; `image` is its position in the input."""

    image: int
    missed: tuple[Defect, ...]
    spurious: tuple[Defect, ...]
    matched: tuple[tuple[Defect, Defect], ...]  # (truth, prediction), IoU ≥ 0.1
    cost: float  # importance of missed and spurious defects, in hundreds


@dataclass(frozen=True, slots=True)
class Scores:
    """SDG-Eval of one set of predictions (SDG §3.2); prints as the paper's table.

    metrics: `metrics["artifact"]["BoxF1@0.5"]`, None where undefined. intervals: 95 % bootstrap bounds, None
    without a bootstrap. status: images given and evaluated, how many answers had each status, repairs by
    name. settings: everything the numbers depend on. counts: the sums behind the metrics; those of shards add
    up to those of the whole.
    """

    metrics: Metrics
    intervals: Intervals | None
    status: Mapping[str, Any]
    settings: Mapping[str, Any]
    counts: Counts = field(repr=False, compare=False)

    def to_dict(self) -> Metrics:
        """Metrics by type and name, in JSON values."""
        return {kind: dict(values) for kind, values in self.metrics.items()}

    def to_document(self) -> dict[str, Any]:
        """Metrics, intervals, status and settings, in JSON values."""
        intervals = None
        if self.intervals is not None:
            intervals = {
                kind: {name: None if bounds is None else list(bounds) for name, bounds in values.items()}
                for kind, values in self.intervals.items()
            }
        return {
            "metrics": self.to_dict(),
            "intervals": intervals,
            "status": dict(self.status),
            "settings": dict(self.settings),
        }

    def plot(self, path: Path | None = None) -> Figure:
        """The paper's metrics and intervals as a figure of matplotlib, also written to `path` if given.

        Raises SdgError where matplotlib is missing, for a path that is no .png, .svg or .pdf, and where it
        cannot be written.
        """
        return plot_metrics(self.metrics, self.intervals, "score", (-0.02, 1.02), path)

    def __str__(self) -> str:
        """The paper's table in plain text, with intervals under the values and a line on the answers."""
        lines = [f"{'':14}" + "".join(f"{name:>13}" for name in PAPER_METRICS)]
        for kind in map(str, TYPES):
            lines.append(f"{kind:14}" + "".join(f"{cell(self.metrics[kind][m]):>13}" for m in PAPER_METRICS))
            if self.intervals is not None:
                bounds = (interval_cell(self.intervals[kind][m]) for m in PAPER_METRICS)
                lines.append(f"{'  95 %':14}" + "".join(f"{text:>13}" for text in bounds))
        return "\n".join([*lines, describe_status(self.status), describe_settings(self.settings)])


@dataclass(frozen=True, slots=True)
class Evaluation(Scores):
    """The scores of one set of predictions, and the cases behind them."""

    details: Details = field(repr=False, compare=False)

    def worst(self, count: int) -> list[Case]:
        """The images whose missed and spurious defects weigh most by importance, worst first.

        Unknown importances count as 50; images without an error are not listed.
        """
        details = self.details
        rows, columns = details.pairs.at[0.1]
        images = len(details.evaluated)
        cost = np.zeros(images)
        for side, hit in ((details.truth, rows), (details.predicted, columns)):
            weight = np.where(np.isnan(side.importance), UNKNOWN_IMPORTANCE, side.importance) / 100
            weight[hit] = 0
            cost += np.bincount(side.image, weight, images)
        order = np.argsort(-cost, kind="stable")[:count]
        return [self._case(int(image), float(cost[image])) for image in order if cost[image] > 0]

    def _case(self, image: int, cost: float) -> Case:
        details = self.details
        truth, predicted = details.truth, details.predicted
        rows, columns = details.pairs.at[0.1]
        here = truth.image[rows] == image
        own, other = rows[here].tolist(), columns[here].tolist()

        def others(side: Columns, hit: list[int]) -> tuple[Defect, ...]:
            return tuple(side.defects[at] for at in np.flatnonzero(side.image == image) if at not in hit)

        return Case(
            image,
            others(truth, own),
            others(predicted, other),
            tuple((truth.defects[a], predicted.defects[b]) for a, b in zip(own, other, strict=True)),
            cost,
        )


def bounds_by_type(
    low: NDArray[np.float64], high: NDArray[np.float64], undefined: NDArray[np.bool_]
) -> Intervals:
    """Bounds, each (len(TYPES), len(METRICS)) -> type -> metric -> (low, high), None where undefined.

    A bound that is NaN is undefined too: that of a metric that no resample defines.
    """
    undefined = undefined | np.isnan(low)
    return {
        str(kind): {
            name: None if undefined[at, m] else (float(low[at, m]), float(high[at, m]))
            for m, name in enumerate(METRICS)
        }
        for at, kind in enumerate(TYPES)
    }


def plot_metrics(
    values: Metrics, intervals: Intervals | None, label: str, limits: tuple[float, float], path: Path | None
) -> Figure:
    """The paper's metrics as a chart: one panel a type, one row a metric, a point and its interval's line.

    Undefined ones have an empty row. limits: ends of the axis, which is `label`led. Raises SdgError as
    `sdg.io.plotting.finish`.
    """
    from sdg.io.plotting import TYPE_COLOURS, finish, new_figure

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


def cell(value: float | None) -> str:
    """A metric to three decimals, "–" where it is undefined."""
    return "–" if value is None else f"{value:.3f}"


def signed_cell(value: float | None) -> str:
    """A difference to three decimals with its sign, "–" where it is undefined."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def interval_cell(bounds: tuple[float, float] | None) -> str:
    """An interval to three decimals, "–" where it is undefined."""
    return "–" if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}"


def describe_status(status: Mapping[str, Any]) -> str:
    """One sentence on how many images were scored and how their answers were read.

    Of annotators (`pairs`) it is on how many annotations were compared.
    """
    if "pairs" in status:
        return f"{status['pairs']:,} pairs of annotations compared, of {status['images']:,} images"
    notes = {
        Status.UNPARSEABLE: " (counted as predicting nothing)",
        Status.FAILED: " (left out)",
    }
    parts = [f"{status[s]:,} {s}{notes.get(s, '')}" for s in Status if status[s]]
    if status["unknown_truth"]:
        parts.append(f"{status['unknown_truth']:,} without a known truth (left out)")
    evaluated = f"{status['evaluated']:,} of {status['images']:,} images evaluated"
    return f"{evaluated}{describe_unpaired(status)}; answers: {', '.join(parts)}"


def describe_unpaired(status: Mapping[str, Any]) -> str:
    """What two files did not share, as the end of a sentence; "" where they paired up, or it is not known."""
    kinds = {
        "missing": "without a prediction left out",
        "extra": "without a truth left out",
        "unannotated": "not annotated left out",
        "duplicated": "more than once in one file, where the first line counts",
    }
    return "".join(f"; {len(status[key]):,} {what}" for key, what in kinds.items() if status.get(key))


def describe_settings(settings: Mapping[str, Any]) -> str:
    """One line with what the numbers depend on."""
    embedder = settings["embedder"] or "none (DescCos undefined)"
    text = f"matching: {settings['matching']}; embedder: {embedder}"
    if settings["bootstrap"]:
        text += (
            f"; 95 % intervals from {settings['bootstrap']:,} resamples of images, seed {settings['seed']}"
        )
    return text
