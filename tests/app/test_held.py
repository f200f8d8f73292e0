"""Models in memory: how many threads the embedded ones get, and looks that are sampled."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from sdg.app.held import Held
from sdg.app.offer import Offer
from sdg.errors import SdgError

SAMPLING = "python:app_models.Sampling"


@pytest.mark.parametrize(
    ("offer", "threads"),
    [(Offer(), "1"), (Offer(("testbed?looks=4",), ()), "1"), (Offer(("testbed", "hf:a/b")), None)],
)
def test_an_app_of_the_embedded_world_alone_works_on_one_thread(
    monkeypatch: pytest.MonkeyPatch, offer: Offer, threads: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Held(offer)
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_a_number_of_threads_that_was_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    Held(Offer())
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_looks_and_threshold_decide_what_is_found() -> None:
    held, picture = Held(Offer((SAMPLING,), ())), Image.new("RGB", (32, 32))

    def found(looks: int, agree: float) -> int:
        with held.detector(SAMPLING, looks, agree) as detector:
            (diagnosis,) = detector.diagnose([(picture, "a cat")])
        return len(diagnosis.defects)

    assert [found(1, 0.2), found(4, 0.2), found(4, 0.375), found(4, 0.9)] == [1, 3, 2, 1]


def test_a_model_that_was_not_offered_is_refused() -> None:
    with pytest.raises(SdgError, match="no detector of this app"), Held(Offer()).detector("hf:a/b"):
        pass
