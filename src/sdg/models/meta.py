"""Models at real size without weights, on the meta device: what a pass takes in memory and arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sdg.errors import SdgError, first_line, loading
from sdg.io.uri import require_place

KNOWN: Final[Mapping[str, str]] = {
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3-vl-4b.json",
    "P1n3/sdg-detector-sft": "qwen3-vl-4b.json",
    "P1n3/sdg-detector-grpo": "qwen3-vl-4b.json",
    "yuvalkirstain/PickScore_v1": "clip-vit-h-14.json",
    "openai/clip-vit-large-patch14": "clip-vit-l-14.json",
}
"""A checkpoint on the hub -> its configuration in this package."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a computation took: the most bytes of tensors made in it that were alive at once, and FLOP."""

    bytes: int
    flop: int


def measured(compute: Callable[[], object]) -> Taken:
    """Run a computation on meta tensors; what kernels use beside their outputs is left out.

    Attention is taken to be fused, as it is on GPUs: on its own torch would choose on the meta device what
    keeps a row and a column for each token, in a type that switches of this process decide.
    """
    with fused_attention(), _Meter() as meter:
        compute()
    return Taken(meter.most, meter.flop)


def vision_language_model(checkpoint: str, dtype: torch.dtype, revision: str | None = None) -> Any:
    """An image-text-to-text model on the meta device, by a folder's, a known or a hub's configuration.

    Raises SdgError where there is none.
    """
    from transformers import AutoModelForImageTextToText

    return _model(AutoModelForImageTextToText, "an image-text-to-text model", checkpoint, dtype, revision)


def clip_model(checkpoint: str) -> Any:
    """A CLIPModel on the meta device, likewise."""
    from transformers import AutoModel

    return _model(AutoModel, "a CLIPModel", checkpoint, torch.float32)


def pipeline_parts(location: str) -> dict[str, int]:
    """Part of a diffusers pipeline -> its parameters, by the configurations in a folder or on the hub.

    Raises SdgError where there are none.
    """
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    failure = f"The configurations of {location} are not to be had"
    with loading(failure, "give a pipeline's folder with its json files"):
        index = diffusers.DiffusionPipeline.load_config(location)
        named = {part: entry for part, entry in index.items() if isinstance(entry, list | tuple) and entry[1]}
        kinds = {part: getattr(libraries.get(entry[0]), entry[1], None) for part, entry in named.items()}
        return {
            part: _parameters(kind, location, part)
            for part, kind in kinds.items()
            if isinstance(kind, type) and issubclass(kind, torch.nn.Module)
        }


def _parameters(kind: Any, location: str, part: str) -> int:
    import diffusers

    with torch.device("meta"):
        if issubclass(kind, diffusers.ModelMixin):
            model = kind.from_config(kind.load_config(location, subfolder=part))
        else:
            model = kind(kind.config_class.from_pretrained(location, subfolder=part))
    return sum(parameter.numel() for parameter in model.parameters())


def _model(auto: Any, kind: str, checkpoint: str, dtype: torch.dtype, revision: str | None = None) -> Any:
    from transformers import AutoConfig

    if checkpoint in KNOWN and not Path(checkpoint).is_dir():
        values = json.loads(files("sdg.models").joinpath("configs", KNOWN[checkpoint]).read_text("utf-8"))
        config = AutoConfig.for_model(**values)
    else:
        require_place(checkpoint, "; train what it comes from first, or check the path.")
        failure = f"The configuration of {checkpoint} is neither known nor to be had"
        with loading(failure, "give a folder with its config.json"):
            config = AutoConfig.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
    try:
        with torch.device("meta"):
            return auto.from_config(config, trust_remote_code=False).to(dtype)
    except (ValueError, TypeError, KeyError) as error:
        raise SdgError(f"{checkpoint} is not {kind} ({first_line(error)}).") from error


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention inside is one fused kernel, whatever torch would choose; in the whole process."""
    own = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` by the kernel that takes masks; queries are (B, heads, L, D)."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    bias = None
    if attn_mask is not None:
        bias = attn_mask.to(query.device, query.dtype).expand(*query.shape[:3], key.shape[2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    attended: Tensor = kernel(query, key, value, bias, True, dropout_p, is_causal, scale=scale)[0]
    return attended


class _Meter(TorchDispatchMode):
    """The most bytes of tensors made inside that were alive at once, and the FLOP of all operations.

    FLOP are by torch's formulas; its FlopCounterMode itself keeps tensors alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self._bytes = self.most = self.flop = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if (formula := flop_registry.get(function._overloadpacket)) is not None:
            self.flop += formula(*args, **(kwargs or {}), out_val=out)
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
