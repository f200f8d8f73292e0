"""What belongs to the testbed's world, and what its detector says of the rest."""

import numpy as np
import pytest
from PIL import Image

from sdg.defects import Status
from sdg.detectors import load_detector
from sdg.prompting import PROFILE_FILE
from sdg.testbed.injection import sample
from sdg.testbed.models import packaged as weights
from sdg.testbed.models.detector.build import new_model
from sdg.testbed.models.detector.embedded import background_share, ood_reason
from sdg.testbed.models.detector.rows import base_tokenizer
from sdg.testbed.models.detector.speak import save_base


def noise(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 160, 3), np.uint8))


@pytest.mark.parametrize("level", ["core", "rich"])
def test_injected_pictures_are_of_this_world(level):
    rng = np.random.default_rng(2)
    for _ in range(60):
        one = sample(rng, level)
        assert ood_reason(Image.fromarray(one.picture), one.prompt) == ""


def test_another_prompt_or_another_picture_is_not():
    one = sample(np.random.default_rng(4), kind="clean")
    assert "prompt" in ood_reason(Image.fromarray(one.picture), "A cat on a sofa")
    assert "background" in ood_reason(noise(), one.prompt)


def test_the_share_of_the_background_is_counted():
    picture = Image.new("RGB", (64, 64), (10, 120, 200))
    picture.paste((250, 250, 250), (0, 0, 64, 16))  # a quarter, far away
    picture.paste((20, 130, 190), (0, 16, 64, 32))  # a quarter, close by
    assert background_share(picture) == pytest.approx(0.75)


def test_the_embedded_detector_fails_on_another_world_and_answers_the_rest(tmp_path, monkeypatch):
    tokenizer = base_tokenizer()
    folder = tmp_path / "detector"
    save_base(new_model(tokenizer), tokenizer, folder)
    profile = folder / PROFILE_FILE
    profile.write_text(profile.read_text().replace("max_new_tokens = 384", "max_new_tokens = 24"))
    monkeypatch.setattr(weights, "DETECTOR", folder)
    one = sample(np.random.default_rng(4), kind="clean")
    known = (Image.fromarray(one.picture), one.prompt)
    detector = load_detector("testbed")
    found = dict(detector.stream([(noise(), "A cat"), known, (tmp_path / "none.png", "a red ring")]))
    assert sorted(found) == [0, 1, 2]
    assert found[0].status is Status.FAILED
    assert "knows only the testbed" in found[0].error
    assert found[2].status is Status.FAILED
    assert "knows only" not in found[1].error
    assert detector.identity["detector"] == "testbed"
    (same,) = load_detector(str(folder)).diagnose([known])
    assert found[1] == same
