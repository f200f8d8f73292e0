"""vLLM in GRPO: roll-outs and validation by an engine, with the very tokens that the trainer scores.

TRL hands vLLM prompts in which the picture's token stands once for each of the picture's places, as its own
model reads them, and the picture beside them. An engine in this process expands that token itself, so it is
given one (vLLM's `prompt_token_ids` with `multi_modal_data`), and says afterwards which tokens it read.
A server is given the places and the features it made of the picture, and expands nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Final

from PIL import Image

from sdg.errors import SdgError, first_line, loading_errors
from sdg.images import Pair
from sdg.models.vlm import Answer, LoadedModel, rope_not_interleaved
from sdg.training.recipe import GrpoRecipe, RolloutRecipe

Tokens = list[int]

TOGETHER: Final = 64
"""Pictures of a validation that an engine is given at a time."""
NEVER: Final = -100.0
"""The bias at which vLLM samples a token no more."""


def check_checkpoint(recipe: GrpoRecipe) -> None:
    """Raises SdgError where vLLM would read the configuration of the start otherwise than it was trained."""
    from transformers import AutoConfig

    start = recipe.model
    if recipe.rollout.engine == "transformers":
        return
    try:
        config = AutoConfig.from_pretrained(start.checkpoint, revision=start.revision)
    except loading_errors():
        return  # said when it is loaded to be trained
    if rope_not_interleaved(config):
        raise SdgError(
            f"The config.json of {start.checkpoint} leaves out mrope_interleaved, which vLLM takes for no, "
            'and answers wrongly: add "mrope_interleaved": true to its text_config.rope_parameters, or '
            "--set rollout.engine=transformers."
        )


@contextmanager
def server_errors(rollout: RolloutRecipe) -> Iterator[None]:
    """Raises SdgError for a server that cannot be reached, or was started without what training needs."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if rollout.engine != "vllm-server":
            raise
        raise SdgError(f"rollout.server {rollout.server} cannot roll out: {first_line(error)}") from error


def without_places(prompt: Sequence[int], image_token: int) -> Tokens:
    """A prompt in which each run of the picture's token is one such token."""
    found: Tokens = []
    for token, run in groupby(prompt):
        found += [token] if token == image_token else run
    return found


def sample(
    trainer: Any, prompts: Sequence[Tokens], images: Sequence[Any], group: int
) -> tuple[list[Tokens], list[list[float]]]:
    """Completions of tokenised prompts and the log-probability of each token, by the trainer's engine.

    prompts: as the trainer scores them; images: the pictures of each. group: how many prompts in a row are
    the same one. The engine first gets the weights as they are now.
    Raises SdgError where it read other tokens than those of a prompt.
    """
    engine, image_token = trainer.vllm_generation, trainer.model.config.image_token_id
    if trainer.state.global_step != trainer._last_loaded_step:
        engine.sync_weights()
        trainer._last_loaded_step = trainer.state.global_step
    expands = engine.mode == "colocate"
    given = [without_places(prompt, image_token) for prompt in prompts] if expands else list(prompts)
    # A completion with the picture's token in it could not be scored: it would stand for no picture.
    engine.generation_kwargs = {**engine.generation_kwargs, "logit_bias": {image_token: NEVER}}
    read, completions, chances, _ = engine.generate(given, images, group)
    for mine, its in zip(prompts, read, strict=True):
        if list(mine) != list(its):
            raise SdgError(
                f"vLLM read a prompt of {len(its):,} tokens where the trainer scores one of {len(mine):,}, "
                "for it reads pictures otherwise than the checkpoint's processor; nothing could be learned: "
                "take the versions of the extra `gpu`, or --set rollout.engine=transformers."
            )
    return completions, [[first for first, *_ in token] for token in chances]


def answers(trainer: Any, loaded: LoadedModel, pairs: Sequence[Pair], max_tokens: int) -> list[Answer]:
    """Greedy answers of the trainer's engine to pairs, asked and read as by `loaded`.

    With a server every process asks for as many pairs; one that cannot be asked is replaced, and said so.
    """
    found: list[Answer] = []
    for start in range(0, len(pairs), TOGETHER):
        asked, errors = [], {}
        for place, pair in enumerate(pairs[start : start + TOGETHER]):
            try:
                asked.append(loaded.asked(*pair))
            except SdgError as error:
                errors[place] = Answer("", error=str(error))
                asked.append(loaded.asked(Image.new("RGB", (256, 256)), ""))
        prompts = [loaded.tokens(*one) for one in asked]
        with _greedy(trainer.vllm_generation, max_tokens):
            written, _ = sample(trainer, prompts, [[picture] for _, picture in asked], group=1)
        found += [errors.get(place) or loaded.read(tokens) for place, tokens in enumerate(written)]
    return found


@contextmanager
def _greedy(engine: Any, max_tokens: int) -> Iterator[None]:
    """The engine's sampling settings, replaced and brought back."""
    settings = {"temperature": 0.0, "top_p": 1.0, "max_completion_length": max_tokens}
    before = {name: getattr(engine, name) for name in settings}
    for name, value in settings.items():
        setattr(engine, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(engine, name, value)
