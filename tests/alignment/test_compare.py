"""The table of a comparison, by worked numbers, and its intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plain_recipe import RECIPE
from safetensors.torch import save_file

from sdg.alignment.compare import diversity, parse_adapters, tabulate, untrained
from sdg.alignment.measures import measure_journal
from sdg.alignment.recipe import AlignRecipe
from sdg.errors import SdgError
from sdg.models.lora import WEIGHTS
from sdg.recipes import to_document


def test_changes_are_relative_to_base_and_averaged_over_scorers() -> None:
    base = [{"a": 10.0, "b": -2.0, "d": 3.0}, {"a": 20.0, "b": -2.0, "d": 1.0}]
    other = [{"a": 12.0, "b": -1.0, "d": None}, {"a": 21.0, "b": -1.0, "d": 1.0}]
    result = tabulate({"base": base, "x": other}, ["a", "b"], bootstrap=200)
    cells = result.cells["x"]
    assert cells["a"].mean == 16.5
    assert cells["a"].change == pytest.approx(0.1)
    assert cells["b"].change == pytest.approx(0.5)  # towards 0 from below is more
    assert (cells["d"].mean, cells["d"].known) == (1.0, 1)
    assert result.averages["x"] == pytest.approx(0.3)
    assert result.averages["base"] == 0
    # Both resamples of two prompts, paired: +20 % and +5 %.
    assert cells["a"].change_interval == pytest.approx((0.05, 0.2))
    assert "16.500 [12.000, 21.000] (+10.0 %)" in result.table()


def test_a_change_is_over_what_is_known_of_both() -> None:
    # The same values, and of the second none where they are high: no change.
    base = [{"a": 1.0}, {"a": 2.0}, {"a": 9.0}]
    other = [{"a": 1.0}, {"a": 2.0}, {"a": None}]
    result = tabulate({"base": base, "x": other}, ["a"], bootstrap=200)
    cell = result.cells["x"]["a"]
    assert (cell.mean, cell.known, cell.change) == (1.5, 2, 0.0)
    assert cell.change_interval == (0.0, 0.0)
    assert result.cells["base"]["a"].mean == 4.0


def test_an_interval_holds_the_mean_and_narrows_with_more_prompts() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (20, 500):
        rows = [{"a": float(value)} for value in rng.normal(5, 1, count)]
        cell = tabulate({"base": rows}, ["a"], bootstrap=500).cells["base"]["a"]
        assert cell.interval is not None
        assert cell.mean is not None
        assert cell.interval[0] < cell.mean < cell.interval[1]
        widths.append(cell.interval[1] - cell.interval[0])
    assert widths[1] == pytest.approx(2 * 1.96 / 500**0.5, rel=0.25)
    assert widths[1] < widths[0] / 3


def test_samples_of_one_prompt_are_resampled_together() -> None:
    # Within a prompt samples are equal, so two of each tell no more than one.
    values = [0.0, 1.0, 2.0, 3.0]
    once = tabulate({"base": [{"a": v} for v in values]}, ["a"], bootstrap=400)
    twice = tabulate({"base": [{"a": v} for v in values for _ in (0, 1)]}, ["a"], samples=2, bootstrap=400)
    assert once.cells["base"]["a"].interval == twice.cells["base"]["a"].interval


@pytest.mark.parametrize("text", ["x", "=a", "base=a", "x=/nowhere"])
def test_adapters_are_named_folders(text: str) -> None:
    with pytest.raises(SdgError):
        parse_adapters([text])


def test_adapters_that_change_nothing_are_named(tmp_path: Path) -> None:
    for name, moved in (("best", 0.0), ("final", 0.1)):
        (tmp_path / name).mkdir()
        outer = torch.tensor([[0.0], [moved]])
        layers = {"transformer.x.lora_A.weight": torch.ones(1, 2), "transformer.x.lora_B.weight": outer}
        save_file(layers, tmp_path / name / WEIGHTS)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text("{}")
    assert untrained({name: tmp_path / name for name in ("best", "final", "whole")}) == ["best"]


def test_diversity_is_the_distance_to_the_other_pictures_of_a_prompt() -> None:
    greys = [Image.new("RGB", (96, 128), (value,) * 3) for value in (0, 255, 51, 7, 7)]
    found = diversity(greys, [0, 0, 0, 1, 2])
    assert found[:3] == pytest.approx([0.6, 0.9, 0.5])  # of distances 1, 0.2 and 0.8
    assert found[3:] == [None, None]
    assert diversity([greys[3], greys[4]], [4, 4]) == [0, 0]


def test_a_comparison_goes_on_with_the_same_models_wherever_their_servers_are(tmp_path: Path) -> None:
    def asking(uri: str, max_failed: float) -> AlignRecipe:
        return replace(RECIPE, reward=replace(RECIPE.reward, detector=uri, max_failed=max_failed))

    def measured(recipe: AlignRecipe, *, resume: bool) -> int:
        settings = {"recipe": to_document(recipe)}
        with measure_journal(tmp_path, {"base": None}, settings, total=1, batch=1, resume=resume) as journal:
            for start in (todo := journal.todo("base")):
                journal.add("base", start, [{"reward": 1.0}], {})
            return len(todo)

    assert measured(asking("openai:http://node1:8000/v1#m", 0.1), resume=False) == 1
    assert measured(asking("openai:http://node2:8000/v1?timeout=900#m", 0.9), resume=True) == 0
    with pytest.raises(SdgError, match=r"reward\.detector was .openai:#m. and is .openai:#n. now"):
        measured(asking("openai:http://node2:8000/v1#n", 0.9), resume=True)
