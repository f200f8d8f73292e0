"""Where the testbed's trained weights lie inside the package, and how they get there (bf16 safetensors)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sdg.errors import SdgError

if TYPE_CHECKING:
    from diffusers import FluxPipeline

WEIGHTS: Final = Path(__file__).parent / "weights"
GENERATOR, SCORER, DETECTOR = WEIGHTS / "generator", WEIGHTS / "scorer", WEIGHTS / "detector"


def packaged(folder: Path) -> Path:
    """The folder, or an SdgError where this build ships without those weights."""
    if not folder.is_dir():
        raise SdgError(
            f"This build holds no weights of the testbed's {folder.name}: train it and name its folder."
        )
    return folder


def load_generator(folder: Path | str | None = None, device: str = "cpu") -> FluxPipeline:
    """The testbed's text-to-image pipeline, in fp32: packaged, or from a folder that training wrote."""
    import torch
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(
        packaged(GENERATOR) if folder is None else Path(folder),
        torch_dtype=torch.float32,
        use_safetensors=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def export_half(model: Any, folder: Path) -> int:
    """Save a pipeline or model in bf16 and return the folder's size in bytes.

    The model itself is converted: use it for nothing else afterwards.
    """
    import torch

    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
