"""Prompts' embeddings on disk, so that the text encoders need not stay in memory.

FLUX.1's T5 alone takes 9.5 GB in bf16. A prompt is encoded once, by any run of the same generator.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sdg.alignment.recipe import PolicyRecipe
from sdg.errors import SdgError
from sdg.io.files import atomic_writer, is_folder, open_binary
from sdg.io.uri import model_location

TextFeatures = Mapping[str, Tensor]
"""Embeddings of a batch of prompts by name, such as tokens (B, L, D), mask (B, L) or pooled (B, P)."""


class TextCache:
    """Embeddings by generator and prompt, one file each below `policy.text_cache`, as they were computed."""

    def __init__(self, recipe: PolicyRecipe) -> None:
        assert recipe.text_cache is not None
        self.folder = Path(recipe.text_cache)
        location = model_location(recipe.model)
        settings = (recipe.family, recipe.dtype, recipe.max_sequence_length, _identity(location))
        self._generator = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def __contains__(self, prompt: str) -> bool:
        return self._path(prompt).is_file()

    def read(self, prompt: str) -> TextFeatures:
        """The embeddings of a prompt; raises SdgError where it was not encoded, or its file is damaged."""
        path = self._path(prompt)
        with open_binary(path) as file:
            content = file.read()
        try:
            return load(content)
        except SafetensorError as error:
            raise SdgError(f"{path} is damaged; delete it, and begin again or --resume.") from error

    def write(self, prompt: str, features: TextFeatures) -> None:
        """Keep the embeddings of a prompt; raises SdgError where the disk refuses."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in features.items()}
        with atomic_writer(self._path(prompt)) as file:
            file.write(save(tensors))

    def fill(self, prompts: Iterable[str], encoder: Callable[[], Callable[[str], TextFeatures]]) -> None:
        """Encode the prompts that are missing, together with all processes of this machine.

        encoder: loads what encodes one prompt; it is not called where nothing is missing, and what it loads
        is freed afterwards.
        """
        from accelerate import PartialState

        processes = PartialState()
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self]
        processes.wait_for_everyone()  # until all have looked: what is missing is shared out
        together = int(os.environ.get("LOCAL_WORLD_SIZE", processes.num_processes))
        if own := missing[processes.local_process_index :: together]:
            encode = encoder()
            for prompt in own:
                self.write(prompt, encode(prompt))
            del encode
            gc.collect()  # a pipeline is full of cycles
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        processes.wait_for_everyone()

    def _path(self, prompt: str) -> Path:
        key = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / self._generator / key[:2] / f"{key}.safetensors"


def _identity(location: str) -> list[Any]:
    """What tells a generator's text encoders from others': hub id, or folder, sizes and times of files."""
    if not is_folder(location):
        return [location]
    folder = Path(location).resolve()
    files = sorted(file for part in ("text_encoder*", "tokenizer*") for file in folder.glob(f"{part}/*"))
    stamps = [
        (file.relative_to(folder).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files
    ]
    return [str(folder), stamps]
