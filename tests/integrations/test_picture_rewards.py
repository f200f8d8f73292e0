"""Rewards of pictures by a server and in this process: the same ones, and none for what is not known."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from served import RedDetector, plain, served

from sdg.errors import SdgError
from sdg.integrations import picture_rewards
from sdg.integrations.picture_rewards import PictureRewards, as_picture
from sdg.scorers import FunctionScorer

LIGHT, SCORER = "python:light.bright", "python:red_scorer.red"


def half_red(pictures: list, prompts: list) -> list[float | None]:
    reds = [picture.getpixel((0, 0))[0] for picture in pictures]
    return [None if red == 40 else red / 2 for red in reds]


def test_a_server_says_what_is_known_of_each_picture(caplog: pytest.LogCaptureFixture) -> None:
    pictures = [plain(20), plain(255), plain(253), plain(0), plain(60)]
    with served(RedDetector()) as url, caplog.at_level(logging.WARNING, "sdg.integrations"):
        found = PictureRewards(url, grid=(2, 2), batch=2)(pictures, ["a cat"] * 5)
    assert [one.reward for one in found] == [-0.2, None, None, 0.0, pytest.approx(-1.1)]
    assert [one.defects for one in found] == [1, None, None, 0, 2]
    assert found[1].error == "This picture is too red."
    assert found[2].error.endswith("cannot be read.")
    assert found[4].artifact is not None
    assert found[4].misalignment is not None
    np.testing.assert_allclose(found[4].artifact, [[0.6, 0.0], [0.6, 0.0]])
    np.testing.assert_allclose(found[4].misalignment, [[0.0, 0.5], [0.0, 0.0]])
    assert found[1].artifact is None
    assert np.isnan(found[1].value)
    assert "1 of 2 pictures have no reward: This picture is too red." in caplog.text


@pytest.mark.parametrize("grid", [(0, 2), "ab", (300, 300), (2,), (2.0, 2), (True, 2), 4])
@pytest.mark.parametrize("source", ["http://127.0.0.1:9", LIGHT])
def test_a_grid_that_is_none_is_refused_at_once(source: str, grid: Any) -> None:
    with pytest.raises(SdgError, match=r"A grid is \(H, W\), each from 1 to 256, not "):
        PictureRewards(source, grid=grid)


def test_a_servers_scorer_can_fail_apart_from_its_detector() -> None:
    with served(RedDetector(), [FunctionScorer(half_red)]) as url:
        good, unscored, undetected = PictureRewards(url)([plain(20), plain(40), plain(255)], ["a cat"] * 3)
    assert (good.reward, good.severity, good.error) == (10.0, 0.2, "")
    assert (unscored.reward, unscored.severity) == (None, 0.4)
    assert unscored.error
    assert (undetected.reward, undetected.severity) == (127.5, None)
    assert undetected.error


def test_in_this_process_as_through_a_server() -> None:
    pictures = [plain(0, (4, 4)), plain(200, (4, 4))]
    rewards = PictureRewards(LIGHT, grid=(1, 2))
    clean, bright = rewards(pictures, ["a cat", "a dog"])
    assert (clean.reward, clean.defects) == (-0.0, 0)
    assert bright.defects == 1
    assert bright.reward == -bright.severity
    assert bright.severity > 0
    assert bright.artifact is not None
    assert bright.artifact[0, 0] == bright.severity
    scored = PictureRewards(LIGHT, scorers=[SCORER, SCORER])(pictures, ["a cat", "a dog"])
    assert scored[1].severity == bright.severity
    assert scored[1].reward != bright.reward


def test_what_is_no_picture_costs_itself_alone() -> None:
    broken = torch.full((3, 4, 4), torch.nan)
    rounded = torch.full((3, 4, 4), 1.0005, dtype=torch.bfloat16)
    with served(RedDetector()) as url:
        found = PictureRewards(url)([broken, plain(20), "nowhere.png", plain(20)], ["a", "a", "a", 5])
    assert [one.reward for one in found] == [None, -0.2, None, None]
    assert all(one.error for one in (found[0], found[2], found[3]))
    assert as_picture(rounded).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(SdgError, match=r"is \(3, H, W\), not"):
        as_picture(torch.zeros(5, 4, 3))


def test_a_server_that_is_gone_or_full_leaves_all_unknown_and_one_that_refuses_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(RedDetector(), token="secret") as url:
        with pytest.raises(SdgError, match=r"answers no such request here: .*401.* Start one with"):
            PictureRewards(url)([plain(1)], ["a"])
        monkeypatch.setenv("SDG_TOKEN", "secret")
        assert PictureRewards(url, token_env="SDG_TOKEN")([plain(20)], ["a"])[0].reward == -0.2
    (gone,) = PictureRewards(url, attempts=1, token_env="SDG_TOKEN")([plain(1)], ["a"])
    assert gone.reward is None
    assert gone.error
    with served(RedDetector(), most=1) as url:
        found = PictureRewards(url, attempts=1, batch=2)([plain(1)] * 3, ["a"] * 3)
        assert [one.reward for one in found] == [None, None, -0.01]


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("hf:ORG/NAME", {"device": "cpu"}),
        ("hf:ORG/NAME?device=cuda:7", {}),
        ("openai:http://localhost:8000/v1#m", {}),
        ("union:ocr|testbed", {}),
        (LIGHT, {}),
    ],
)
def test_a_detector_that_takes_a_device_and_names_none_gets_that_of_the_trainer(
    source: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[dict[str, str]] = []
    monkeypatch.setattr(picture_rewards, "BatchDiagnoser", lambda uri, **options: got.append(options))
    PictureRewards(source, device="cpu")
    assert got == [given]


def test_settings_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDG_TOKEN", raising=False)
    with pytest.raises(SdgError, match="A server has scorers of its own"):
        PictureRewards(scorers=["ocr"])
    with pytest.raises(SdgError, match="The environment variable SDG_TOKEN is not set"):
        PictureRewards(token_env="SDG_TOKEN")
    with pytest.raises(
        SdgError, match="A server is asked in one attempt or more, not 0; 1 is without retries"
    ):
        PictureRewards(attempts=0)
