"""A reward backend of UniRL: `_target_: sdg.integrations.unirl.SdgBackend` under `reward.backend`.

UniRL has a flag of success for each sample: what could not be scored is flagged, and its `RewardService`
stops the step with our sentence.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from unirl.reward.base import RewardBackend
from unirl.types.reward import RewardRequest, RewardResponse

from sdg.errors import SdgError
from sdg.integrations.picture_rewards import SERVER, PictureRewards


class SdgBackend(RewardBackend):
    """R of a request's pictures, from `sdg serve` at `base_url`, or from a detector in this process.

    detector, scorers: URIs, in place of a server; they run on `base_device`. max_retries: attempts in all, as
    UniRL's own backends count.
    """

    input_kind = "image"

    def __init__(
        self,
        *,
        base_url: str = SERVER,
        detector: str | None = None,
        scorers: Sequence[str] = (),
        base_device: str = "cpu",
        token_env: str | None = None,
        batch_size: int = 16,
        timeout: float = 300.0,
        max_retries: int = 6,
    ) -> None:
        super().__init__(model_name="sdg", batch_size=batch_size, timeout=timeout)
        self._rewards = PictureRewards(
            detector or base_url,
            scorers=list(scorers),
            device=str(base_device) if detector else "cpu",
            token_env=token_env,
            batch=batch_size,
            timeout=timeout,
            attempts=max_retries,
        )

    def compute_rewards(self, request: RewardRequest) -> RewardResponse:
        """Rewards, minus the severities as a component, and for each sample whether it could be scored."""
        if request.images is None:
            raise SdgError("SDG rewards pictures; this request has none.")
        begun = time.monotonic()
        found = self._rewards(request.images, request.prompts)
        nothing = float("nan")
        return RewardResponse(
            rewards=[one.value for one in found],
            component_rewards={
                "sdg_severity": [nothing if one.severity is None else -one.severity for one in found]
            },
            successes=[one.reward is not None for one in found],
            errors=[None if one.reward is not None else one.error for one in found],
            compute_time=time.monotonic() - begun,
        )

    def is_available(self) -> bool:
        """Always: a server that does not answer is waited for, and then said with the samples it cost."""
        return True
