"""A vision-language model in memory that generates answers about pairs, in batches; also one in training."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from sdg.errors import SdgError
from sdg.images import Pair, Source, image_size, rgb_picture
from sdg.prompting import PromptProfile

_PIXELS_A_TOKEN: Final = 32 * 32  # of Qwen3-VL; only orders images by length, so near enough for others
LETTERS: Final = 4
"""Letters of a token of English, about."""
_TAG: Final = re.compile(r"<[^<>\s]+>")


Refusal = Callable[[Image.Image, str], str]
"""Picture, within the profile's limits, and prompt -> why the model is not to be asked; "" where it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote about one pair.

    whole: it ended by itself, not at the token limit. error: why the pair could not be asked, if so.
    """

    text: str
    whole: bool = True
    error: str = ""


class LoadedModel:
    """A model and its processor, asked as a profile says; the model itself stays as it is.

    Batches of similar length, left-padded, on the model's own device. The token limit and the sampling are
    the profile's; a seed holds for the same pairs and batch size. What `refusal` objects to is not asked.
    Raises SdgError where neither the model nor its tokenizer names an end token.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        profile: PromptProfile,
        batch_size: int,
        refusal: Refusal | None = None,
    ) -> None:
        self._model, self._processor, self._refusal = model, processor, refusal
        self._profile, self._batch_size = profile, batch_size
        self._end = _end_tokens(model, processor)
        self._samples = profile.generation.temperature > 0
        self._control = control_tokens(processor.tokenizer)

    def answers(
        self, pairs: Sequence[Pair], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Answer]]:
        """Index and answer of each wanted pair (of all by default), batch by batch.

        Raises SdgError where memory is too small for a batch.
        """
        wanted = range(len(pairs)) if wanted is None else wanted
        for batch in self.batches(pairs):
            if any(index in wanted for index in batch):
                for index, answer in self._run(pairs, batch, wanted):
                    if index in wanted:
                        yield index, answer

    def batches(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Indices of the pairs, batch by batch: longest first, so that memory runs out early or never."""
        lengths = [self._length(pair) for pair in pairs]
        order = sorted(range(len(pairs)), key=lambda index: (-lengths[index], index))
        return [order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size)]

    def _length(self, pair: Pair) -> int:
        """About how many tokens a pair takes; 0 where its image cannot be read."""
        image, prompt = pair
        try:
            if isinstance(image, (str, os.PathLike)):
                size = image_size(image)
            else:
                size = (image if isinstance(image, Image.Image) else rgb_picture(image)).size
        except SdgError:
            return 0
        width, height = self._profile.image.fit(*size)
        return width * height // _PIXELS_A_TOKEN + len(str(prompt)) // LETTERS

    def _run(
        self, pairs: Sequence[Pair], batch: Sequence[int], wanted: Collection[int]
    ) -> Iterator[tuple[int, Answer]]:
        """The answers of a batch; what cannot be asked is left out of it and said so."""
        asked: dict[int, tuple[str, Image.Image]] = {}
        for index in batch:
            try:
                asked[index] = self.asked(*pairs[index])
            except SdgError as error:
                yield index, Answer("", error=str(error))
        try:
            inputs = self._inputs(list(asked.values())) if asked else None
        except ValueError:
            # Of one picture, such as a line 1 pixel high: which one, the processor does not say.
            for index in list(asked):
                try:
                    self._inputs([asked[index]])
                except ValueError as error:
                    del asked[index]
                    yield index, Answer("", error=f"The model's processor refuses this pair: {error}")
            inputs = self._inputs(list(asked.values())) if asked else None
        if inputs is not None and any(index in wanted for index in asked):
            yield from zip(asked, self._generate(inputs, seed=batch[0]), strict=True)

    def asked(self, image: Source, prompt: str) -> tuple[str, Image.Image]:
        """Text and picture of a pair as the model gets them; raises SdgError where it is not to be asked."""
        messages = self._profile.render(prompt)
        # In a prompt such a token would be taken for the model's own, and end the turn or ask for an image.
        for token in self._control:
            if token in prompt:
                raise SdgError(f"The prompt holds {token}, which has a meaning to the model; remove it.")
        text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)  # up to where the answer begins
        picture = rgb_picture(image, self._profile.image.fit)
        if self._refusal is not None and (why := self._refusal(picture, prompt)):
            raise SdgError(why)
        return text, picture

    def _inputs(self, asked: Sequence[tuple[str, Image.Image]]) -> Any:
        """Model inputs, left-padded: input_ids (B, L) and what the processor prepares of the pictures."""
        texts, pictures = [text for text, _ in asked], [picture for _, picture in asked]
        return self._processor(
            images=pictures, text=texts, padding=True, padding_side="left", return_tensors="pt"
        )

    def _generate(self, inputs: Any, seed: int) -> list[Answer]:
        import torch

        from sdg.models.batching import generate

        device, generation = self._model.device, self._profile.generation
        inputs = inputs.to(device, dtype=self._model.dtype)  # of what is floating point
        seed += generation.seed
        try:
            with torch.random.fork_rng(enabled=self._samples), torch.no_grad(), self._own_sampling():
                if self._samples:
                    torch.manual_seed(seed)
                written = generate(self._model, dict(inputs), self._end, generation.max_new_tokens)
        except torch.OutOfMemoryError:
            raise SdgError(
                f"The memory of {device} is too small for {len(inputs['input_ids'])} images at a time; "
                "make the batch size smaller."
            ) from None
        return [self.read(tokens) for tokens in written]

    def tokens(self, text: str, picture: Image.Image) -> list[int]:
        """The tokens that the model reads of what `asked` gives, one for each of the picture's places."""
        ids = self._processor(images=[picture], text=[text])["input_ids"][0]
        return [int(token) for token in ids]

    def read(self, tokens: list[int]) -> Answer:
        """The answer in the tokens a model wrote, padding included."""
        end = next((place for place, token in enumerate(tokens) if token in self._end), None)
        text = self._processor.tokenizer.decode(
            tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Answer(text, whole=end is not None)

    @contextmanager
    def _own_sampling(self) -> Iterator[None]:
        """The profile's settings in place of the model's, which come back afterwards.

        Replaced, not updated: what a checkpoint suggests for chatting must not leak into greedy decoding.
        """
        from transformers import GenerationConfig

        generation, pad = self._profile.generation, self._processor.tokenizer.pad_token_id
        sampling: dict[str, Any] = {"do_sample": self._samples}
        if self._samples:
            sampling |= {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
        config = GenerationConfig(
            max_new_tokens=generation.max_new_tokens,
            eos_token_id=sorted(self._end),
            pad_token_id=min(self._end) if pad is None else pad,
            **sampling,
        )
        # A model with an adapter hands its settings down to the one inside, which has to get its own back.
        inner = getattr(self._model, "get_base_model", lambda: self._model)()
        before = [(model, model.generation_config) for model in (self._model, inner)]
        self._model.generation_config = config
        try:
            yield
        finally:
            for model, own in before:
                model.generation_config = own


def _end_tokens(model: Any, processor: Any) -> frozenset[int]:
    """Ids that end an answer, by the model or by its tokenizer."""
    named = model.generation_config.eos_token_id
    ids = [*(named if isinstance(named, list) else [named]), processor.tokenizer.eos_token_id]
    if not (known := frozenset(token for token in ids if token is not None)):
        raise SdgError("The checkpoint names no end token, so no answer would ever end; set eos_token_id.")
    return known


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts that a tokenizer reads as one of its model's special tokens, wherever they stand.

    They are left out when an answer is decoded.
    """
    added = tokenizer.added_tokens_decoder.values()
    return tuple(dict.fromkeys([*tokenizer.all_special_tokens, *(t.content for t in added if t.special)]))


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts that a prompt must not hold: special tokens, and added ones that are tags, such as `<think>`.

    Qwen3's `<think>` and `<tool_call>` are not special, so that they stay in decoded answers; in a prompt
    they are the model's own tokens all the same.
    """
    added = (token.content.strip() for token in tokenizer.added_tokens_decoder.values())
    return tuple(dict.fromkeys([*special_tokens(tokenizer), *filter(_TAG.fullmatch, added)]))


def rope_not_interleaved(config: Any) -> bool:
    """Whether the configuration of a Qwen3-VL model leaves out `mrope_interleaved`.

    transformers interleaves its rotary positions whatever the file says; vLLM reads the key and takes its
    absence for no, so that its answers would be wrong with no error.
    """
    text = getattr(config, "text_config", None)
    if not str(getattr(text, "model_type", "")).startswith("qwen3_vl"):
        return False
    return not (getattr(text, "rope_parameters", None) or {}).get("mrope_interleaved", False)
