"""`hf:ORG/NAME` or a checkpoint folder: any image-text-to-text model, loaded and run here."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sdg.detectors.base import Outcome, Pair, StreamingDetector, failed
from sdg.detectors.turns import chat_turns, fitted_picture
from sdg.errors import SdgError
from sdg.images import image_size
from sdg.prompting import PromptProfile
from sdg.response import cut_off, parse_response

if TYPE_CHECKING:
    from PIL import Image

BATCH_SIZE: Final = 8
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
_PIXELS_A_TOKEN: Final = 32 * 32  # of Qwen3-VL; only orders images by length, so near enough for others
_LETTERS_A_TOKEN: Final = 4


class TransformersDetector(StreamingDetector):
    """Runs a checkpoint of transformers in batches of similar length, left-padded, greedily by default.

    checkpoint: a folder, or a name on the model hub (safetensors only; code in it is never run).
    device: "auto" takes cuda, else mps, else cpu. dtype: "auto" is bfloat16, on a CPU float32. Pixel
    limits, token limit and sampling are the profile's; a seed holds for the same pairs and batch size.
    What ends at the token limit is `truncated`.
    Raises SdgError where the checkpoint cannot be loaded.
    """

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
        self._profile, self._batch_size = profile, batch_size
        self._device, self._dtype = choose_device(device), dtype
        if dtype == "auto":
            self._dtype = "float32" if self._device == "cpu" else "bfloat16"
        self._model, self._processor = self._load()
        self._end = _end_tokens(self._model, self._processor)
        self._samples = profile.generation.temperature > 0
        self._special = _special_tokens(self._processor.tokenizer)
        # Replaced, not updated: what a checkpoint suggests for chatting must not leak into greedy decoding.
        self._model.generation_config = self._generation_config()

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {
            "detector": "hf",
            "checkpoint": self._checkpoint,
            "revision": self._revision or "",
            "profile": self._profile.digest[:12],
            "dtype": self._dtype,
            "batch_size": self._batch_size,
        }

    def stream(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        wanted = range(len(pairs)) if wanted is None else wanted
        for batch in self.batches(pairs):
            if any(index in wanted for index in batch):
                for index, outcome in self._run(pairs, batch, wanted):
                    if index in wanted:
                        yield index, outcome

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Indices of the pairs, batch by batch: longest first, so that memory runs out early or never."""
        lengths = [self._length(pair) for pair in pairs]
        order = sorted(range(len(pairs)), key=lambda index: (-lengths[index], index))
        return [order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size)]

    def _length(self, pair: Pair) -> int:
        """About how many tokens a pair takes; 0 where its image cannot be read."""
        image, prompt = pair
        try:
            size = image_size(image) if isinstance(image, (str, os.PathLike)) else image.size
        except (SdgError, AttributeError):
            return 0
        width, height = self._profile.image.fit(*size)
        return width * height // _PIXELS_A_TOKEN + len(str(prompt)) // _LETTERS_A_TOKEN

    def _run(
        self, pairs: Sequence[Pair], batch: Sequence[int], wanted: Collection[int]
    ) -> Iterator[tuple[int, Outcome]]:
        """The outcomes of a batch; what cannot be asked is left out of it and failed."""
        asked: dict[int, tuple[str, Image.Image]] = {}
        for index in batch:
            try:
                asked[index] = self._text(pairs[index][1]), fitted_picture(pairs[index][0], self._profile)
            except SdgError as error:
                yield index, failed(str(error))
        try:
            inputs = self._inputs(list(asked.values())) if asked else None
        except (
            ValueError
        ):  # of one picture, such as a line 1 pixel high: which one, the processor does not say
            for index in list(asked):
                try:
                    self._inputs([asked[index]])
                except ValueError as error:
                    del asked[index]
                    yield index, failed(f"The model's processor refuses this pair: {error}")
            inputs = self._inputs(list(asked.values())) if asked else None
        if inputs is not None and any(index in wanted for index in asked):
            yield from zip(asked, self._generate(inputs, seed=batch[0]), strict=True)

    def _text(self, prompt: str) -> str:
        """What the model reads, up to where its answer begins."""
        turns = chat_turns(self._profile, prompt, {"type": "image"})
        # In a prompt such a token would be taken for the model's own, and end the turn or ask for an image.
        for token in self._special:
            if token in prompt:
                raise SdgError(f"The prompt holds {token}, which has a meaning to the model; remove it.")
        text = self._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    def _inputs(self, asked: Sequence[tuple[str, Image.Image]]) -> Any:
        """Model inputs, left-padded: input_ids (B, L) and whatever the processor makes of the pictures."""
        texts, pictures = [text for text, _ in asked], [picture for _, picture in asked]
        return self._processor(images=pictures, text=texts, padding=True, return_tensors="pt")

    def _generate(self, inputs: Any, seed: int) -> list[Outcome]:
        import torch

        inputs = inputs.to(self._device, dtype=self._model.dtype)  # of what is floating point
        seed += self._profile.generation.seed
        try:
            with torch.random.fork_rng(enabled=self._samples), torch.inference_mode():
                if self._samples:
                    torch.manual_seed(seed)
                output = self._model.generate(**inputs)
        except torch.OutOfMemoryError:
            raise SdgError(
                f"The memory of {self._device} is too small for {len(inputs['input_ids'])} images at a time; "
                "make the batch size smaller."
            ) from None
        start = inputs["input_ids"].shape[1]
        return [self._read(row[start:].tolist()) for row in output]

    def _read(self, tokens: list[int]) -> Outcome:
        """The outcome of the tokens a model wrote, padding included."""
        end = next((place for place, token in enumerate(tokens) if token in self._end), None)
        text = self._processor.tokenizer.decode(
            tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        if end is not None and not text.strip():
            return failed("The model's answer is empty.")
        diagnosis = parse_response(text, require_think=self._profile.answer.think)
        return Outcome(diagnosis if end is not None else cut_off(diagnosis))

    def _load(self) -> tuple[Any, Any]:
        try:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as error:
            raise SdgError(
                f"Running a checkpoint needs {error.name}: pip install 'structured-defect-grounding[models]'."
            ) from None
        place = {"revision": self._revision, "trust_remote_code": False}
        try:
            processor = AutoProcessor.from_pretrained(self._checkpoint, **place)
            model = AutoModelForImageTextToText.from_pretrained(
                self._checkpoint, dtype=getattr(torch, self._dtype), use_safetensors=True, **place
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SdgError(f"{self._checkpoint} cannot be loaded as a detector: {reason}") from error
        processor.tokenizer.padding_side = "left"
        return model.to(self._device).eval(), processor

    def _generation_config(self) -> Any:
        from transformers import GenerationConfig

        generation, pad = self._profile.generation, self._processor.tokenizer.pad_token_id
        sampling: dict[str, Any] = {"do_sample": self._samples}
        if self._samples:
            sampling |= {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=generation.max_new_tokens,
            eos_token_id=sorted(self._end),
            pad_token_id=min(self._end) if pad is None else pad,
            **sampling,
        )


def choose_device(name: str) -> str:
    """The device of a name; "auto" takes cuda, else mps, else cpu. Raises SdgError if there is none."""
    try:
        import torch
    except ImportError:
        raise SdgError(
            "Running a checkpoint needs torch: pip install 'structured-defect-grounding[models]'."
        ) from None
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SdgError(f"There is no device {name!r} here; take auto, cpu, cuda, cuda:1 or mps.") from None
    return name


def _end_tokens(model: Any, processor: Any) -> frozenset[int]:
    """Ids that end an answer."""
    ids = model.generation_config.eos_token_id
    ids = processor.tokenizer.eos_token_id if ids is None else ids
    if ids is None:
        raise SdgError("The checkpoint names no end token, so no answer would ever end; set eos_token_id.")
    return frozenset(ids if isinstance(ids, list) else [ids])


def _special_tokens(tokenizer: Any) -> tuple[str, ...]:
    added = tokenizer.added_tokens_decoder.values()
    return tuple(dict.fromkeys([*tokenizer.all_special_tokens, *(t.content for t in added if t.special)]))
