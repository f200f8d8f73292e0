"""A scorer of verl-omni: `path=pkg://sdg.integrations.verl_omni`, `name=compute_score`.

Its reward managers call it by keyword, one picture a call, many at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sdg.errors import SdgError
from sdg.integrations.picture_rewards import SERVER, PictureRewards


async def compute_score(
    solution_image: Any,
    ground_truth: str,
    server_url: str = SERVER,
    token_env: str | None = None,
    timeout: float = 300.0,
    max_retries: int = 5,
    on_failure: str = "nan",
    **_: Any,
) -> dict[str, float]:
    """`score`, and for the log `defects`, `severity` and `unscored`, of one picture asked of `sdg serve`.

    solution_image: (3, H, W) uint8, or one of (1, 3, H, W); ground_truth: the prompt. What is not known is
    NaN: their trainer skips an update whose gradient is not finite. on_failure="raise" raises SdgError in
    its place, which stops the run where the reward is `required: true`; where it is not,
    their manager would take 0, so leave "nan" there.
    """
    if on_failure not in ("nan", "raise"):
        raise SdgError(f"on_failure is nan or raise, not {on_failure!r}.")
    picture = solution_image
    if getattr(picture, "ndim", 3) == 4:
        if len(picture) != 1:
            raise SdgError("SDG rewards pictures; this is a video.")
        picture = picture[0]
    found = await _rewards(server_url, token_env, float(timeout), int(max_retries)).one(picture, ground_truth)
    if found.reward is None and on_failure == "raise":
        raise SdgError(f"A picture could not be scored: {found.error}")
    nothing = float("nan")
    return {
        "score": found.value,
        "defects": nothing if found.defects is None else float(found.defects),
        "severity": nothing if found.severity is None else found.severity,
        "unscored": float(found.reward is None),
    }


@cache
def _rewards(server_url: str, token_env: str | None, timeout: float, max_retries: int) -> PictureRewards:
    return PictureRewards(server_url, token_env=token_env, timeout=timeout, attempts=max_retries + 1)
