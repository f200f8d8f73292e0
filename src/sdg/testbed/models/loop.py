"""The one training loop of the testbed's from-scratch models: seeded batches, EMA, exact resume, progress.

Batch number i is drawn from (seed, i) alone, so that a resumed run sees what an undisturbed one would. A step
may take two batches at once, a thread each: that keeps two cores busier than sharing each small operation.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeVar

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sdg.errors import SdgError
from sdg.models.lora import Ema
from sdg.runs.begin import begin, require_free
from sdg.runs.checkpoint import (
    FOLDER,
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from sdg.runs.log import append_log, trim_log
from sdg.testbed.models.muon import QuickMuon

M = TypeVar("M", bound=nn.Module)
MANIFEST: Final = "settings.json"


@dataclass(frozen=True)
class Run:
    """A training as its user asks for it: in which folder, how long, from which seed."""

    out: Path
    steps: int  # of the optimizer
    seed: int = 0
    resume: bool = False  # go on from the newest checkpoint, or begin where there is none
    max_minutes: float | None = None  # stop early and save; `resume` goes on


@dataclass(frozen=True)
class Hyperparameters:
    """How a model is trained, and how often it is saved and reported.

    shards: batches that make up a step, 1 or 2, worked on at the same time. muon: for the inner weight
    matrices, in place of AdamW.
    """

    learning_rate: float
    warmup: int = 200
    decay: float = 0.5  # share of the steps over which the learning rate falls; before, it stands still
    final_fraction: float = 0.02  # the learning rate ends at this fraction of its peak
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    save_every: int = 500
    report_every: int = 50
    shards: int = 1
    muon: bool = False


class SeededBatches(Dataset[Any]):
    """Batch i = make(np.random.default_rng((seed, i))); for a DataLoader with batch_size=None."""

    def __init__(self, make: Callable[[np.random.Generator], Any], seed: int) -> None:
        self.make, self.seed = make, seed

    def __getitem__(self, index: int) -> Any:
        return self.make(np.random.default_rng((self.seed, index)))


def batches(data: Dataset[Any], start: int, steps: int, workers: int) -> Iterator[Any]:
    """Batches start … steps−1 of a seeded data set, made ahead in worker processes."""
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=range(start, steps),
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        worker_init_fn=_one_thread,
    )
    return iter(loader)


def _one_thread(_: int = 0) -> None:
    torch.set_num_threads(1)


LossOf = Callable[[Any], dict[str, Tensor]]


def add_gradients(
    loss_of: LossOf, shards: Sequence[Any], pool: ThreadPoolExecutor | None = None
) -> dict[str, float]:
    """Add the gradient of the shards' mean loss to the parameters'; returns each part's mean over the shards.

    The shards are worked on side by side where there is a pool. Two gradients have one sum in either order,
    so the result is the same each time.
    """

    def work(shard: Any) -> dict[str, float]:
        parts = loss_of(shard)
        (parts["loss"] / len(shards)).backward()
        return {name: float(part.detach()) for name, part in parts.items()}

    done = list(pool.map(work, shards) if pool is not None else map(work, shards))
    return {name: sum(parts[name] for parts in done) / len(done) for name in done[0]}


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weight matrices inside the model's blocks, for Muon, and everything else, for AdamW."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        outer = any(part in name for part in ("embed", "lm_head")) or (
            "proj_out" in name and "blocks." not in name  # a block of FLUX's has one inside, too
        )
        inner = parameter.ndim == 2 and not outer
        (matrices if inner else others).append(parameter)
    return matrices, others


def make_optimizers(model: nn.Module, settings: Hyperparameters) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon on the inner weight matrices with AdamW on the rest."""
    shared: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}

    def adamw(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, betas=(0.9, 0.98), **shared)

    if not settings.muon:
        return [adamw([p for p in model.parameters() if p.requires_grad])]
    matrices, others = split_parameters(model)
    return [QuickMuon(matrices, momentum=0.95, **shared), adamw(others)]


def learning_rate_factor(step: int, steps: int, settings: Hyperparameters) -> float:
    """Linear warm-up, a plateau, then a line down to `final_fraction` over the last `decay` of the steps."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    left = (steps - step) / max(1.0, settings.decay * steps)
    return settings.final_fraction + (1 - settings.final_fraction) * min(1.0, max(0.0, left))


def fit(
    model: M,
    loss_of: LossOf,
    data: Dataset[Any],
    run: Run,
    settings: Hyperparameters,
    *,
    workers: int = 1,
    on_save: Callable[[M, int], None] | None = None,
) -> M:
    """Train `model` on `loss_of(batch)["loss"]` and return it with its averaged (EMA) weights.

    data: batches, the i-th made from the run's seed and i alone. Checkpoints go to run.out/checkpoints, the
    log is run.out/log.jsonl, one line a report. `on_save` is called with the averaged model at each
    checkpoint. With 2 shards `loss_of` must draw no random numbers. Raises SdgError where a checkpoint is in
    the way or was made with another seed, or the loss stops being a number.
    """
    out, shards = run.out, settings.shards
    optimizers = make_optimizers(model, settings)
    average = Ema(dict(model.named_parameters()), settings.ema)
    console = Console(stderr=True)
    shared = ThreadPoolExecutor(shards, initializer=_one_thread) if shards > 1 else nullcontext()
    work = [out / FOLDER]
    with begin(out, out / MANIFEST, {"seed": run.seed}, resume=run.resume, work=work), shared as pool:
        start = _restored(out, model, average, optimizers)
        trim_log(out, lambda line: line["step"] <= start)
        if start >= run.steps and on_save is not None:
            on_save(_averaged(model, average), start)  # the run may have died between checkpoint and this
        began, seen, reported = time.monotonic(), start, time.monotonic()
        told: dict[str, list[float]] = {}
        step = start
        drawn = batches(data, start * shards, run.steps * shards, workers)
        for together in zip(*[drawn] * shards, strict=True):
            factor = learning_rate_factor(step, run.steps, settings)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * factor
            # Noise inside the step, the same after a resume.
            torch.manual_seed(hash((run.seed, step)) % 2**63)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            parts = add_gradients(loss_of, together, pool)
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            average.update(step)
            for name, part in parts.items():
                told.setdefault(name, []).append(part)
            if step % settings.report_every == 0 or step == run.steps:
                count, now = step - seen, time.monotonic()
                if not all(map(math.isfinite, told["loss"])):
                    raise SdgError(f"The loss is no longer a number at step {step}; lower the learning rate.")
                # A part is not a number in a batch whose pictures have nothing of it.
                known = {name: list(filter(math.isfinite, parts)) for name, parts in told.items()}
                line = {name: round(fmean(parts), 5) for name, parts in known.items() if parts}
                line |= {"step": step, "seconds_per_step": round((now - reported) / count, 3)}
                append_log(out, line)
                left = (now - began) / (step - start) * (run.steps - step) / 60
                console.print(f"step {step}/{run.steps}  {line}  {left:.0f} min left", highlight=False)
                seen, reported, told = step, now, {}
            minutes = (time.monotonic() - began) / 60
            out_of_time = run.max_minutes is not None and minutes > run.max_minutes and step < run.steps
            if step % settings.save_every == 0 or step == run.steps or out_of_time:
                save_checkpoint(out, step, _state(model, average, optimizers), {"step": step})
                if on_save is not None:
                    on_save(_averaged(model, average), step)
            if out_of_time:
                console.print(f"time is up at step {step}; go on with --resume")
                break
    return _averaged(model, average)


def require_no_run(run: Run) -> None:
    """Raise SdgError where `fit` would refuse, as a run is in the way: before minutes are spent."""
    require_free(run.out, run.out / MANIFEST, run.resume, [run.out / FOLDER])


def _state(model: nn.Module, average: Ema, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {f"average.{name}": value for name, value in average.average.items()}
    for number, optimizer in enumerate(optimizers):
        state |= optimizer_tensors(optimizer, f"optimizer-{number}")
    return state


def _restored(out: Path, model: nn.Module, average: Ema, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Fill all from the newest checkpoint, if there is one; returns the steps they have seen."""
    folder = latest_checkpoint(out)
    if folder is None:
        return 0
    tensors, progress = load_checkpoint(folder)
    try:
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:
        raise SdgError(f"{folder} holds a run of another model; name another folder.") from error
    for name, value in average.average.items():
        value.copy_(tensors[f"average.{name}"])
    for number, optimizer in enumerate(optimizers):
        restore_optimizer(optimizer, tensors, f"optimizer-{number}")
    return int(progress["step"])


def _averaged(model: M, average: Ema) -> M:
    with average.applied():
        return copy.deepcopy(model).eval()
