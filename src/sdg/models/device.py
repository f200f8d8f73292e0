"""Devices by their names, and the precision of autocast that is fast on each."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

from sdg.errors import SdgError, installed

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "bf16", "fp32"]
"""Of autocast: bf16, none at all, or bf16 wherever that is fast."""


def choose_device(name: str) -> str:
    """The device of a name; "auto" takes cuda, else mps, else cpu. Raises SdgError if there is none."""
    with installed("Running a checkpoint needs torch", "models"):
        import torch
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SdgError(f"There is no device {name!r} here; take auto, cpu, cuda, cuda:1 or mps.") from None
    return name


def cpu_autocast_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies in it (AVX-512 BF16 or AMX), otherwise float32.

    Elsewhere bfloat16 is emulated: on AVX2 alone a training step takes ten times as long as in float32.
    """
    import torch

    # Public in recent releases only (`torch.cpu.get_capabilities`); these two are in every supported one.
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def cpu_autocast() -> AbstractContextManager[None]:
    """Autocast in `cpu_autocast_dtype`; nothing where that is float32, which autocast does not know."""
    import torch

    dtype = cpu_autocast_dtype()
    return nullcontext() if dtype is torch.float32 else torch.autocast("cpu", dtype)


def autocast_precision(asked: Precision, device: str) -> Literal["bf16", "fp32"]:
    """The precision of autocast on a type of device; auto is bf16 wherever that is fast."""
    import torch

    if asked != "auto":
        return asked
    return "fp32" if device == "cpu" and cpu_autocast_dtype() is torch.float32 else "bf16"
