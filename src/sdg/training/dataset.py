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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdg.data.formats import read_records
from sdg.defects import BOX_SCALE, Diagnosis
from sdg.errors import SdgError
from sdg.images import image_size, rgb_picture
from sdg.io.files import read_bytes
from sdg.io.paths import data_path
from sdg.models.vlm import control_tokens, special_tokens
from sdg.prompting import AnswerParts, PromptProfile, trim_reasoning
from sdg.response import format_fault, render_response

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
"""id, image (path), caption, truth (JSON of `Diagnosis.to_dict`), length (tokens of prompt and target)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The usable rows of one annotation file; left_out: why rows are not used, and how many."""

    rows: tuple[Row, ...]
    left_out: Mapping[str, int]
    file: Path

    def __len__(self) -> int:
        return len(self.rows)

    def dataset(self) -> Dataset:
        """The rows as a `datasets.Dataset`, which the trainers take."""
        from datasets import Dataset

        return Dataset.from_list(list(self.rows))

    def questions(self, profile: PromptProfile) -> Dataset:
        """The rows as `GRPOTrainer` reads them: `prompt`, `image` (decoded when asked for) and `truth`."""

        def read(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
            return {
                "prompt": [profile.render(caption) for caption in rows["caption"]],
                "image": [rgb_picture(path, profile.image.fit) for path in rows["image"]],
                "truth": rows["truth"],
            }

        return self.dataset().with_transform(read)

    def summary(self) -> dict[str, Any]:
        """Counts and the file's digest, for the manifest of a run."""
        digest = hashlib.sha256(read_bytes(self.file)).hexdigest()
        return {"rows": len(self.rows), "left_out": dict(self.left_out), "sha256": digest}


def require_file(path: Path) -> None:
    """Raise SdgError for a folder of annotations: what a run was trained on is known by a file's digest."""
    if path.is_dir():
        raise SdgError(
            f"{path} is a folder; write one file of it: "
            f"sdg data convert {path} train.jsonl --to sdg --restore-images images"
        )


class RowReader:
    """Reads annotated pictures that can be trained on, or answered and scored, with this profile.

    max_length: tokens of a row's prompt and target, at most.
    """

    def __init__(self, profile: PromptProfile, processor: Any, max_length: int) -> None:
        self._profile, self._processor, self._max_length = profile, processor, max_length
        self._control = control_tokens(processor.tokenizer)  # the model's own, which no prompt may hold
        # Those of them that no answer may hold, as its own tags may be others.
        self._special = special_tokens(processor.tokenizer)

    def read(
        self,
        path: Path,
        images: Path | None,
        *,
        targets: bool,
        limit: int | None = None,
        allow_outside: bool = False,
    ) -> Rows:
        """The rows of an annotation file, the first `limit` of it.

        images: folder of the pictures, by default the annotation file's. targets: whether the row's own
        response is learned, so that it must be whole and counts towards the length. allow_outside: whether a
        picture's path may lead out of that folder. Raises SdgError where one does, where the file cannot be
        read, and where no row is left, saying why.
        """
        require_file(path)
        folder = path.parent if images is None else images
        rows: list[Row] = []
        left_out: Counter[str] = Counter()
        for number, record in enumerate(islice(read_records(path), limit)):
            diagnosis = record.diagnosis
            if diagnosis is None or not diagnosis.is_informative:
                left_out["not annotated"] += 1
                continue
            if not diagnosis.is_whole:  # what is lost would be learned, or scored, as not being there
                left_out["annotation cut off or with unreadable items"] += 1
                continue
            truth = json.dumps(replace(diagnosis, raw="").to_dict())
            picture = data_path(record.filepath, folder, allow_outside=allow_outside)
            try:
                size = image_size(picture)
            except SdgError:
                left_out["picture missing or unreadable"] += 1
                continue
            length, fault = self._checked(record.prompt, size, diagnosis if targets else None)
            if fault:
                left_out[fault] += 1
                continue
            rows.append(
                {
                    "id": number,
                    "image": str(picture),
                    "caption": record.prompt,
                    "truth": truth,
                    "length": length,
                }
            )
        if not rows:
            reasons = ", ".join(f"{count:,} × {reason}" for reason, count in left_out.most_common())
            raise SdgError(f"No row of {path} can be used: {reasons}.")
        return Rows(tuple(rows), dict(left_out), path)

    def _checked(self, caption: str, size: tuple[int, int], learned: Diagnosis | None) -> tuple[int, str]:
        """Tokens of a question about a picture of this size and of what is learned; why it cannot be used."""
        response, answer = "", self._profile.answer
        if not _is_text(caption, self._control):
            return 0, "prompt with one of the model's own tokens, or no whole text"
        if learned is not None:
            if answer.think and not learned.reasoning.strip():
                return 0, "no reasoning to learn the think block from"
            response = target(learned, answer)
            if format_fault(response, **answer.gate()) is not None:
                return 0, "defects without what the profile asks for"
            if not _is_text(response, self._special):
                return 0, "answer with one of the model's own tokens, or no whole text"
        try:
            length = self._length(caption, size, response)
        except ValueError:  # such as a line 1 pixel high
            return 0, "picture that the model's processor refuses"
        return length, f"more than {self._max_length:,} tokens" if length > self._max_length else ""

    def _length(self, caption: str, size: tuple[int, int], response: str) -> int:
        messages = self._profile.render(caption)
        if response:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        text = self._processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not response
        )
        width, height = self._profile.image.fit(*size)
        reader = self._processor.image_processor
        patches = int(reader.get_number_of_image_patches(height, width, {}))
        # The text holds one of the picture's tokens already.
        words = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return len(words) + patches // reader.merge_size**2 - 1


def _is_text(text: str, own: Sequence[str]) -> bool:
    """Whether a tokenizer reads it as text; half a surrogate pair, which JSON can hold, is none.

    own: the model's own tokens, which it must not hold.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return not any(token in text for token in own)


def target(diagnosis: Diagnosis, answer: AnswerParts) -> str:
    """The response to be learned: the parts the profile asks for, with only those steps of the reasoning."""
    trimmed = replace(diagnosis, reasoning=trim_reasoning(diagnosis.reasoning, answer.steps))
    return render_response(trimmed, **answer.rendering())


def jitter(diagnosis: Diagnosis, rng: np.random.Generator, amount: float = 10) -> Diagnosis:
    """The diagnosis with every coordinate of every box moved by its own offset from U(−amount, amount).

    Annotators do not agree to the pixel, and a detector that is shown the same numbers each epoch learns them
    by heart (SDG §4.1, App. D.3).

    Coordinates are rounded and clamped to 0..1000; where two would meet or cross, they are moved as far as
    they can be while x0 < x1 and y0 < y1 hold. Reasons, importance, reasoning and order stay as they are.
    The same generator state gives the same boxes. Raises ValueError for a negative or infinite amount.
    """
    if not 0 <= amount < np.inf:
        raise ValueError(f"The amount of jitter is a number of at least 0, not {amount}.")
    if not diagnosis.defects:
        return diagnosis
    boxes = np.array([defect.box for defect in diagnosis.defects])
    moved = _moved(boxes, rng.uniform(-amount, amount, boxes.shape))
    defects = tuple(
        replace(defect, box=tuple(box)) for defect, box in zip(diagnosis.defects, moved.tolist(), strict=True)
    )
    return replace(diagnosis, defects=defects)


def _moved(boxes: NDArray[np.int_], offsets: NDArray[np.float64]) -> NDArray[np.int_]:
    """Boxes (N, 4) moved by offsets (N, 4); each keeps an area."""
    moved = np.clip(np.rint(boxes + offsets), 0, BOX_SCALE).astype(int)
    low, high = moved[:, :2], moved[:, 2:]
    # Crossed or met: both go to the middle between them, one apart, so that neither leaves its own range.
    middle = np.clip((low + high) // 2, 0, BOX_SCALE - 1)
    crossed = low >= high
    return np.hstack([np.where(crossed, middle, low), np.where(crossed, middle + 1, high)])


@lru_cache(maxsize=4096)
def unpack_truth(text: str) -> Diagnosis:
    """The diagnosis of a row's truth; a group's completions share one, so the last ones are kept."""
    return Diagnosis.from_dict(json.loads(text))


def truths(rows: Iterable[Row]) -> list[Diagnosis]:
    """The truth of each row."""
    return [unpack_truth(row["truth"]) for row in rows]
