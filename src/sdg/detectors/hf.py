"""`hf:ORG/NAME` or a checkpoint folder: any image-text-to-text model, loaded and run here."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sdg.defects import Diagnosis
from sdg.detectors.base import Stream, StreamingDetector, failed
from sdg.errors import installed, loading
from sdg.images import Pair
from sdg.models.device import choose_device
from sdg.models.vlm import Answer, LoadedModel, rope_not_interleaved
from sdg.prompting import PromptProfile
from sdg.response import cut_off, parse_response

if TYPE_CHECKING:
    from PIL import Image

_LOG = logging.getLogger("sdg.detectors")
BATCH_SIZE: Final = 8
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")


class TransformersDetector(StreamingDetector):
    """Runs a checkpoint of transformers in batches of similar length, left-padded, greedily by default.

    checkpoint: a folder, or a name on the model hub (safetensors only; code in it is never run).
    device: "auto" takes cuda, else mps, else cpu. dtype: "auto" is bfloat16, on a CPU float32. Pixel
    limits, token limit and sampling are the profile's; a seed holds for the same pairs and batch size.
    What ends at the token limit is `truncated`.
    Raises SdgError where the checkpoint cannot be loaded.
    """

    profile: PromptProfile

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        profile: PromptProfile,
        *,
        batch_size: int = BATCH_SIZE,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
    ) -> None:
        self._checkpoint, self._revision = os.fspath(checkpoint), revision
        self.profile, self.batch_size = profile, batch_size
        self._device, self._dtype = choose_device(device), dtype
        if dtype == "auto":
            self._dtype = "float32" if self._device == "cpu" else "bfloat16"
        model, processor = self._load()
        self._loaded = LoadedModel(model, processor, profile, batch_size, self.refusal)

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {
            "detector": "hf",
            "checkpoint": self._checkpoint,
            "revision": self._revision or "",
            "profile": self.profile.digest[:12],
            "dtype": self._dtype,
            "batch_size": self.batch_size,
        }

    def refusal(self, picture: Image.Image, prompt: str) -> str:
        """Why a pair is not put to the model, in one sentence; "" where it is, as here always."""
        return ""

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        for index, answer in self._loaded.answers(pairs, wanted):
            yield index, self._diagnosis(answer)

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Indices of the pairs, batch by batch: longest first, so that memory runs out early or never."""
        return self._loaded.batches(pairs)

    def _diagnosis(self, answer: Answer) -> Diagnosis:
        if answer.error:
            return failed(answer.error)
        if answer.whole and not answer.text.strip():
            return failed("The model's answer is empty.")
        diagnosis = parse_response(answer.text, require_think=self.profile.answer.think)
        return diagnosis if answer.whole else cut_off(diagnosis)

    def _load(self) -> tuple[Any, Any]:
        with installed("Running a checkpoint needs torch and transformers", "models"):
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor
        place = {"revision": self._revision, "trust_remote_code": False}
        with loading(f"{self._checkpoint} cannot be loaded as a detector"):
            processor = AutoProcessor.from_pretrained(self._checkpoint, **place)
            model = AutoModelForImageTextToText.from_pretrained(
                self._checkpoint, dtype=getattr(torch, self._dtype), use_safetensors=True, **place
            )
        if rope_not_interleaved(model.config):
            _LOG.warning(
                "%s lacks mrope_interleaved (text_config.rope_parameters of config.json): right here, "
                "silently wrong behind vLLM; set it to true.",
                self._checkpoint,
            )
        return model.to(self._device).eval(), processor
