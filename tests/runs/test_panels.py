"""Panels of boxes: what W&B and TensorBoard get of each picture, and how many at most."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from PIL import Image
from strategies import defects

from sdg.defects import Defect, Diagnosis
from sdg.runs.log import MOST, Panel, track_panels, wandb_boxes

FOUND = Diagnosis((Defect((100, 200, 400, 600), "misalignment", "The hat is blue.", 35),))


def panels(count: int) -> list[Panel]:
    return [Panel(Image.new("RGB", (64, 48), (200, 10, 10)), "a cat", FOUND) for _ in range(count)]


@given(defects)
def test_a_box_of_wandb_says_what_the_defect_does(defect: Defect) -> None:
    boxes = wandb_boxes(Diagnosis((defect,)))["defects"]
    (box,) = boxes["box_data"]
    place = box["position"]
    assert [round(1000 * place[key]) for key in ("minX", "minY", "maxX", "maxY")] == list(defect.box)
    assert boxes["class_labels"][box["class_id"]] == defect.type
    assert box.get("scores", {}).get("importance") == defect.importance
    assert box["box_caption"]


def test_a_picture_of_which_nothing_is_known_has_no_boxes_and_does_not_look_clean() -> None:
    assert wandb_boxes(None) is None
    assert wandb_boxes(Diagnosis())["defects"]["box_data"] == []


def test_tensorboard_gets_overlays_and_no_more_than_a_step_may_have(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from accelerate import Accelerator
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerator = Accelerator(log_with="tensorboard", project_dir=str(tmp_path), cpu=True)
    accelerator.init_trackers("run")
    track_panels(accelerator.trackers, panels(MOST + 3), 7)
    accelerator.end_training()
    read = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    tags = read.Tags()["images"]
    assert len(tags) == MOST
    (event,) = read.Images("samples/0")
    assert event.step == 7
    assert event.width > 768, "the overlay with its legend"


def test_tensorboard_does_not_say_of_what_is_not_known_that_it_has_no_defects() -> None:
    shown: list[np.ndarray] = []
    writer = SimpleNamespace(add_image=lambda tag, pixels, step, dataformats: shown.append(pixels))
    picture = Image.new("RGB", (16, 16), "white")
    given = [Panel(picture, "a cat", Diagnosis()), Panel(picture, "a cat", None)]
    track_panels([SimpleNamespace(name="tensorboard", writer=writer)], given, 0)
    clean, unknown = shown
    assert clean.shape != unknown.shape
    assert (unknown == 255).all()  # the picture alone


def test_wandb_gets_images_with_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    logged: list[tuple[dict, int]] = []

    class Tracker:
        name = "wandb"

        class tracker:
            @staticmethod
            def log(values: dict, step: int) -> None:
                logged.append((values, step))

    track_panels([Tracker()], panels(2), 3)
    ((values, step),) = logged
    assert step == 3
    assert len(values["samples"]) == 2
    assert isinstance(values["samples"][0], wandb.Image)
    assert np.asarray(values["samples"][0].image).shape == (48, 64, 3)
