"""From annotation files to training rows: what is asked, what is to be answered, and what had to be left out.

A row holds texts and a path only. Pictures are decoded, and coordinates jittered, when a batch is made.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdg.data.formats import read_records
from sdg.defects import Diagnosis
from sdg.errors import SdgError
from sdg.images import image_size
from sdg.io.files import open_binary
from sdg.io.paths import data_path
from sdg.models.vlm import control_tokens, special_tokens
from sdg.prompting import AnswerParts, PromptProfile, trim_reasoning
from sdg.prompting.chat import chat_messages
from sdg.records import Record
from sdg.response import format_fault, render_response

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
"""id, image (path), caption, truth (`pack_truth`), length (tokens of prompt and target)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The usable rows of one annotation file; left_out: why rows are not used, and how many."""

    rows: tuple[Row, ...]
    left_out: Mapping[str, int]
    digest: str  # SHA-256 of the file

    def __len__(self) -> int:
        return len(self.rows)

    def dataset(self) -> Dataset:
        """The rows as a `datasets.Dataset`, which the trainers take."""
        from datasets import Dataset

        return Dataset.from_list(list(self.rows))

    def summary(self) -> dict[str, Any]:
        """Counts and digest, for the manifest of a run."""
        return {"rows": len(self), "left_out": dict(self.left_out), "sha256": self.digest}


def target(diagnosis: Diagnosis, answer: AnswerParts) -> str:
    """The response to be learned: the parts the profile asks for, with only those steps of the reasoning."""
    trimmed = replace(diagnosis, reasoning=trim_reasoning(diagnosis.reasoning, answer.steps))
    return render_response(trimmed, **answer.rendering())


def pack_truth(diagnosis: Diagnosis) -> str:
    """A truth as JSON text, which a column of a `datasets.Dataset` can hold."""
    return json.dumps(replace(diagnosis, raw="").to_dict())


@lru_cache(maxsize=4096)
def unpack_truth(text: str) -> Diagnosis:
    """The inverse of `pack_truth`; a group's completions share one truth, so the last ones are kept."""
    return Diagnosis.from_dict(json.loads(text))


def read_rows(
    path: Path,
    images: Path | None,
    profile: PromptProfile,
    processor: Any,
    *,
    max_length: int,
    targets: bool,
    limit: int | None = None,
    allow_outside: bool = False,
) -> Rows:
    """The rows of an annotation file that can be trained on, or answered and scored, with this profile.

    images: folder of the pictures, by default the annotation file's. targets: whether the row's own response
    is learned, so that it must be whole and counts towards `max_length`. allow_outside: whether a picture's
    path may lead out of that folder. Raises SdgError where one does, where the file cannot be read, and where
    no row is left, saying why.
    """
    folder = path.parent if images is None else images
    with open_binary(path) as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    tokenizer = processor.tokenizer
    terms = _Terms(
        profile, processor, max_length, targets, control_tokens(tokenizer), special_tokens(tokenizer)
    )
    for number, record in enumerate(read_records(path)):
        if limit is not None and number == limit:
            break
        picture = data_path(record.filepath, folder, allow_outside=allow_outside)
        found = _row(record, number, picture, terms)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            rows.append(found)
    if not rows:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in left_out.most_common())
        raise SdgError(f"No row of {path} can be used: {reasons}.")
    return Rows(tuple(rows), dict(left_out), digest)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a record must meet to become a row."""

    profile: PromptProfile
    processor: Any
    max_length: int
    targets: bool
    control: Sequence[str]  # the model's own tokens, which no prompt may hold
    special: Sequence[str]  # those of them that no answer may hold, as its own tags may be others

    def is_text(self, text: str, own: Sequence[str]) -> bool:
        """Whether a tokenizer reads it as text; half a surrogate pair, which JSON can hold, is none.

        own: the model's own tokens, which it must not hold.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
        return not any(token in text for token in own)

    def length(self, caption: str, size: tuple[int, int], response: str) -> int:
        """Tokens of a question about a picture of this size, and of the response if there is one."""
        messages = question(self.profile, caption)
        if response:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        text = self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not response
        )
        width, height = self.profile.image.fit(*size)
        reader = self.processor.image_processor
        patches = int(reader.get_number_of_image_patches(height, width, {}))
        # The text holds one of the picture's tokens already.
        words = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return len(words) + patches // reader.merge_size**2 - 1


def _row(record: Record, number: int, image: Path, terms: _Terms) -> Row | str:
    """The row of a record, or why it cannot be used."""
    diagnosis = record.diagnosis
    if diagnosis is None or not diagnosis.is_informative:
        return "not annotated"
    try:
        size = image_size(image)
    except SdgError:
        return "picture missing or unreadable"
    response = ""
    if not terms.is_text(record.prompt, terms.control):
        return "prompt with one of the model's own tokens, or no whole text"
    if terms.targets:
        answer = terms.profile.answer
        if answer.think and not diagnosis.reasoning.strip():
            return "no reasoning to learn the think block from"
        response = target(diagnosis, answer)
        if format_fault(response, **answer.gate()) is not None:
            return "defects without what the profile asks for"
        if not terms.is_text(response, terms.special):
            return "answer with one of the model's own tokens, or no whole text"
    length = terms.length(record.prompt, size, response)
    if length > terms.max_length:
        return f"more than {terms.max_length:,} tokens"
    return {
        "id": number,
        "image": str(image),
        "caption": record.prompt,
        "truth": pack_truth(diagnosis),
        "length": length,
    }


def question(profile: PromptProfile, caption: str) -> list[dict[str, Any]]:
    """The chat messages that ask about one picture, as every detector asks; the image is a placeholder."""
    return chat_messages(profile, caption, {"type": "image"})


def truths(rows: Iterable[Row]) -> list[Diagnosis]:
    """The truth of each row."""
    return [unpack_truth(row["truth"]) for row in rows]
