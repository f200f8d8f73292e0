"""Training rows of the base model: pictures, token ids and, for every coordinate, the number it stands for.

Inputs hold jittered coordinates, labels the exact ones: what the model continues from is then as inexact as
what it will have written itself, while what it learns is a distribution around the truth (see `speak`).
Rows are diagnoses, and captions that list everything in a picture with its box in the style of the answer's
JSON: they teach to find things before the same words and numbers are asked of a diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from sdg.defects import BOX_SCALE, DefectType
from sdg.prompting import Generation, ImageLimits, PromptProfile
from sdg.testbed.injection import Kind, Sample, sample, vocabulary
from sdg.testbed.models.detector.build import new_tokenizer
from sdg.testbed.models.detector.dense import CELLS, dense_targets
from sdg.testbed.models.detector.see import DECODED, round_trip
from sdg.testbed.oracle import vocabulary as oracle_vocabulary
from sdg.testbed.world.boxes import to_defect_box
from sdg.testbed.world.prompts import noun
from sdg.training.dataset import jitter, target

IGNORED: Final = -100
JITTER: Final = 10
LESSON_SHARES: Final[dict[Kind, float]] = {"clean": 0.15, "artifact": 0.25, "misalignment": 0.3, "both": 0.3}
"""Shares of pictures: contradictions take longest to learn. SFT brings back how often they occur."""
TOWER_RESTS: Final = 0.4
"""Share of the steps, the first, in which the tower only looks: what comes back to it is noise at first."""
REQUEST: Final = "List every object and flaw with its box."
"""Asks for a caption; the prompts of pictures never read so."""


def base_tokenizer() -> PreTrainedTokenizerFast:
    """The embedded detector's tokenizer: the words of injection, oracle and captions."""
    return new_tokenizer([*vocabulary(), *oracle_vocabulary(), REQUEST])


@dataclass(frozen=True)
class Rows:
    """Some pictures of a batch whose texts have similar lengths, padded on the right.

    pictures: indices into the batch's pictures (N,). ids, labels: (N, L), labels −100 where nothing is
    learned; coordinate: (N, L), the number 0 … 1000 where a label is a coordinate, else −1.
    """

    pictures: Tensor
    ids: Tensor
    labels: Tensor
    coordinate: Tensor


@dataclass(frozen=True)
class Encoder:
    """Turns a request and its response into token ids as the chat template and the processor would."""

    tokenizer: PreTrainedTokenizerFast

    def row(self, request: str, response: str, truth: str) -> tuple[list[int], list[int], list[int]]:
        """ids, labels and coordinates of one row. response: with jittered boxes; truth: with the exact ones.

        The two differ in numbers alone, and a number is one token.
        """
        before = self._ids(self._opening(request))
        said, meant = (self._ids(f"{text}<|im_end|>") for text in (response, truth))
        assert len(said) == len(meant)
        nothing = [IGNORED] * len(before)
        return before + said, nothing + meant, [-1] * len(before) + self._coordinates(meant)

    def _opening(self, request: str) -> str:
        text = self.tokenizer.apply_chat_template(
            embedded_profile().render(request), tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        return text.replace("<|image_pad|>", "<|image_pad|>" * CELLS**2)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _coordinates(self, ids: list[int]) -> list[int]:
        values = [-1] * len(ids)
        for start, token in enumerate(ids):
            if token == self._box:
                for place in range(start + 1, start + 8, 2):  # four numbers, a separator between two
                    values[place] = self._value[ids[place]]
        return values

    @cached_property
    def _box(self) -> int:
        (token,) = self._ids('{"box_2d": [')
        return token

    @cached_property
    def _value(self) -> dict[int, int]:
        return {token: value for value, token in enumerate(number_tokens(self.tokenizer).tolist())}


def number_tokens(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Token ids of the numbers 0 … 1000 (1001,)."""
    return torch.tensor(tokenizer.convert_tokens_to_ids([str(value) for value in range(BOX_SCALE + 1)]))


class Lessons(Dataset[Any]):
    """Batch i is drawn from (seed, i): grounded captions, half at first and a tenth later, and diagnoses.

    A batch holds `pictures` (B, SIZE, SIZE, 3), the dense targets by name, `learns_to_see`, and `rows`: its
    texts in `parts` groups of similar length, so that short ones are not padded to long ones.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, vae: AutoencoderKL | None, size: int, steps: int, seed: int
    ) -> None:
        self._encoder, self._vae = Encoder(tokenizer), vae
        self._size, self._steps, self._seed = size, steps, seed
        self._pad = tokenizer.pad_token_id
        self.parts = 3

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self._seed, index))
        captions = round(self._size * (0.5 if index < self._steps / 2 else 0.1))
        kinds = rng.choice(list(LESSON_SHARES), size=self._size, p=list(LESSON_SHARES.values()))
        samples = [sample(rng, split="train", kind=cast(Kind, kind)) for kind in kinds.tolist()]
        rng.shuffle(samples)
        pictures = np.stack([one.picture for one in samples])
        decoded = rng.permutation(self._size)[: int(DECODED * self._size)]
        if self._vae is not None and len(decoded):
            pictures[decoded] = round_trip(self._vae, pictures[decoded])
        dense = [dense_targets(one) for one in samples]
        rows = [self._row(rng, one, number < captions) for number, one in enumerate(samples)]
        order = sorted(range(self._size), key=lambda number: len(rows[number][0]))
        groups = [list(part) for part in np.array_split(order, self.parts) if len(part)]
        return {
            "pictures": torch.from_numpy(pictures),
            "learns_to_see": index >= TOWER_RESTS * self._steps,
            **{name: torch.from_numpy(np.stack([one[name] for one in dense])) for name in dense[0]},
            "rows": [self._padded(rows, group) for group in groups],
        }

    def _row(
        self, rng: np.random.Generator, one: Sample, captioned: bool
    ) -> tuple[list[int], list[int], list[int]]:
        if captioned:
            said = caption(one)
            return self._encoder.row(REQUEST, said, said)
        answer = embedded_profile().answer
        said = target(jitter(one.diagnosis, rng, JITTER), answer)
        return self._encoder.row(one.prompt, said, target(one.diagnosis, answer))

    def _padded(self, rows: list[tuple[list[int], list[int], list[int]]], group: list[int]) -> Rows:
        longest = max(len(rows[number][0]) for number in group)
        columns = [
            torch.tensor(
                [rows[number][part] + [filler] * (longest - len(rows[number][part])) for number in group]
            )
            for part, filler in ((0, self._pad), (1, IGNORED), (2, -1))
        ]
        return Rows(torch.tensor(group), *columns)


def embedded_profile() -> PromptProfile:
    """How the embedded detector is asked: the bare prompt, for its task is always the same."""
    return PromptProfile(
        name="testbed",
        system="",
        template="{caption}",
        image=ImageLimits(max_pixels=128 * 128, longest_side=128),
        generation=Generation(max_new_tokens=384),
    )


def caption(sample: Sample) -> str:
    """Objects from left to right, then artifacts, each with box and name, one a line."""
    size = sample.picture.shape[0]
    found = [(to_defect_box(o.box, size), noun(o.colour, o.shape)) for o in sample.objects]
    found.sort(key=lambda item: (item[0][0] + item[0][2], item[0][1] + item[0][3]))
    flaws = sample.diagnosis.of_type(DefectType.ARTIFACT)
    found += [(defect.box, defect.subtype or "artifact") for defect in flaws]
    if not found:
        return "[]"
    lines = [f'  {{"box_2d": {list(box)}, "label": "{name}"}}' for box, name in found]
    return "[\n" + ",\n".join(lines) + "\n]"
