"""The order of the stages, the tower each begins with, and the time they share."""

from pathlib import Path

import pytest

from sdg.errors import SdgError
from sdg.testbed.models.detector import speak as module
from sdg.testbed.models.detector.speak import pretrain


@pytest.fixture
def calls(monkeypatch):
    """What was trained: ("see", out, minutes) and ("speak", tower, minutes); each takes half an hour."""
    made, clock = [], [0.0]

    def see(model, run, **_):
        made.append(("see", run.out, run.max_minutes))
        clock[0] += 30 * 60

    def speak(tower, run, **_):
        made.append(("speak", tower, run.max_minutes))

    monkeypatch.setattr(module, "train_vision", see)
    monkeypatch.setattr(module, "train_language", speak)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    return made


def run(**settings):
    return pretrain(Path("run"), see_steps=1, speak_steps=1, **{"max_minutes": 100.0, **settings})


def test_both_stages_share_the_time_and_the_tower(calls):
    assert run() == Path("run/speak/detector")
    assert calls == [("see", Path("run/see"), 100.0), ("speak", Path("run/see/seeing"), 70.0)]


def test_a_stage_alone(calls):
    assert run(stage="see") == Path("run/see/seeing")
    assert run(stage="speak", seeing=Path("tower")) == Path("run/speak/detector")
    assert calls == [("see", Path("run/see"), 100.0), ("speak", Path("tower"), 100.0)]


def test_a_given_tower_is_not_trained_again(calls):
    run(seeing=Path("tower"))
    assert calls == [("speak", Path("tower"), 100.0)]


def test_no_time_left_is_said(calls):
    with pytest.raises(SdgError, match="--resume"):
        run(max_minutes=30.0)
    assert [call[0] for call in calls] == ["see"]
