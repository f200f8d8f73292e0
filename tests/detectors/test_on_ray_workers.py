"""A run on Ray without Ray: what it refuses at once, and what its workers ask of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdg.detectors.on_ray import run_on_ray
from sdg.errors import SdgError


@pytest.mark.parametrize("uri", ["replay:stored.jsonl", "union:ocr|heatmap:maps"])
def test_stored_answers_are_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SdgError, match=r"^Stored answers are looked up among all images of a run"):
        run_on_ray(uri, [tmp_path / "a.parquet"], tmp_path / "out")
