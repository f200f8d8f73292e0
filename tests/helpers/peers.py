"""What other trainers do with a reward, written from their code: the parts that meet ours.

Flow-Factory 0.1, flow_grpo, verl-omni and UniRL do not install from PyPI. `installed` puts modules of their
names in place with the classes that ours build on.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch


@contextmanager
def installed(modules: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Modules of these names, with their parents, while the context lasts."""
    names = {name.rsplit(".", cut)[0] for name in modules for cut in range(name.count(".") + 1)}
    for name in sorted(names):  # parents first
        sys.modules[name] = module = ModuleType(name)
        module.__dict__.update(modules.get(name, {}))
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


# Flow-Factory: rewards/abc.py, hparams/reward_args.py, advantage/advantage_processor.py


@dataclass
class RewardModelOutput:
    rewards: Any
    extra_info: dict[str, Any] | None = None


class GroupwiseRewardModel(ABC):
    required_fields: tuple[str, ...] = ("image", "prompt")
    use_tensor_inputs = False

    def __init__(self, config: Any, accelerator: Any) -> None:
        self.config, self.accelerator = config, accelerator
        self.device = accelerator.device if config.device == torch.device("cuda") else config.device
        self.dtype = config.dtype

    @abstractmethod
    def __call__(self, prompt: list[str], image: Any = None, **_: Any) -> RewardModelOutput: ...


FLOW_FACTORY = {
    "flow_factory.rewards.abc": {
        "GroupwiseRewardModel": GroupwiseRewardModel,
        "RewardModelOutput": RewardModelOutput,
    }
}


class RewardArguments:
    """The keys of a reward in a YAML file; those that are not theirs are attributes all the same."""

    def __init__(self, **given: Any) -> None:
        known = {"batch_size": 16, "device": torch.device("cpu"), "dtype": torch.float32, "weight": 1.0}
        self.__dict__.update(known | given)


def flow_factory_advantages(
    model: Any, groups: Sequence[tuple[list[str], list[Any]]], weight: float, global_std: bool
) -> list[np.ndarray]:
    """Advantages of each group, from what the signature asks for; a mean over NaN would be NaN."""
    names = set(inspect.signature(model.__call__).parameters)
    rewards = []
    for prompts, images in groups:
        given = {"prompt": prompts, "image": images, "unique_id": [7] * len(prompts)}
        output = model(**{name: value for name, value in given.items() if name in names})
        rewards.append(torch.as_tensor(output.rewards, device="cpu", dtype=torch.float32).numpy() * weight)
    whole = max(float(np.concatenate(rewards).std()), 1e-6)
    return [(one - one.mean()) / (whole if global_std else max(one.std(), 1e-6)) for one in rewards]


# flow_grpo: flow_grpo/stat_tracking.py, flow_grpo/rewards.py, scripts/train_sd3.py


class PerPromptStatTracker:
    def __init__(self, global_std: bool = False) -> None:
        self.global_std, self.sizes = global_std, list[int]()

    def update(self, prompts: Sequence[str], rewards: Any, type: str = "grpo") -> np.ndarray:
        names, values = np.array(prompts), np.array(rewards, np.float64)
        advantages = np.zeros_like(values)
        for name in np.unique(names):
            mine = values[names == name]
            self.sizes.append(len(mine))
            std = (values if self.global_std else mine).std(0, keepdims=True) + 1e-4
            advantages[names == name] = (mine - mine.mean(0, keepdims=True)) / std
        return advantages

    def clear(self) -> None:
        self.sizes = []


def _brightness_scores(device: str, score_dict: Mapping[str, float]) -> Callable[..., Any]:
    def score(images: Any, prompts: Any, metadata: Any, only_strict: bool = True) -> Any:
        means = [float(image.mean()) for image in images]
        total = [score_dict["brightness"] * mean for mean in means]
        return {"brightness": means, "avg": total}, {}

    return score


FLOW_GRPO = {"flow_grpo.rewards": {"multi_score": _brightness_scores}}


def flow_grpo_epoch(
    reward: Callable[..., Any], tracker: Any, images: torch.Tensor, prompts: list[str], steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Advantages (B, steps), and which samples are trained on."""
    scores, _ = reward(images, prompts, [{}] * len(prompts), only_strict=True)
    average = torch.as_tensor(scores["avg"]).float().unsqueeze(1).repeat(1, steps)
    advantages = tracker.update(prompts, average.numpy())
    tracker.clear()
    return advantages, np.abs(advantages).sum(1) != 0


def flow_grpo_evaluation(reward: Callable[..., Any], images: Any, prompts: list[str]) -> dict[str, float]:
    scores, _ = reward(images, prompts, [{}] * len(prompts), only_strict=False)
    found = {name: torch.as_tensor(value).numpy() for name, value in scores.items()}
    return {name: float(value[value != -10].mean()) for name, value in found.items()}


# verl-omni: reward_loop/reward_manager/{multi,visual}.py, trainer/diffusion/diffusion_algos.py


async def verl_omni_rewards(
    function: Callable[..., Any],
    pictures: Sequence[Any],
    prompts: Sequence[str],
    required: bool,
    **configured: Any,
) -> list[float]:
    """Rewards of a batch, each picture by itself, as the manager of several rewards asks for them."""

    async def single(picture: Any, prompt: str) -> float:
        given = {"data_source": "prompts", "solution_image": picture, "ground_truth": prompt}
        given |= {"extra_info": {"num_turns": None, "rollout_reward_scores": {}}, **configured}
        parameters = inspect.signature(function).parameters.values()
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
            given = {name: value for name, value in given.items() if name in {one.name for one in parameters}}
        try:
            result = await function(**given)
            return float(result["score"] if isinstance(result, dict) else result)
        except Exception as error:
            if required:
                raise RuntimeError(f"Required sub-reward failed: {error}") from error
            return 0.0

    return list(await asyncio.gather(*map(single, pictures, prompts)))


# UniRL: unirl/reward/base.py, unirl/types/reward.py, unirl/reward/service.py


@dataclass
class RewardResponse:
    rewards: list[float] = field(default_factory=list)
    component_rewards: dict[str, list[float]] = field(default_factory=dict)
    successes: list[bool] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    compute_time: float = 0.0


class RewardBackend(ABC):
    input_kind = "image"

    def __init__(self, model_name: str = "", batch_size: int = 8, timeout: float = 60.0, **_: Any) -> None:
        self.model_name, self.batch_size, self.timeout = model_name, batch_size, timeout

    @abstractmethod
    def compute_rewards(self, request: Any) -> RewardResponse: ...

    @abstractmethod
    def is_available(self) -> bool: ...


UNIRL = {
    "unirl.reward.base": {"RewardBackend": RewardBackend},
    "unirl.types.reward": {"RewardRequest": object, "RewardResponse": RewardResponse},
}


def unirl_rewards(backend: Any, images: Sequence[Any], prompts: Sequence[str]) -> torch.Tensor:
    """Rewards as they are attached to a track; raises where a sample has none."""
    response = backend.compute_rewards(SimpleNamespace(images=list(images), prompts=list(prompts)))
    failed = [
        (place, error)
        for place, (good, error) in enumerate(zip(response.successes, response.errors, strict=True))
        if not good
    ]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(response.successes)} failed: {failed[:3]}")
    rewards = torch.tensor(response.rewards, dtype=torch.float32)
    assert all(map(math.isfinite, rewards.tolist()))
    return rewards
