"""Benchmarks: one measures beside what it is compared with; what the guide quotes is what they say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from scripts import load

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "align.md"


@pytest.mark.slow
def test_the_spatial_part_is_a_small_share_of_a_step_measured_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_alignment_math.py", "--images", "32", "--repeats", "3"])
    load("bench_alignment_math").main()
    said = capsys.readouterr().out
    (step,) = re.findall(r"optimizer step .*?([\d.]+) ms", said)
    (spatial,) = re.findall(r"maps \+ advantages \+ loss, grid 8×8 +([\d.]+) ms", said)
    here, flux = (float(ratio) for ratio in re.findall(r"ratio ([\d.]+) %", said))
    assert here == pytest.approx(100 * float(spatial) / float(step), rel=0.05, abs=0.01)
    assert 0 < here <= 3
    assert 0 < flux <= 3
    assert "21.5 TFLOP" in said  # the assumptions behind the second


@pytest.mark.slow
def test_the_guides_list_of_memory_is_what_the_models_take(capsys: pytest.CaptureFixture[str]) -> None:
    load("alignment_memory").main()
    printed = _table(capsys.readouterr().out)
    written = _table(GUIDE.read_text().partition("alignment_memory.py")[2].partition("CUDA takes")[0])
    assert len(printed) == 9
    assert list(printed) == list(written)
    # Kernels may differ a little from one release of torch, or one CPU, to the next.
    assert printed == pytest.approx(written, rel=0.02, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["boxflow-sana15", "boxflow-flux2-klein-4b"])
def test_the_guides_table_of_families_is_what_their_models_take(name: str) -> None:
    def numbers(row: str) -> list[float]:
        return [float(number) for number in re.findall(r"\| ([\d.]+)", row)]

    (written,) = re.findall(rf"^\| `{name}` \| [\d.]+ M \|.*$", GUIDE.read_text(), re.MULTILINE)
    found = numbers(load("family_sizes").row(name))
    assert len(found) == 5
    assert numbers(written) == pytest.approx(found, rel=0.02, abs=0.1)


def _table(text: str) -> dict[str, float]:
    """Part -> GB, of the rows of a table."""
    return {
        part: float(number) for part, number in re.findall(r"^ *\| (.+) \| ([\d.]+) \|$", text, re.MULTILINE)
    }
