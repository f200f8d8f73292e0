"""Rewards of generated pictures for other trainers: asked of `sdg serve`, or of models in this process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdg.defects import Defect, Diagnosis, Status
from sdg.detectors import BatchDiagnoser, needs_device
from sdg.errors import SdgError, quoted
from sdg.images import rgb_picture
from sdg.io.http import Refused, TryAgain, is_address
from sdg.io.picture_client import PictureClient, finite
from sdg.scorers.weighted import BatchScorer
from sdg.serve.bounds import LONGEST_SIDE, MOST_CELLS, is_grid
from sdg.serve.reward_rows import Rewarded, reward_rows

SERVER: Final = "http://127.0.0.1:8009"
"""Where `sdg serve` answers unless told otherwise."""
_LOG = logging.getLogger("sdg.integrations")


@dataclass(frozen=True, slots=True)
class PictureReward:
    """What is known of one picture; None where it is not, and then `error` says why.

    reward: R; defects: how many; severity: sum of their importances over 100; artifact, misalignment: W of
    SDG eq. 4, (H, W) from 0 to 1, where a grid was asked for. A detector and a scorer can fail apart.
    """

    reward: float | None
    defects: int | None = None
    severity: float | None = None
    artifact: NDArray[np.float64] | None = None
    misalignment: NDArray[np.float64] | None = None
    error: str = ""

    @property
    def value(self) -> float:
        """The reward, NaN where it is not known."""
        return float("nan") if self.reward is None else self.reward


class PictureRewards:
    """Rewards of pictures and their prompts; one that cannot be scored has none and is never an error.

    source: the address of an `sdg serve`, or a detector's URI, which then runs in this process, one call at a
    time. scorers: URIs whose sum is R (a server has its own); without any, R is minus the severity.
    grid: (H, W) of the maps wanted. token_env: the environment variable with the server's token.
    batch: pictures a request. timeout: seconds an attempt may take; attempts: in all, with growing pauses.
    Raises SdgError for settings that do not fit, and in a call for what concerns every picture: weights that
    do not load, a server without such a path or that wants another token.
    """

    def __init__(
        self,
        source: str = SERVER,
        *,
        scorers: Sequence[str] = (),
        device: str = "cpu",
        grid: tuple[int, int] | None = None,
        token_env: str | None = None,
        batch: int = 16,
        timeout: float = 300.0,
        attempts: int = 6,
        first_pause: float = 1.0,
    ) -> None:
        if grid is not None and not is_grid(grid):
            raise SdgError(f"A grid is (H, W), each from 1 to {LONGEST_SIDE}, not {quoted(grid)}.")
        self.source, self._grid, self._alone = source, grid, threading.Lock()
        self._client: PictureClient[PictureReward] | None = None
        if not is_address(source):
            options = {"device": device} if needs_device(source) else {}
            self._detector = BatchDiagnoser(source, **options)
            self._scorers = [BatchScorer(uri, device) for uri in scorers]
            return
        if scorers:
            raise SdgError("A server has scorers of its own: `sdg serve --detector URI --scorer URI`.")
        if attempts < 1:
            raise SdgError(f"A server is asked in one attempt or more, not {attempts}; 1 is without retries.")
        key = os.environ.get(token_env, "") if token_env else ""
        if token_env and not key:
            raise SdgError(f"The environment variable {token_env} is not set; it holds the server's token.")
        if grid is not None:
            batch = max(1, min(batch, MOST_CELLS // (2 * grid[0] * grid[1])))
        self._client = PictureClient(
            source.rstrip("/") + "/v1/reward",
            key,
            self._read,
            _lost,
            batch=batch,
            timeout=timeout,
            attempts=attempts,
            first_pause=first_pause,
            most_bytes=1 << 26,
            more={"grid": list(grid)} if grid is not None else None,
            advice="Start one with `sdg serve --detector URI`.",
            logger=_LOG,
        )

    def __call__(self, pictures: Sequence[Any], prompts: Sequence[str]) -> list[PictureReward]:
        """The reward of each picture, in order.

        pictures: PIL images, (H, W, 3) arrays, or (3, H, W) tensors of uint8 or floats from 0 to 1.
        """
        rewards, pairs, places = self._readable(pictures, prompts)
        if pairs:
            found = self._client.ask(pairs) if self._client is not None else self._here(pairs)
            for place, reward in zip(places, found, strict=True):
                rewards[place] = reward
        return rewards

    async def one(self, picture: Any, prompt: str) -> PictureReward:
        """The reward of one picture, for callers inside of an event loop."""
        rewards, pairs, _ = await asyncio.to_thread(self._readable, [picture], [prompt])
        if not pairs:
            return rewards[0]
        if self._client is not None:
            return await self._client.ask_one(*pairs[0])
        return (await asyncio.to_thread(self._here, pairs))[0]

    def _readable(
        self, pictures: Sequence[Any], prompts: Sequence[str]
    ) -> tuple[list[PictureReward], list[tuple[Image.Image, str]], list[int]]:
        """A place for each reward, what can be asked for, and where its rewards belong."""
        rewards, pairs, places = [], [], []
        for place, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            try:
                if not isinstance(prompt, str):
                    raise SdgError(f"A prompt is text, not {type(prompt).__name__}.")
                pairs.append((as_picture(picture), prompt))
                places.append(place)
                rewards.append(_lost(""))
            except SdgError as error:
                _LOG.warning("Picture %d has no reward: %s", place, error)
                rewards.append(_lost(str(error)))
        return rewards, pairs, places

    def _here(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[PictureReward]:
        batch: dict[str, list[Any]] = {
            "image": [picture for picture, _ in pairs],
            "prompt": [prompt for _, prompt in pairs],
        }
        with self._alone:  # a model in memory is not asked by two threads
            found = self._detector(batch)
            columns = [scorer(batch)["score"] for scorer in self._scorers]
        diagnoses = [
            Diagnosis(tuple(map(Defect.from_dict, defects)))
            if defects is not None
            else Diagnosis(status=Status.FAILED if error else Status.UNPARSEABLE, error=error or "")
            for defects, error in zip(found["defects"], found["error"], strict=True)
        ]
        totals = [
            Rewarded(None, "A scorer gave no score.") if None in scores else Rewarded(sum(scores))
            for scores in zip(*columns, strict=True)
        ]
        rewards = [_reward(row) for row in reward_rows(diagnoses, totals, self._grid)]
        for place, reward in enumerate(rewards):
            if reward.error:
                _LOG.warning("Picture %d: %s", place, reward.error)
        return rewards

    def _read(self, answer: bytes, count: int) -> list[PictureReward]:
        """The rewards of an answer; raises TryAgain where it is none, Refused where they are not as many."""
        try:
            items = json.loads(answer)["items"]
            rewards = [_reward(item) for item in items]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise TryAgain("The server's answer holds no rewards") from None
        if len(rewards) != count:
            raise Refused(f"The server gave {len(rewards)} rewards for {count} pictures.")
        if lost := [reward.error for reward in rewards if reward.reward is None]:
            _LOG.warning("%d of %d pictures have no reward: %s", len(lost), count, lost[0])
        return rewards


def as_picture(image: Any) -> Image.Image:
    """A picture of a trainer as 8-bit RGB; raises SdgError where it is none, such as for NaN.

    Floats may leave 0 to 1 by rounding, up to 1e-3, as decoders leave them.
    """
    if hasattr(image, "detach"):  # a tensor: (3, H, W)
        tensor = image.detach().cpu()
        image = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        if image.ndim != 3 or image.shape[0] not in (3, 4):
            raise SdgError(f"A tensor of pixels is (3, H, W), not {quoted(tuple(image.shape))}.")
        image = image.transpose(1, 2, 0)
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        if not (image.min(initial=0) >= -1e-3 and image.max(initial=0) <= 1.001):
            raise SdgError("A picture of floats holds values from 0 to 1.")
        image = image.clip(0, 1)
    return rgb_picture(image)


def _lost(reason: str) -> PictureReward:
    return PictureReward(None, error=reason)


def _reward(row: Mapping[str, Any]) -> PictureReward:
    """A row of `/v1/reward`; what is no finite number is not known."""
    maps = row.get("maps") or {}
    artifact, misalignment = (
        None if maps.get(kind) is None else np.asarray(maps[kind], np.float64)
        for kind in ("artifact", "misalignment")
    )
    defects = row.get("defects")
    return PictureReward(
        finite(row.get("reward")),
        defects if type(defects) is int else None,
        finite(row.get("severity")),
        artifact,
        misalignment,
        str(row.get("error") or ""),
    )
