"""What a run's checkpoints take on the disk, said before the first one is written."""

from __future__ import annotations

from pathlib import Path
from shutil import disk_usage

from peft import LoraConfig
from rich.filesize import decimal
from transformers import PreTrainedModel

from sdg.training.recipe import DetectorRun


def needed(run: DetectorRun, model: PreTrainedModel, adapter: LoraConfig | None, out: Path) -> str:
    """How large a checkpoint is, how many stay, what they take and what is free, in one sentence."""
    size, most = run_bytes(run, model, adapter)
    return (
        f"A checkpoint with its optimizer takes {decimal(size)}; {run.keep} stay, and the best (run.keep), "
        f"so that {out} takes up to {decimal(most)}, and {decimal(disk_usage(out).free)} are free."
    )


def run_bytes(run: DetectorRun, model: PreTrainedModel, adapter: LoraConfig | None) -> tuple[int, int]:
    """Bytes of one checkpoint, and of all that lies in a run's folder at most."""
    size = checkpoint_bytes(model, adapter, run.deepspeed is not None)
    # The best stays, a new one is written before the oldest goes, and at the end there is the whole model.
    return size, (run.keep + 2) * size + sum(weight.nbytes for weight in model.parameters())


def checkpoint_bytes(model: PreTrainedModel, adapter: LoraConfig | None, deepspeed: bool) -> int:
    """Bytes of weights and optimizer state of one checkpoint, whatever the number of processes.

    AdamW keeps two moments of each trained parameter, in the parameter's own type. DeepSpeed keeps them and
    the parameter in fp32, and writes the whole model once more.
    """
    weights = checkpoint_weights(model, adapter)
    whole = sum(count * size for count, size, _ in weights)
    if deepspeed:
        return 2 * whole + sum(12 * count for count, _, trained in weights if trained)
    return whole + sum(2 * count * size for count, size, trained in weights if trained)


def checkpoint_weights(model: PreTrainedModel, adapter: LoraConfig | None) -> list[tuple[int, int, bool]]:
    """What a checkpoint holds: numbers of parameters, bytes of each, and whether they are trained."""
    if adapter is None:
        return [(each.numel(), each.element_size(), each.requires_grad) for each in model.parameters()]
    targets = set(adapter.target_modules or ())
    layers = [module for name, module in model.named_modules() if name in targets]
    return [(adapter.r * sum(layer.weight.shape), 4, True) for layer in layers]  # two matrices each, in fp32
