"""Measuring the models: counts against hand-made records, intervals that know about prompts, resuming."""

import numpy as np
import pytest
from scipy.stats import binomtest

from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.records import Record
from sdg.testbed.models import measure
from sdg.testbed.models.generator import sampling
from sdg.testbed.models.measure import GeneratorQuality, Rate, defect_rates, measure_generator, measure_scorer


def record(number, prompt, *subtypes):
    kinds = {"smear": "artifact", "ghost copy": "artifact", "wrong colour": "misalignment"}
    defects = tuple(Defect((0, 0, 100, 100), kinds[name], "", 50, name) for name in subtypes)
    return Record(f"{number}.png", prompt, Diagnosis(defects))


def test_rates_are_shares_of_pictures_and_numbers_a_picture():
    records = [
        record(0, "a"),
        record(1, "b", "smear", "smear", "ghost copy"),
        record(2, "c", "smear", "wrong colour"),
        record(3, "d"),
    ]
    rates = {rate.name: rate for rate in defect_rates(records)}
    assert list(rates) == ["clean", "misalignment", "wrong colour", "artifact", "smear", "ghost copy"]
    assert {name: (rate.share, rate.per_picture) for name, rate in rates.items()} == {
        "clean": (0.5, 0.5),
        "misalignment": (0.25, 0.25),
        "wrong colour": (0.25, 0.25),
        "artifact": (0.5, 1.0),
        "smear": (0.5, 0.75),
        "ghost copy": (0.25, 0.25),
    }
    assert all(rate.low <= rate.share <= rate.high for rate in rates.values())
    assert rates["smear"].type == rates["artifact"].type == "artifact"
    assert rates["clean"].type is None


def test_the_interval_is_that_of_a_proportion_and_wider_where_pictures_share_prompts():
    rng = np.random.default_rng(0)
    bad = rng.random(400) < 0.3
    alone = defect_rates([record(i, str(i), *["smear"] * int(b)) for i, b in enumerate(bad)])
    artifact = next(rate for rate in alone if rate.name == "artifact")
    bounds = binomtest(int(bad.sum()), 400).proportion_ci()
    assert artifact.low == pytest.approx(bounds.low, abs=0.015)
    assert artifact.high == pytest.approx(bounds.high, abs=0.015)
    # Four equal pictures of each prompt tell no more than one does.
    fours = defect_rates([record(i, str(i // 4), *["smear"] * int(bad[i // 4])) for i in range(1600)])
    four = next(rate for rate in fours if rate.name == "artifact")
    assert four.high - four.low == pytest.approx(
        2 * 1.96 * np.sqrt(four.share * (1 - four.share) / 400), rel=0.1
    )


def test_both_types_are_listed_even_where_nothing_is_wrong():
    rates = defect_rates([record(0, "a"), record(1, "b")])
    assert [(rate.name, rate.share) for rate in rates] == [("clean", 1), ("misalignment", 0), ("artifact", 0)]


def test_the_table_shows_every_rate_and_the_time():
    rates = (
        Rate("clean", None, 0.5, 0.4, 0.6, 0.5),
        Rate("artifact", "artifact", 0.25, 0.2, 0.3, 0.4),
        Rate("smear", "artifact", 0.125, 0.1, 0.15, 0.2),
    )
    quality = GeneratorQuality(500, 1000, 20, 7.25, rates)
    table = quality.table()
    assert "1,000 pictures of 500 held-out prompts, 20 sampling steps" in table
    assert "| **clean** | 50.0 % | 40.0–60.0 % |  |" in table
    assert "| **artifact** | 25.0 % | 20.0–30.0 % | 0.40 |" in table
    assert "| smear | 12.5 % | 10.0–15.0 % | 0.20 |" in table
    assert "16 pictures take 7.2 s" in table


@pytest.fixture
def pipeline(tmp_path, monkeypatch, draw_like_a_generator):
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr("sdg.testbed.models.packaged.load_generator", lambda folder, lora=None: None)
    monkeypatch.setattr(sampling, "sample_pictures", draw_like_a_generator)
    monkeypatch.setattr(measure, "time_sampling", lambda *args: 1.5)
    return folder


def test_a_generator_that_fails_on_every_fifth_picture_is_measured_so(tmp_path, pipeline, monkeypatch):
    out = tmp_path / "measured"
    told = []
    quality = measure_generator(out, pipeline=pipeline, prompts=60, seeds=2, steps=4, on_progress=told.append)
    assert told == [100, 120]
    assert (quality.prompts, quality.pictures, quality.seconds) == (60, 120, 1.5)
    shares = {rate.name: rate.share for rate in quality.rates}
    assert shares["clean"] == pytest.approx(0.8, abs=0.03)
    assert shares["misalignment"] == pytest.approx(0.2, abs=0.03)

    def refusing(*args, **settings):
        raise AssertionError("nothing is left to draw")

    monkeypatch.setattr(sampling, "sample_pictures", refusing)
    assert measure_generator(out, pipeline=pipeline, prompts=60, seeds=2, steps=4) == quality
    with pytest.raises(SdgError, match="was begun with other settings"):
        measure_generator(out, pipeline=pipeline, prompts=60, seeds=2, steps=5)


def test_out_of_time_it_says_so_and_goes_on(tmp_path, pipeline):
    out = tmp_path / "measured"
    assert measure_generator(out, pipeline=pipeline, prompts=5, seeds=2, max_minutes=0) is None
    assert measure_generator(out, pipeline=pipeline, prompts=5, seeds=2).pictures == 10


def test_the_scorer_is_measured_with_intervals(monkeypatch):
    monkeypatch.setattr("sdg.testbed.models.packaged.load_scorer", lambda folder: (None, None))
    monkeypatch.setattr(
        "sdg.testbed.models.scorer.retrieval_accuracy", lambda *args, count, seed: {"among all": 0.75}
    )
    quality = measure_scorer(scenes=200)
    share, low, high = quality.accuracy["among all"]
    assert share == 0.75
    assert (low, high) == pytest.approx((0.686, 0.805), abs=0.001)  # Wilson's interval of 150 in 200
    assert "| among all | 75.0 % | 68.6–80.5 % |" in quality.table()
    with pytest.raises(ValueError, match="no even number"):
        measure_scorer(scenes=3)
