"""What a training run is made of: the schemas of `recipes/detector/*.yaml`, read by `load_recipe`.

Defaults are the paper's settings, or the released configuration's where the paper is silent (SDG App. D).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from sdg.defects import DefectType
from sdg.errors import SdgError
from sdg.io.http import is_address
from sdg.prompting import ImageLimits, PromptProfile
from sdg.sections import LoraRecipe, OptimizerRecipe, RunRecipe, Schedule, check_seed, positive

SELECTABLE: Final = tuple(
    f"{prefix}{name}"
    for prefix in ("", *(f"{kind.value}_" for kind in DefectType))
    for name in ("BoxF1@0.1", "BoxF1@0.5", "DetTypeF1")
)
"""Metrics that may choose the best checkpoint; without a type's name it is the mean over both types."""


@dataclass(frozen=True)
class ModelRecipe:
    """The checkpoint that training starts from."""

    checkpoint: str  # a folder or a name on the model hub
    revision: str | None = None  # of a model on the hub; null is the newest
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # in which weights are loaded
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"  # transformers' implementation
    freeze_vision: bool = True  # leave the vision encoder, its merger included, as it is; no adapters there
    gradient_checkpointing: bool = True  # less memory for activations, more time
    lora: LoraRecipe | None = None  # null trains the whole model


@dataclass(frozen=True)
class DataRecipe:
    """Annotation files in any format `sdg data` reads but a folder of its format hf."""

    train: Path  # what is learned
    validation: Path  # what evaluations answer
    images: Path | None = None  # folder of the pictures; null is the file's
    allow_outside: bool = False  # whether a path in the files may lead out of that folder
    max_length: int = 5100  # rows whose prompt and target need more tokens are left out, and counted
    jitter: float = 10.0  # of coordinates (SDG §4.1), in thousandths of a side; 0 is none, and GRPO has none
    limit: int | None = None  # the first so many rows of `train`
    validation_limit: int | None = None  # the first so many rows of `validation`
    workers: int = 1  # processes that decode and tokenise

    def __post_init__(self) -> None:
        positive(self, "max_length", "limit", "validation_limit")
        if self.jitter < 0 or self.workers < 0:
            raise ValueError("jitter and workers are not negative.")


@dataclass(frozen=True, kw_only=True)
class DetectorOptimizer(OptimizerRecipe):
    """The optimizer with a warm-up; one step sees batch_size × accumulate × processes samples."""

    schedule: Schedule = "cosine"  # after the warm-up
    warmup: float = 0.05  # share of the steps
    epochs: float = 3.0  # passes over the rows
    max_steps: int | None = None  # in place of epochs
    batch_size: int = 1  # samples on each process
    accumulate: int = 1  # batches whose gradients make one step

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "epochs", "max_steps", "batch_size", "accumulate")
        if not 0 <= self.warmup < 1:
            raise ValueError("warmup is a share of the steps, at least 0 and below 1.")


@dataclass(frozen=True)
class EvaluationRecipe:
    """SDG-Eval of greedy answers on the validation rows."""

    every: int = 200  # steps
    first: bool = False  # also before the first step; then the final detector is never worse than the start
    batch_size: int = 8  # pictures at a time
    best: str = "BoxF1@0.5"  # the metric that chooses the checkpoint; a type's name may stand before it
    embedder: str | None = None  # a name `sdg.embeddings.load_embedder` knows; null leaves DescCos out

    def __post_init__(self) -> None:
        positive(self, "every", "batch_size")
        if self.best not in SELECTABLE:
            raise ValueError(f"best is one of {', '.join(SELECTABLE)}, not {self.best!r}.")


@dataclass(frozen=True, kw_only=True)
class DetectorRun(RunRecipe):
    """Where and how a detector is trained."""

    device: Literal["auto", "cpu"] = "auto"  # auto: a GPU if there is one
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of autocast; auto: bf16 wherever that is fast
    deepspeed: Path | None = None  # DeepSpeed's configuration (JSON)
    log_every: int = 10  # steps
    save_every: int | None = None  # steps between checkpoints; null is evaluation.every

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "log_every", "save_every")


def _check_intervals(run: DetectorRun, evaluation: EvaluationRecipe) -> None:
    """Only a checkpoint that is also evaluated can be the best one."""
    saved, evaluated = run.save_every or evaluation.every, evaluation.every
    if saved % evaluated and evaluated % saved:
        raise ValueError(f"run.save_every {saved} is no multiple or divisor of evaluation.every {evaluated}.")


@dataclass(frozen=True)
class SftRecipe:
    """Supervised fine-tuning. The ablations of SDG Table 7 are settings of it."""

    model: ModelRecipe
    data: DataRecipe
    optimizer: DetectorOptimizer
    # How the model is asked and what it answers, a profile's path, or "release"; null: the checkpoint's own.
    profile: PromptProfile | Path | None = field(default_factory=PromptProfile)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    run: DetectorRun = field(default_factory=DetectorRun)
    seed: int = 0  # of the order of rows and the jitter

    def __post_init__(self) -> None:
        check_seed(self.seed)
        _check_intervals(self.run, self.evaluation)


@dataclass(frozen=True)
class RolloutRecipe:
    """Groups of completions."""

    group: int = 8  # completions of one prompt
    temperature: float = 1.0  # of sampling
    top_p: float = 0.85  # share of the probability that is sampled from
    max_tokens: int = 4096  # of a completion
    # vllm: on the training GPUs; vllm-server: a `vllm serve` on GPUs of its own. They also validate.
    engine: Literal["transformers", "vllm", "vllm-server"] = "transformers"
    vllm_memory: float = 0.3  # vllm: share of a GPU's memory
    vllm_sleep: bool = False  # vllm: give that memory back while the optimizer steps, and wake up after it
    server: str = "http://127.0.0.1:8000"  # vllm-server: its address

    def __post_init__(self) -> None:
        positive(self, "temperature", "max_tokens")
        if not is_address(self.server):
            raise ValueError("server is an address, such as http://127.0.0.1:8000.")
        if self.group < 2:
            raise ValueError("group is at least 2: an advantage compares the completions of a group.")
        if not 0 < self.top_p <= 1 or not 0 < self.vllm_memory < 1:
            raise ValueError("top_p and vllm_memory are shares above 0.")


@dataclass(frozen=True)
class GuardsRecipe:
    """Limits past which a GRPO run stops, where `patience` log entries in a row are past them."""

    malformed: float = 0.5  # share of completions that fail the format gate
    spread: float = 0.005  # least mean std of the reward within a group, without which nothing is learned
    length: float = 3.0  # factor by which completions may grow or shrink against the first log entry
    patience: int = 5  # log entries in a row

    def __post_init__(self) -> None:
        positive(self, "patience")
        if not 0 < self.malformed <= 1:
            raise ValueError("malformed is a share, above 0 and at most 1.")
        if self.spread < 0:
            raise ValueError("spread is not negative.")
        if self.length <= 1:
            raise ValueError("length is a factor above 1.")


@dataclass(frozen=True)
class GrpoRecipe:
    """Reinforcement with the composite reward (SDG §4.1), from a checkpoint that SFT made."""

    model: ModelRecipe
    data: DataRecipe
    optimizer: DetectorOptimizer
    rollout: RolloutRecipe  # required, which tells this recipe from one of SFT
    profile: PromptProfile | Path | None = None  # null takes the checkpoint's own
    image: ImageLimits | None = None  # in place of all limits that the profile has; its wording stays
    similarity: str = "qwen3"  # embedder that compares reasons in the reward
    beta: float = 0.01  # weight of the KL term against the starting checkpoint
    clip: float = 0.2  # of the likelihood ratio, which is 1 here, one step to a roll-out
    guards: GuardsRecipe = field(default_factory=GuardsRecipe)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    run: DetectorRun = field(default_factory=DetectorRun)
    seed: int = 0  # of the order of rows and the roll-outs

    def __post_init__(self) -> None:
        check_seed(self.seed)
        _check_intervals(self.run, self.evaluation)
        positive(self, "clip")
        if self.beta < 0:
            raise ValueError("beta is not negative.")

    def prompts_a_step(self, processes: int) -> int:
        """Rows that one optimizer step asks about."""
        return self.optimizer.batch_size * self.optimizer.accumulate * processes // self.rollout.group

    def require_step(self, rows: int, processes: int) -> None:
        """Raise SdgError for fewer rows than one step asks about, which TRL would all leave out."""
        if rows < (prompts := self.prompts_a_step(processes)):
            raise SdgError(
                f"A step asks about {prompts:,} rows (optimizer.batch_size × accumulate × processes / "
                f"rollout.group), and data.train has {rows:,}; lower the batch or give more rows."
            )


Recipe = SftRecipe | GrpoRecipe
