"""Where the testbed's trained weights lie inside the package, and how they get there (bf16 safetensors)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sdg.errors import SdgError, loading

if TYPE_CHECKING:
    from diffusers import FluxPipeline
    from transformers import CLIPModel

WEIGHTS: Final = Path(__file__).parents[1] / "weights"
GENERATOR, SCORER, DETECTOR = WEIGHTS / "generator", WEIGHTS / "scorer", WEIGHTS / "detector"
ALIGNED: Final = WEIGHTS / "aligned"
"""The adapter that BoxFlow-NFT trained on the generator, where this build ships with one."""


def packaged(folder: Path) -> Path:
    """The folder, or an SdgError where this build ships without those weights."""
    if not folder.is_dir():
        raise SdgError(
            f"This build holds no weights of the testbed's {folder.name}: train it and name its folder."
        )
    return folder


def load_generator(
    folder: Path | str | None = None, device: str = "cpu", *, lora: Path | str | None = None
) -> FluxPipeline:
    """The testbed's text-to-image pipeline, in fp32: packaged, or from a folder that training wrote.

    lora: folder of an adapter that `sdg align` wrote. Raises SdgError where a folder does not hold it.
    """
    import torch
    from diffusers import FluxPipeline

    folder = _holding("model_index.json", "pipeline", packaged(GENERATOR) if folder is None else folder)
    with loading(f"{folder} cannot be loaded as a FluxPipeline"):
        pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    if lora is not None:
        from sdg.models.lora import load_lora

        load_lora(pipeline, lora, f"the pipeline {folder}")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def load_scorer(folder: Path | str | None = None) -> tuple[CLIPModel, Any]:
    """The testbed's scorer in fp32 with its tokenizer: packaged, or from a folder that training wrote."""
    import torch
    from transformers import AutoTokenizer, CLIPModel

    folder = _holding("config.json", "scorer", packaged(SCORER) if folder is None else folder)
    with loading(f"{folder} cannot be loaded as a CLIPModel"):
        model = CLIPModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
        return model, AutoTokenizer.from_pretrained(folder)


def _holding(file: str, what: str, folder: Path | str) -> Path:
    """The folder as a path; said here because diffusers would look up a missing one on the hub."""
    folder = Path(folder)
    if not (folder / file).is_file():
        raise SdgError(f"{folder} holds no {what} ({file} is missing); check the path.")
    return folder
