"""Models at real size without weights, on the meta device: what a pass takes in memory and arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sdg.errors import SdgError, first_line, loading_errors

KNOWN: Final[Mapping[str, str]] = {
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3-vl-4b.json",
    "P1n3/sdg-detector-sft": "qwen3-vl-4b.json",
    "P1n3/sdg-detector-grpo": "qwen3-vl-4b.json",
}
"""A checkpoint on the hub -> its configuration in this package."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a computation took: the most bytes of tensors made in it that were alive at once, and FLOP."""

    bytes: int
    flop: int


def measured(compute: Callable[[], object]) -> Taken:
    """Run a computation on meta tensors, twice; what kernels use beside their outputs is left out."""
    with Peak() as peak:
        compute()
    with FlopCounterMode(display=False) as counter:  # which keeps tensors alive
        compute()
    return Taken(peak.most, int(counter.get_total_flops()))


def vision_language_model(checkpoint: str, dtype: torch.dtype, revision: str | None = None) -> Any:
    """An image-text-to-text model on the meta device, by a folder's, a known or a hub's configuration.

    Raises SdgError where there is none.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    if checkpoint in KNOWN and not Path(checkpoint).is_dir():
        values = json.loads(files("sdg.models").joinpath("configs", KNOWN[checkpoint]).read_text("utf-8"))
        config = AutoConfig.for_model(**values)
    else:
        try:
            config = AutoConfig.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
        except loading_errors() as error:
            raise SdgError(
                f"The configuration of {checkpoint} is neither known nor to be had ({first_line(error)}); "
                "give a folder with its config.json."
            ) from error
    try:
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config, trust_remote_code=False).to(dtype)
    except (ValueError, TypeError, KeyError) as error:
        raise SdgError(f"{checkpoint} is no image-text-to-text model ({first_line(error)}).") from error


class Peak(TorchDispatchMode):
    """The most bytes of tensors made inside that were alive at once.

    On the meta device attention keeps its scores, in float32 whatever the process has allowed: the most that
    any kernel takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self._bytes = self.most = 0

    def __enter__(self) -> Self:
        self._allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(self._allowed)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(out):
            if not isinstance(leaf, torch.Tensor) or (key := _storage(leaf)) in given:
                continue
            known = self._storages.get(key)
            if known is None or known[0].expired():  # an address is used again
                storage = leaf.untyped_storage()
                self._storages[key] = StorageWeakRef(storage), storage.nbytes()
                self._bytes += storage.nbytes() - (known[1] if known else 0)
        if self._bytes > self.most:  # if those that are gone by now are not counted any more
            self._storages = {k: v for k, v in self._storages.items() if not v[0].expired()}
            self._bytes = sum(nbytes for _, nbytes in self._storages.values())
            self.most = max(self.most, self._bytes)
        return out


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
