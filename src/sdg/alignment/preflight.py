"""The dry run of an alignment: prompts, servers, the generator at real size, memory, disk and hours.

Nothing is loaded but configurations, so a laptop without weights or GPU does. Servers are asked about one
picture, where the recipe names some.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from PIL import Image

from sdg.alignment.memory import (
    Passes,
    memory,
    of_pictures,
    passes,
    trained_bytes,
    trained_parameters,
    weights,
)
from sdg.alignment.policies.base import FlowPolicy
from sdg.alignment.policies.real_size import KnownModel, configured, policy_on_meta, text_bytes
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rollout import read_prompt_sets, require_processes, run_prompts, share
from sdg.alignment.update import said_of_average
from sdg.detectors import load_detector, parts_of, require_detector
from sdg.detectors.base import StreamingDetector
from sdg.errors import SdgError, quoted
from sdg.io.chat import require_served
from sdg.io.uri import SERVED, model_location, split_options
from sdg.models.lora import require_lora
from sdg.models.vlm import LETTERS
from sdg.runs.rehearsal import CUDA, GB, GPUS, Rehearsal
from sdg.scorers import load_scorer, require_scorer

T = TypeVar("T")
_PIXELS: Final = 28
"""Side of the part of a picture that is a token, at least, in today's vision-language models."""


def preflight(recipe: AlignRecipe, *, gpu: str, processes: int, out: Path | None = None) -> Rehearsal:
    """Check an alignment by so many processes, one a GPU; hours and memory are estimates.

    out: the run's folder, for the disk it is on.
    """
    page = Rehearsal(gpu, processes)
    page.check(
        "groups",
        lambda: share(recipe, 0, processes),
        lambda steps: f"{len(steps)} steps an epoch, each on {len(steps[0].own)} pictures a process",
    )
    if recipe.run.sharding is not None:
        page.check(
            "run.sharding",
            lambda: require_processes(recipe, processes),
            lambda _: f"{processes} processes share the transformer's weights",
        )
    sets = page.check(
        "prompts",
        lambda: read_prompt_sets(recipe.prompts),
        lambda found: f"{len(found[0]):,} to train on, {len(found[1]):,} held out",
    )
    train, held_out = sets[:2] if sets else ([], [])
    if sentence := said_of_average(recipe, recipe.epochs):
        page.say("optimizer", sentence)
    if sets:
        longest = max(len(prompt) for prompt in (*train, *held_out)) // LETTERS
        page.say(
            "tokens",
            f"about {longest} in the longest prompt; beyond policy.max_sequence_length, "
            f"{recipe.policy.max_sequence_length}, they are cut",
        )
    _ask_servers(page, recipe, train[0] if train else "a red cup on a table")
    known = page.check(
        "policy.model",
        lambda: configured(recipe.policy.family, model_location(recipe.policy.model)),
        lambda found: f"{found.transformer['_class_name']} of {found.model}",
    )
    if known is None:
        return page
    policy = page.check(
        "policy", lambda: _policy(recipe, known), lambda made: f"{_sizes(made)}, locations {made.grid}"
    )
    if policy is None:
        return page
    if (folder := recipe.policy.adapter) is not None:
        page.check("policy.adapter", lambda: require_lora(folder), str)
    taken = passes(policy, recipe.sampling.batch_size)
    try:
        page.memory |= memory(recipe, policy, known, taken, processes)
    except SdgError as error:
        page.say("memory", f"not known. {error}")
    page.require_memory()
    if page.memory:
        _room(page, recipe, policy, taken)
    _disk(page, recipe, policy, set(run_prompts(recipe, train, held_out)) if sets else None, out)
    _hours(page, recipe, taken)
    return page


def _policy(recipe: AlignRecipe, known: KnownModel) -> FlowPolicy:
    policy = policy_on_meta(recipe.policy, known)
    if known.scheduler is not None:
        policy.sigmas(recipe.sampling.steps)  # raises where the schedule has too few steps
    return policy


def _sizes(policy: FlowPolicy) -> str:
    trained = trained_parameters(policy)
    every = sum(parameter.numel() for parameter in policy.transformer.parameters())
    if policy.recipe.lora is None:
        return f"{every / 1e9:.2f} B parameters, {trained / 1e9:.2f} B of which are trained"
    return f"{(every - trained) / 1e9:.2f} B parameters, and {trained / 1e6:.1f} M that are trained"


def _room(page: Rehearsal, recipe: AlignRecipe, policy: FlowPolicy, taken: Passes) -> None:
    """How many pictures at a time fit and, where these do not, whether shared weights would let them."""

    def fitting(parts: dict[str, float]) -> int | None:
        of_one = of_pictures(recipe, taken)
        fixed = sum(size for name, size in parts.items() if name not in of_one) + CUDA
        most = (GPUS[page.gpu].memory * GB - fixed) / sum(of_one.values())
        batches = range(recipe.groups.prompts * recipe.groups.size, 0, -1)
        return next((b for b in batches if b <= most and _divides(recipe, b, page.processes)), None)

    fits = fitting(page.memory)
    page.numbers["largest batch"] = fits or 0
    said = f"at most {fits} fit and divide" if fits else "not even 1 fits beside the weights"
    if not page.holds("memory") and recipe.run.sharding is None and page.processes > 1:
        shared = replace(recipe, run=replace(recipe.run, sharding="fsdp"))
        parts = {n: b for n, b in page.memory.items() if n not in weights(recipe, policy, page.processes)}
        parts |= weights(shared, policy, page.processes)
        need, batch = (sum(parts.values()) + CUDA) / GB, fitting(parts)
        said += f"; with run.sharding fsdp about {need:.1f} GB a GPU, and at most {batch or 'none'} fit"
    page.say("sampling.batch_size", said)


def _divides(recipe: AlignRecipe, batch: int, processes: int) -> bool:
    """Whether batches of this size divide among the processes."""
    try:
        share(replace(recipe, sampling=replace(recipe.sampling, batch_size=batch)), 0, processes)
    except SdgError:
        return False
    return True


def _ask_servers(page: Rehearsal, recipe: AlignRecipe, prompt: str) -> None:
    """One picture to every server, at the size that is drawn."""
    size = recipe.policy.width, recipe.policy.height
    picture = Image.linear_gradient("L").resize(size).convert("RGB")

    def ask(
        uris: Sequence[tuple[str, str]],
        named: Callable[[str], object],
        asked: Callable[[str], T],
        said: Callable[[T], str],
    ) -> None:
        for what, uri in uris:
            if uri.partition(":")[0] in SERVED:
                page.check(what, partial(asked, uri), said)
            else:
                try:
                    named(uri)
                except SdgError as error:
                    page.require(what, False, str(error))
                else:
                    page.say(what, "not loaded or asked here")

    ask(
        [(what, part) for what, uri in recipe.detector_uris for part in parts_of(uri)],
        require_detector,
        lambda uri: _probe_detector(uri, picture, prompt),
        lambda seconds: f"answers about a picture in {seconds:.1f} s",
    )
    ask(
        recipe.scorer_uris,
        require_scorer,
        lambda uri: _score(uri, picture, prompt),
        lambda seconds: f"scores a picture in {seconds:.1f} s",
    )


def _score(uri: str, picture: Any, prompt: str) -> float:
    """Seconds that a scorer's server takes; raises SdgError where it gives no score."""
    scorer = load_scorer(uri)
    scheme, _, place = split_options(uri)[0].partition(":")
    if scheme == "unified-reward":
        base_url, _, model = place.partition("#")
        require_served(base_url, _key_of(uri), model)
    began = time.monotonic()
    if scorer.score([picture], [prompt])[0] is None:
        raise SdgError(f"{place} gives no score that can be read; its log above says why.")
    return time.monotonic() - began


def _disk(
    page: Rehearsal, recipe: AlignRecipe, policy: FlowPolicy, prompts: set[str] | None, out: Path | None
) -> None:
    """What a run writes; prompts: None where they are not known."""
    trained = trained_parameters(policy)
    kept = sum(trained_bytes(recipe, 1).values()) - 4  # no gradients
    width = 4 if recipe.policy.lora is not None else getattr(torch, recipe.policy.dtype).itemsize
    run = (recipe.run.keep + 1) * kept * trained + 2 * width * trained  # best and final
    said = f"a checkpoint takes {kept * trained / GB:.1f} GB, the run up to {run / GB:.1f}"
    if recipe.run.sharding is not None:
        said += ", and the first process as much main memory as a checkpoint"
    if recipe.policy.text_cache is None:
        page.require_disk(said, run, out)
        return
    if prompts is None:
        page.say("disk", f"{said}; how much policy.text_cache takes is not known without the prompts")
        return
    texts = text_bytes(policy) * len(prompts)
    said += f", {len(prompts):,} prompts in policy.text_cache up to {texts / GB:.1f}"
    page.require_disk(said, run + texts, Path(recipe.policy.text_cache).absolute())


def _hours(page: Rehearsal, recipe: AlignRecipe, taken: Passes) -> None:
    sampling, batch = recipe.sampling, recipe.sampling.batch_size
    rows = recipe.groups.prompts * recipe.groups.size
    batches = ceil(rows / page.processes / batch)
    drawing = batches * (sampling.steps * taken.sampling.flop + taken.decoding.flop)
    each = taken.training.flop
    if recipe.forward:
        each += taken.sampling.flop  # of the old policy
    if recipe.optimizer.kl > 0:
        each += taken.sampling.flop  # of the model before training
    levels = (recipe.nft.levels or sampling.steps) if recipe.forward else sampling.sde_steps_per_epoch
    learning = batches * levels * each
    watched = ceil(ceil(recipe.monitor.prompts / page.processes) / batch) if recipe.monitor.measures() else 0
    watching = recipe.measurements * watched * recipe.monitor.steps * taken.sampling.flop
    page.numbers |= {
        "epochs": recipe.epochs,
        "TFLOP a pass of a picture": taken.sampling.flop / batch / 1e12,
        "TFLOP a training pass of a picture": taken.training.flop / batch / 1e12,
    }
    page.say_time(
        f"{recipe.epochs:,} epochs of {rows:,} pictures, {taken.sampling.flop / batch / 1e12:.1f} TFLOP a "
        "pass of a picture",
        recipe.epochs * (drawing + learning) + watching,
        "scores come on top where servers are slower than that",
    )


def _key_of(uri: str) -> str:
    """The API key of a URI, as its detector reads it."""
    return os.environ.get(split_options(uri)[1].get("key", "OPENAI_API_KEY"), "")


def _probe_detector(uri: str, picture: Image.Image, prompt: str) -> float:
    """Seconds that a detector's server takes; raises SdgError where a run would get nothing from it."""
    detector = load_detector(uri, attempts=1)
    base_url, _, model = split_options(uri)[0].partition(":")[2].partition("#")
    tokens = require_served(base_url, _key_of(uri), model)
    if tokens is not None:
        _require_room(detector, tokens, picture, prompt)
    began = time.monotonic()
    (diagnosis,) = detector.diagnose([(picture, prompt)])
    if diagnosis.error:
        raise SdgError(f"{base_url}: {diagnosis.error}")
    if not diagnosis.is_informative:
        raise SdgError(
            f"{model} answers, and not as a detector of this wording: {quoted(diagnosis.raw)}; "
            "name its profile."
        )
    return time.monotonic() - began


def _require_room(detector: StreamingDetector, tokens: int, picture: Image.Image, prompt: str) -> None:
    """Raise SdgError where a question and the longest answer are more than the server reads."""
    profile = detector.profile
    assert profile is not None
    width, height = profile.image.fit(*picture.size)
    words = len(profile.system) + len(profile.template or "") + len(prompt)
    question = (width // _PIXELS) * (height // _PIXELS) + words // LETTERS
    if question + profile.generation.max_new_tokens > tokens:
        raise SdgError(
            f"The server reads {tokens:,} tokens (--max-model-len of vLLM); a question takes about "
            f"{question:,} and an answer up to {profile.generation.max_new_tokens:,}, by the profile."
        )
