"""Charts hold the numbers of the results they are asked of."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from sdg import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.evaluation import PAPER_METRICS, compare, evaluate

pytestmark = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")

HIT = Diagnosis((Defect((0, 0, 500, 500), "artifact", "torn", 60),))
MISS = Diagnosis((Defect((600, 600, 900, 900), "artifact", "torn", 60),))
TRUTH = [HIT, HIT, Diagnosis()]


def points(axes) -> dict[str, float]:
    """Metric -> where its point lies."""
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    return {PAPER_METRICS[int(dot.get_ydata()[0])]: float(dot.get_xdata()[0]) for dot in dots}


def test_an_evaluation_draws_its_metrics_and_their_intervals(tmp_path: Path) -> None:
    result = evaluate(TRUTH, [HIT, MISS, Diagnosis()], bootstrap=50)
    artifact, misalignment = result.plot(tmp_path / "scores.svg").axes
    assert (tmp_path / "scores.svg").read_bytes().startswith(b"<?xml")
    known = {name: value for name, value in result.metrics["artifact"].items() if value is not None}
    assert points(artifact) == {name: known[name] for name in PAPER_METRICS if name in known}
    assert "DescCos@0.1" not in points(artifact)
    assert points(misalignment).keys() == {"ClnAcc"}
    drawn = {tuple(line.get_xdata()) for line in artifact.lines}
    assert result.intervals is not None
    assert result.intervals["artifact"]["BoxF1@0.1"] in drawn


def test_a_comparison_draws_differences_inside_its_axis(tmp_path: Path) -> None:
    good, poor = evaluate(TRUTH, TRUTH), evaluate(TRUTH, [MISS, MISS, Diagnosis()])
    artifact, _ = compare(good, poor, resamples=50).plot().axes
    assert points(artifact)["BoxF1@0.1"] == 1.0
    low, high = artifact.get_xlim()
    assert low == -high < -1
    # Nothing to tell apart is a chart as well.
    assert points(compare(good, good, resamples=5).plot().axes[0])["BoxF1@0.1"] == 0
    with pytest.raises(SdgError, match=r"A plot is a \.png, \.svg or \.pdf file"):
        good.plot(tmp_path / "scores.jpg")
