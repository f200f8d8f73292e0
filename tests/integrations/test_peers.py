"""Adapters of other trainers against what these do with a reward: what has none is never taken for clean."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peers import (
    FLOW_FACTORY,
    FLOW_GRPO,
    UNIRL,
    PerPromptStatTracker,
    RewardArguments,
    flow_factory_advantages,
    flow_grpo_epoch,
    flow_grpo_evaluation,
    installed,
    unirl_rewards,
    verl_omni_rewards,
)
from served import RedDetector, plain, served

from sdg.errors import SdgError
from sdg.integrations import flow_grpo, verl_omni
from sdg.integrations.picture_rewards import PictureRewards

SIZE = (16, 8)
REDS = (20, 40, 255, 10)  # rewards −0.2, −0.4, none, −0.1


def tensor(reds: tuple[int, ...]) -> torch.Tensor:
    """Pictures as a trainer has them, (B, 3, H, W) from 0 to 1."""
    return torch.stack([torch.tensor(np.asarray(plain(red, SIZE))).permute(2, 0, 1) for red in reds]) / 255


def test_flow_factory_gives_the_unscored_no_advantage() -> None:
    with served(RedDetector()) as url, installed(FLOW_FACTORY):
        from sdg.integrations.flow_factory import SdgRewardModel

        accelerator = SimpleNamespace(device=torch.device("cpu"))
        model = SdgRewardModel(RewardArguments(server_url=url, batch_size=2), accelerator)
        groups = [(["a cat"] * 4, [plain(red) for red in REDS]), (["a dog"] * 2, [plain(0), plain(30)])]
        for global_std in (False, True):
            first, second = flow_factory_advantages(model, groups, 2.0, global_std)
            assert first[2] == pytest.approx(0, abs=1e-6)
            assert first[1] < first[0] < first[3]
            assert second[0] == pytest.approx(-second[1])
            assert second[0] > 0
        output = model(["a cat"] * 4, [plain(red) for red in REDS])
        assert output.extra_info == {"severity": [0.2, 0.4, None, 0.1], "scored": [True, True, False, True]}
        with pytest.raises(SdgError, match="No picture of a group of 2 could be scored: This picture is too"):
            model(["a cat"] * 2, [plain(255)] * 2)


def test_flow_grpo_trains_on_no_unscored_sample_and_evaluates_without_them() -> None:
    prompts = ["a cat"] * 4 + ["a dog"] * 2
    images = tensor((*REDS, 255, 30))
    with served(RedDetector()) as url:
        rewards = PictureRewards(url)
        alone = flow_grpo.multi_score("cpu", {"sdg": 1.0}, rewards)
        for global_std in (False, True):
            tracker = PerPromptStatTracker(global_std)
            wanted = PerPromptStatTracker(global_std).update(
                ["a cat"] * 3 + ["a dog"], [-0.2, -0.4, -0.1, -0.3]
            )
            advantages, trained = flow_grpo_epoch(alone, flow_grpo.KnownOnly(tracker), images, prompts, 3)
            np.testing.assert_allclose(advantages[[0, 1, 3, 5]], np.tile(wanted[:, None], 3), atol=1e-5)
            assert trained.tolist() == [True, True, False, True, False, False]  # a group of one has nothing
        with installed(FLOW_GRPO):
            both = flow_grpo.multi_score("cpu", {"brightness": 0.5, "sdg": 2.0}, rewards)
        scores, _ = both(images, prompts, [{}] * 6)
        brightness = images.mean((1, 2, 3)).numpy()
        np.testing.assert_allclose(scores["avg"][:2], 0.5 * brightness[:2] + [-0.4, -0.8], rtol=1e-5)
        assert np.isnan(scores["avg"][[2, 4]]).all()
        assert np.isnan(scores["sdg"][[2, 4]]).all()
        found = flow_grpo_evaluation(both, images, prompts)
        known = [0, 1, 3, 5]
        assert found["sdg"] == pytest.approx(-0.25)
        assert found["avg"] == pytest.approx(float(0.5 * brightness[known].mean()) - 0.5)
        assert found["brightness"] == pytest.approx(float(brightness.mean()))
        # As their batches of NumPy arrays come, (B, H, W, 3) of uint8.
        again, _ = alone((images * 255).round().byte().permute(0, 2, 3, 1).numpy(), prompts, {})
        np.testing.assert_allclose(again["sdg"][known], [-0.2, -0.4, -0.1, -0.3])


@pytest.mark.parametrize("required", [True, False])
def test_verl_omni_gets_nan_and_never_0(required: bool) -> None:
    pictures = list((tensor(REDS) * 255).round().byte())
    prompts = ["a cat"] * len(pictures)
    with served(RedDetector()) as url:
        asked = verl_omni_rewards(verl_omni.compute_score, pictures, prompts, required, server_url=url)
        rewards = asyncio.run(asked)
        assert rewards == [-0.2, -0.4, pytest.approx(math.nan, nan_ok=True), -0.1]
        found = asyncio.run(verl_omni.compute_score(pictures[1][None], "a cat", url, extra_info={}))
        assert found == {"score": -0.4, "defects": 1.0, "severity": 0.4, "unscored": 0.0}
        failing = {"server_url": url, "on_failure": "raise"}
        if required:
            with pytest.raises(RuntimeError, match="could not be scored: This picture is too red"):
                asyncio.run(verl_omni_rewards(verl_omni.compute_score, pictures, prompts, True, **failing))
        with pytest.raises(SdgError, match="this is a video"):
            asyncio.run(verl_omni.compute_score(torch.stack(pictures), "a cat", url))


def test_verl_omni_survives_a_server_that_is_gone() -> None:
    with served(RedDetector()) as url:
        pass
    pictures = list((tensor(REDS) * 255).round().byte())
    asked = verl_omni_rewards(
        verl_omni.compute_score, pictures, ["a cat"] * 4, False, server_url=url, max_retries=0
    )
    assert all(map(math.isnan, asyncio.run(asked)))


def test_unirl_stops_the_step_with_the_reason() -> None:
    with served(RedDetector()) as url, installed(UNIRL):
        from sdg.integrations.unirl import SdgBackend

        backend = SdgBackend(base_url=url, base_device="cuda")
        assert backend.is_available()
        rewards = unirl_rewards(backend, [plain(20), plain(0)], ["a cat"] * 2)
        np.testing.assert_allclose(rewards, [-0.2, 0.0], atol=1e-6)
        with pytest.raises(RuntimeError, match=r"1 of 4 failed: \[\(2, 'This picture is too red"):
            unirl_rewards(backend, [plain(red) for red in REDS], ["a cat"] * 4)
        response = backend.compute_rewards(SimpleNamespace(images=[plain(20)], prompts=["a cat"]))
        assert response.component_rewards == {"sdg_severity": [-0.2]}
