"""A reward model of Flow-Factory: `reward_model: sdg.integrations.flow_factory.SdgRewardModel`.

It is a group-wise one, as their trainers average over all rewards of a group and know no missing one: a
picture that could not be scored gets the mean of its group's others, whose advantage is 0.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from flow_factory.rewards.abc import GroupwiseRewardModel, RewardModelOutput

from sdg.errors import SdgError
from sdg.integrations.picture_rewards import SERVER, PictureRewards

_LOG = logging.getLogger("sdg.integrations")


class SdgRewardModel(GroupwiseRewardModel):
    """R of a group's pictures, from `sdg serve` or from a detector in the training process.

    Further keys of the reward in their YAML: `server_url` (or `detector` and `scorers`, URIs), `token_env`,
    `timeout`, `retry_attempts` (in all, 1 for no retry).
    """

    required_fields = ("prompt", "image")
    use_tensor_inputs = False

    def __init__(self, config: Any, accelerator: Any) -> None:
        super().__init__(config, accelerator)
        detector: str | None = getattr(config, "detector", None)
        server: str = getattr(config, "server_url", SERVER)
        self._rewards = PictureRewards(
            detector or server,
            scorers=getattr(config, "scorers", ()),
            device=str(self.device) if detector else "cpu",
            token_env=getattr(config, "token_env", None),
            batch=config.batch_size,
            timeout=getattr(config, "timeout", 300.0),
            attempts=getattr(config, "retry_attempts", 6),
        )

    @torch.no_grad()
    def __call__(self, prompt: list[str], image: list[Any] | None = None) -> RewardModelOutput:
        """Rewards in the group's order, (group,); raises SdgError where none of it could be scored."""
        if image is None:
            raise SdgError("SDG rewards pictures; this trainer's samples have none.")
        found = self._rewards(image, prompt)
        values = torch.tensor([one.value for one in found], dtype=torch.float32)
        unknown = values.isnan()
        if unknown.all():
            raise SdgError(f"No picture of a group of {len(found)} could be scored: {found[0].error}")
        if unknown.any():
            _LOG.warning(
                "%d of %d pictures of a group could not be scored and count as its mean: %s",
                int(unknown.sum()),
                len(found),
                next(one.error for one in found if one.reward is None),
            )
            values[unknown] = values[~unknown].mean()
        return RewardModelOutput(
            rewards=values.to(self.device),
            extra_info={"severity": [one.severity for one in found], "scored": (~unknown).tolist()},
        )
