"""What an alignment run is made of: the schema of `recipes/align/*.yaml`, read by `sdg.recipes.load_recipe`.

Defaults are the paper's settings or the released configuration's (SDG §4.2, App. D) where they gave one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sdg.detectors import answers_by_path, answers_depend_on
from sdg.scorers.weighted import ScorerRecipe
from sdg.sections import LoraRecipe, OptimizerRecipe, RunRecipe, check_name, check_seed, positive

Spread = Literal["location", "group", "epoch"]
Family = Literal["flux", "flux2", "flux2-klein", "longcat-image", "qwen-image", "sana", "sd3", "z-image"]
Attention = Literal["native", "_native_cudnn", "_native_efficient", "_native_flash", "_native_math"]
"""torch's attention backends by their names in diffusers.

Others lack gradients, fetch kernels from a hub, take no masks (flash) or take them wrongly (xformers).
"""
Method = Literal["boxflow", "flow-grpo", "denseflow", "boxflow-nft", "nft"]


@dataclass(frozen=True)
class PolicyRecipe:
    """The generator."""

    family: Family  # which pipeline: FLUX.1, FLUX.2-dev, Stable Diffusion 3 and 3.5, or that of the name
    model: str  # a checkpoint's folder or hub id, or python:MODULE.FUNCTION that returns one
    height: int = 512  # pixels
    width: int = 512  # pixels
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"  # in which frozen weights are kept
    # FLUX.1-dev, FLUX.2-dev: fed to the model; otherwise classifier-free, off at 1 or less (Z-Image: at 0).
    guidance: float = 3.5
    max_sequence_length: int = 512  # text tokens
    prompt_cache: int = 512  # prompts whose text embeddings are kept in memory
    # Folder in which prompts' embeddings are kept, so that no text encoder stays in memory; null: they stay.
    text_cache: str | None = None
    gradient_checkpointing: bool = False  # less memory for activations, more time
    attention: Attention | None = None  # diffusers' backend; null: torch's own choice
    lora: LoraRecipe | None = field(default_factory=LoraRecipe)  # null: all of the transformer is trained
    adapter: str | None = None  # folder of an adapter of this `lora` to start from; null: a fresh one

    def __post_init__(self) -> None:
        positive(self, "height", "width", "max_sequence_length", "prompt_cache")
        if self.lora is None and self.adapter is not None:
            raise ValueError(
                "adapter starts from an adapter, and with lora null there is none; `sdg align merge` it, and "
                "start from the result."
            )


@dataclass(frozen=True)
class SamplingRecipe:
    """Roll-outs: `sde_steps_per_epoch` of `sde_steps` (0-based) are stochastic and trained, the rest ODE."""

    steps: int = 10  # sampling steps
    sde_steps: tuple[int, ...] = (1, 2, 3)  # those that may be stochastic
    sde_steps_per_epoch: int = 1  # how many of them are, drawn for each epoch
    noise_level: float = 0.7  # of stochastic steps; of cps the share of noise drawn anew, as an angle
    sde: Literal["flow-sde", "cps"] = "flow-sde"  # cps leaves no surplus noise, however few the steps
    batch_size: int = 8  # pictures at a time on each process, in roll-out and training alike

    def __post_init__(self) -> None:
        positive(self, "steps", "noise_level", "batch_size")
        if len(set(self.sde_steps)) < len(self.sde_steps):
            raise ValueError("sde_steps names no step twice.")
        if any(not 0 <= step < self.steps for step in self.sde_steps):
            raise ValueError(
                f"sde_steps lie between 0 and {self.steps - 1}, as there are {self.steps} steps."
            )
        if not 1 <= self.sde_steps_per_epoch <= len(self.sde_steps):
            raise ValueError("sde_steps_per_epoch is at least 1 and at most the number of sde_steps.")
        if self.sde == "cps" and self.noise_level > 1:
            raise ValueError(f"noise_level is at most 1 with cps, not {self.noise_level}.")
        if self.sde == "cps" and self.steps - 1 in self.sde_steps:
            raise ValueError("sde_steps leave out the last step with cps, which has no noise there.")


@dataclass(frozen=True)
class PromptsRecipe:
    """Sets of prompts: a text file, one a line; a published set, bench:NAME; or python:MODULE.FUNCTION."""

    train: str  # what roll-outs draw
    held_out: str | None = None  # what monitors and figures use


@dataclass(frozen=True)
class GroupsRecipe:
    """An epoch's roll-outs: `prompts` groups of `size` samples each."""

    prompts: int = 48  # groups an epoch, over all processes
    size: int = 8  # samples a group

    def __post_init__(self) -> None:
        positive(self, "prompts")
        if self.size < 2:
            raise ValueError("size is at least 2: an advantage compares the samples of a group.")


@dataclass(frozen=True)
class JudgeRecipe:
    """Finds defects in monitored pictures."""

    name: str  # under which its measures stand in logs and tables
    uri: str  # a detector's, or python:MODULE.FUNCTION of a picture and its prompt

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True)
class RewardRecipe:
    """Base reward R = Σ weight·scale·score, and the detector whose defects make it spatial (SDG eq. 4)."""

    scorers: tuple[ScorerRecipe, ...]
    detector: str | None = None  # its URI, or python:MODULE.FUNCTION of a picture and its prompt
    c_artifact: float = 0.5  # α of artifacts is this times the group's spread of R
    c_misalignment: float = 0.05  # the same for misalignments
    batch_size: int | None = None  # pictures scored at a time; null: as they are drawn, sampling.batch_size
    max_failed: float = 0.5  # a run stops when more than this share of an epoch could not be scored

    def __post_init__(self) -> None:
        if not self.scorers:
            raise ValueError("scorers names at least one base reward.")
        if len({scorer.name for scorer in self.scorers}) < len(self.scorers):
            raise ValueError("scorers have different names.")
        positive(self, "batch_size")
        if not 0 <= self.max_failed < 1:
            raise ValueError("max_failed is a share, at least 0 and below 1.")


@dataclass(frozen=True, kw_only=True)
class PolicyOptimizer(OptimizerRecipe):
    """The adapter's optimizer, and the clipped objective of SDG eq. 6."""

    steps: int = 500  # of the whole run
    steps_per_epoch: int = 2  # each on its share of whole groups
    learning_rate: float = 3e-4  # AdamW's
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # linear and cosine fall to 0 over `steps`
    weight_decay: float = 1e-4  # AdamW's
    clip: float = 1e-4  # range of the likelihood ratio around 1
    kl: float = 0.0  # weight of the divergence from the model before training; nft: of squared velocities
    advantage_eps: float = 1e-6  # added to the std that divides advantages
    # Whose std divides an advantage: a location's in its group (eq. 5), the group's, or the whole epoch's.
    advantage_spread: Spread = "location"
    advantage_limit: float = 5.0  # of scalar advantages, and of spatial ones with boxflow-nft
    ema_every: int = 4  # epochs between updates of the averaged adapter
    ema_decay: float = 0.9  # of the averaged adapter, at most
    ema_time: Literal["updates", "steps"] = "updates"  # what t counts in its decay, (1+t)/(10+t)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps", "steps_per_epoch", "clip", "advantage_eps", "advantage_limit", "ema_every")
        if self.kl < 0:
            raise ValueError("kl is not negative.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError("ema_decay is at least 0 and below 1.")


@dataclass(frozen=True)
class NftRecipe:
    """Training on the forward process (DiffusionNFT, arXiv 2509.16117): methods nft and boxflow-nft.

    The old policy draws an epoch's pictures. After the epoch it moves towards the trained weights with decay
    min(old_rise · max(optimizer steps done − old_from, 0), old_limit).
    """

    beta: float = 1.0  # how far on either side of the old policy's velocity the two compared ones lie
    levels: int | None = None  # noise levels a picture is trained at, drawn from the sampler's; null: all
    old_from: int = 0  # optimizer steps before the old policy begins to lag behind
    old_rise: float = 0.001  # by which its decay grows with each step after that
    old_limit: float = 0.5  # its decay at most

    def __post_init__(self) -> None:
        positive(self, "beta", "levels")
        if self.old_from < 0 or self.old_rise < 0 or not 0 <= self.old_limit < 1:
            raise ValueError("old_from and old_rise are not negative, old_limit is at least 0 and below 1.")

    def decay(self, steps: int) -> float:
        """Of the old policy, after so many optimizer steps."""
        return min(self.old_rise * max(steps - self.old_from, 0), self.old_limit)


_TAKEN: Final = frozenset(
    ("reward", "detector", "diversity", "generator", "picture", "step", "epoch", "kind", "known", "by_prompt")
)
"""What no measure may be called: parts of the reward, and other keys of the lines that measures stand in."""


@dataclass(frozen=True)
class MonitorRecipe:
    """The guard against reward hacking: measures on held-out prompts that are not the reward."""

    scorers: tuple[ScorerRecipe, ...] = ()
    judges: tuple[JudgeRecipe, ...] = ()
    every: int = 10  # epochs between measurements
    prompts: int = 64  # the first so many held-out prompts
    steps: int = 28  # sampling steps, without noise
    best: str | None = None  # picks the best adapter, such as "oracle/defects" or "PickScore"
    goal: Literal["min", "max"] = "min"  # which way of `best` is better
    # Measurements in a row, worse than the best beyond chance at a higher reward, at which the run ends.
    patience: int | None = None

    def __post_init__(self) -> None:
        positive(self, "every", "prompts", "steps")
        names = [scorer.name for scorer in self.scorers] + [judge.name for judge in self.judges]
        if len(set(names)) < len(names):
            raise ValueError("scorers and judges have different names.")
        if taken := sorted(_TAKEN.intersection(names)):
            raise ValueError(
                f"{taken[0]} is what a log or a table calls something else; choose another name."
            )
        if self.best is not None and self.best not in self.measures():
            raise ValueError(
                f"best is one of {', '.join(self.measures()) or 'no measure'}, not {self.best!r}."
            )
        if self.patience is not None and (self.best is None or self.patience < 1):
            raise ValueError("patience is at least 1 and needs best.")

    def measures(self) -> list[str]:
        """Names of everything that is measured."""
        kinds = ("defects", "artifacts", "misalignments", "clean_rate")
        return [s.name for s in self.scorers] + [f"{j.name}/{kind}" for j in self.judges for kind in kinds]


@dataclass(frozen=True, kw_only=True)
class PolicyRun(RunRecipe):
    """How weights lie on processes; how often a run saves and draws figures."""

    sharding: Literal["fsdp"] | None = None  # fsdp: processes share all weights; null: each has them whole
    save_every: int = 10  # epochs between checkpoints
    pictures_every: int = 0  # epochs between figures; 0 draws none
    pictures: int = 4  # groups in a figure

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "save_every", "pictures")
        if self.pictures_every < 0:
            raise ValueError("pictures_every is not negative.")


@dataclass(frozen=True)
class AlignRecipe:
    """One alignment run, whatever its size."""

    policy: PolicyRecipe
    prompts: PromptsRecipe
    reward: RewardRecipe
    method: Method = "boxflow"  # BoxFlow-GRPO or BoxFlow-NFT, or one of the three they are compared with
    seed: int = 0  # of prompts, noise and the adapter's start
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of autocast; auto: bf16 wherever that is fast
    sampling: SamplingRecipe = field(default_factory=SamplingRecipe)
    groups: GroupsRecipe = field(default_factory=GroupsRecipe)
    optimizer: PolicyOptimizer = field(default_factory=PolicyOptimizer)
    monitor: MonitorRecipe = field(default_factory=MonitorRecipe)
    run: PolicyRun = field(default_factory=PolicyRun)
    nft: NftRecipe = field(default_factory=NftRecipe)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.needs_detector and self.reward.detector is None:
            raise ValueError(f"reward.detector is missing, which method {self.method} needs.")
        for key, uri in self.detector_uris:
            if answers_by_path(uri):
                raise ValueError(f"{key} is a detector that looks at pictures, not stored answers ({uri}).")
        if self.policy.lora is None and self.optimizer.kl > 0:
            raise ValueError(
                "optimizer.kl compares with the generator without its adapter, and with policy.lora null "
                "there is none; set optimizer.kl to 0."
            )
        if self.forward and (self.nft.levels or 0) > self.sampling.steps:
            raise ValueError(f"nft.levels is at most sampling.steps ({self.sampling.steps}).")
        if self.groups.prompts % self.optimizer.steps_per_epoch:
            raise ValueError(
                f"groups.prompts ({self.groups.prompts}) is a multiple of optimizer.steps_per_epoch "
                f"({self.optimizer.steps_per_epoch}), so that each step trains on whole groups."
            )
        if self.prompts.held_out is None and (self.monitor.measures() or self.run.pictures_every):
            raise ValueError("prompts.held_out is missing, which monitors and pictures need.")

    @property
    def needs_detector(self) -> bool:
        """Whether the method looks at defects at all; Flow-GRPO and DiffusionNFT do not."""
        return self.method not in ("flow-grpo", "nft")

    @property
    def scorer_uris(self) -> list[tuple[str, str]]:
        """Key and URI of every scorer, the reward's and the monitor's."""
        parts = (("reward", self.reward.scorers), ("monitor", self.monitor.scorers))
        return [(f"{part}.scorers, {one.name}", one.uri) for part, scorers in parts for one in scorers]

    @property
    def detector_uris(self) -> list[tuple[str, str]]:
        """Key and URI of every detector: the monitor's judges, and the reward's where the method needs it."""
        found = [(f"monitor.judges, {judge.name}", judge.uri) for judge in self.monitor.judges]
        if self.needs_detector and self.reward.detector:
            found.append(("reward.detector", self.reward.detector))
        return found

    @property
    def forward(self) -> bool:
        """Whether training is on the forward process: pictures by the plain ODE, no likelihoods."""
        return self.method in ("boxflow-nft", "nft")

    @property
    def epochs(self) -> int:
        """Roll-outs until `optimizer.steps` steps are done; the last epoch's steps are all taken."""
        return -(-self.optimizer.steps // self.optimizer.steps_per_epoch)

    @property
    def measurements(self) -> int:
        """How often the monitor measures in all: before epoch 0, every so many epochs, and after the last."""
        return -(-self.epochs // self.monitor.every) + 1

    @property
    def free(self) -> tuple[str, ...]:
        """What may differ when a run is resumed: how long, how often and where it is watched.

        What is trained stays, and what is measured on which pictures: measures that differ in more than the
        adapter would not tell which one is better. Of the reward's URIs see `compared`.
        """
        watched = [
            f"recipe.monitor.{kind}.{at}.uri"
            for kind, found in (("scorers", self.monitor.scorers), ("judges", self.monitor.judges))
            for at in range(len(found))
        ]
        free = (*FREE, "recipe.monitor.every", "recipe.monitor.patience", *watched)
        if self.optimizer.schedule in ("linear", "cosine"):  # which fall over all steps, so with their number
            return free
        return *free, "recipe.optimizer.steps"


FREE: Final = ("recipe.run", "recipe.policy.text_cache", "recipe.reward.max_failed")
"""What changes neither a picture nor its score, and so may differ when a run or a comparison is resumed."""
_URIS: Final = (".uri", ".detector")


def compared(name: str, value: Any) -> Any:
    """What of a setting has to be the same when a run or a comparison is resumed, by its dotted name.

    Of a URI that is what answers depend on: a server may come back elsewhere, and be asked in another way.
    """
    if not isinstance(value, str) or not name.startswith("recipe.") or not name.endswith(_URIS):
        return value
    return answers_depend_on(value)
