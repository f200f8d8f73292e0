"""The pipelines of diffusers that edit: what each is told, what it takes, and loading them from folders.

This table is the one place that knows classes by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sdg.errors import SdgError, loading, quoted, shortened
from sdg.io.files import read_text

STEPS: Final = 28
_MOST_BYTES: Final = 1 << 20  # of a pipeline's index


@dataclass(frozen=True, slots=True)
class Editing:
    """How one class of pipelines edits; what its signature says, such as a mask, is read from there.

    checkpoints: classes of pipelines whose folders it can load beside its own. instructed: it was trained on
    instructions, and gets the one that an API gets; else a description, the prompt. views: how many pictures
    it takes of those that an API is shown; 0 is any number. text: the attribute that holds the tokenizer of
    its long text encoder, and how many tokens that reads. together: one call may hold several pictures, each
    with its text and its seed. steps: as its authors sample it; undistilled: those of checkpoints whose index
    says that they are not distilled, where that differs. guidance: the argument that guides it. also: further
    arguments of every call.
    """

    checkpoints: tuple[str, ...] = ()
    instructed: bool = False
    views: int = 1
    text: tuple[str, int] | None = None
    together: bool = True
    steps: int = STEPS
    undistilled: int | None = None
    guidance: str = "guidance_scale"
    also: Mapping[str, Any] = field(default_factory=dict)


_T5: Final = ("tokenizer_2", 512)
_T5_OF_SD3: Final = ("tokenizer_3", 256)
_OWN: Final = ("tokenizer", 512)
# Without a negative prompt, be it a blank, these are not guided at all.
_QWEN: Final[Mapping[str, Any]] = {"guidance": "true_cfg_scale", "also": {"negative_prompt": " "}}
_QWEN_EDIT: Final[Mapping[str, Any]] = {**_QWEN, "instructed": True, "together": False, "steps": 40}
_KLEIN: Final[Mapping[str, Any]] = {
    "instructed": True,
    "text": _OWN,
    "together": False,
    "steps": 4,
    "undistilled": 50,
}

KNOWN: Final[Mapping[str, Editing]] = {
    "FluxInpaintPipeline": Editing(("FluxPipeline",), text=_T5),
    "FluxImg2ImgPipeline": Editing(text=_T5),
    "FluxFillPipeline": Editing(text=_T5, steps=50),
    "FluxKontextPipeline": Editing(instructed=True, text=_T5, together=False),
    "FluxKontextInpaintPipeline": Editing(instructed=True, text=_T5, together=False),
    "Flux2Pipeline": Editing(instructed=True, views=0, text=_OWN, together=False, steps=50),
    "Flux2KleinPipeline": Editing(views=0, **_KLEIN),
    "Flux2KleinInpaintPipeline": Editing(**_KLEIN),
    "QwenImageInpaintPipeline": Editing(("QwenImagePipeline",), **_QWEN),
    "QwenImageImg2ImgPipeline": Editing(**_QWEN),
    "QwenImageEditPipeline": Editing(**_QWEN_EDIT),
    "QwenImageEditPlusPipeline": Editing(**_QWEN_EDIT, views=0),
    "QwenImageEditInpaintPipeline": Editing(**_QWEN_EDIT),
    "LongCatImageEditPipeline": Editing(instructed=True, text=_OWN, together=False, steps=50),
    "SanaSprintImg2ImgPipeline": Editing(
        ("SanaSprintPipeline",),
        steps=4,
        also={"use_resolution_binning": False, "intermediate_timesteps": None},
    ),
    "ZImageInpaintPipeline": Editing(("ZImagePipeline",)),
    "ZImageImg2ImgPipeline": Editing(),
    "StableDiffusion3InpaintPipeline": Editing(("StableDiffusion3Pipeline",), text=_T5_OF_SD3),
    "StableDiffusion3Img2ImgPipeline": Editing(text=_T5_OF_SD3),
    "StableDiffusionXLInpaintPipeline": Editing(("StableDiffusionXLPipeline",)),
    "StableDiffusionXLImg2ImgPipeline": Editing(),
    "StableDiffusionInpaintPipeline": Editing(("StableDiffusionPipeline",)),
    "StableDiffusionImg2ImgPipeline": Editing(),
}
"""Class of an editing pipeline -> how it edits."""


def editing_of(pipeline: Any) -> Editing:
    """How a pipeline edits, by its class or that which it is made of; raises SdgError for one not known."""
    for kind in type(pipeline).__mro__:
        if kind.__name__ in KNOWN:
            return KNOWN[kind.__name__]
    raise SdgError(f"{type(pipeline).__name__} edits no pictures that way; {_known()}")


def steps_of(pipeline: Any) -> int:
    """The sampling steps of a pipeline's authors, as far as its class and its index tell; as `editing_of`."""
    editing = editing_of(pipeline)
    distilled = getattr(pipeline.config, "is_distilled", True)
    return editing.steps if distilled else editing.undistilled or editing.steps


def require_together(name: str, editing: Editing, batch_size: int, *, stochastic: bool) -> None:
    """Raise SdgError where the class `name`, or stochastic sampling, takes fewer pictures a call."""
    if batch_size > 1 and (stochastic or not editing.together):
        why = "stochastic sampling" if stochastic else name
        raise SdgError(f"{why} edits one picture at a time; leave batch_size out.")


def load_pipeline(folder: str, device: str, dtype: str, name: str = "") -> Any:
    """The editing pipeline in a folder, or that which its class of checkpoints can be loaded as.

    name: of the class, in place of the one that follows from the folder. dtype: "auto" is bfloat16, on a CPU
    float32. Raises SdgError where it cannot be loaded, naming the known classes where its own is not among
    them.
    """
    import diffusers
    import torch

    require_index(folder)
    name = name or class_of(folder)
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    settings = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    with loading(f"{folder} cannot be loaded as a {name}"):
        pipeline = getattr(diffusers, name).from_pretrained(folder, **settings)
    try:
        return pipeline.to(device)
    except torch.OutOfMemoryError:
        raise SdgError(
            f"The memory of {device} is too small for {folder} in {dtype}; "
            "take a device with more of it, or a smaller pipeline."
        ) from None


def class_of(folder: str) -> str:
    """The editing class for a folder, by the class that its index names."""
    index = require_index(folder)
    try:
        stored = json.loads(read_text(index, _MOST_BYTES))["_class_name"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise SdgError(f"{index} is damaged: it names no class; download the pipeline again.") from None
    for name, editing in KNOWN.items():
        if stored == name or stored in editing.checkpoints:
            return name
    raise SdgError(f"{shortened(folder, 80)} holds {quoted(stored)}, which edits no pictures; {_known()}")


def require_index(folder: str) -> Path:
    """A pipeline's index; raises SdgError where it is missing: diffusers would ask the hub for the folder."""
    index = Path(folder) / "model_index.json"
    if not index.is_file():
        raise SdgError(
            f"{folder} holds no pipeline (model_index.json is missing); "
            "check the path, or download the pipeline into a folder first."
        )
    return index


def _known() -> str:
    names = [*KNOWN, *(name for editing in KNOWN.values() for name in editing.checkpoints)]
    return f"known are {', '.join(names)}."
