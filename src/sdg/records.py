"""A Record is one image of a data set: where it lies, its prompt, and what is known of its defects.

Readers and writers of each file format live in `sdg.data`; everything else takes and returns Records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdg.defects import Diagnosis


@dataclass(frozen=True, slots=True)
class Record:
    """One image with its prompt and, where known, its diagnosis.

    filepath: the image's path as the data set writes it, relative to the data set's folder; also the key
    that joins truth and predictions. generator, split and annotator are names, None where not known.
    metadata: JSON values no other field holds, kept through round trips.
    Raises ValueError, in one sentence, for a path or a name that is empty or no text.
    """

    filepath: str
    prompt: str
    diagnosis: Diagnosis | None = None
    generator: str | None = None
    split: str | None = None
    annotator: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.filepath, str) or not self.filepath:
            raise ValueError(f"A record needs the path of its image as text, not {self.filepath!r}.")
        if not isinstance(self.prompt, str):
            raise ValueError(f"A record's prompt is text, not {self.prompt!r}.")
        for name in (self.generator, self.split, self.annotator):
            if name is not None and (not isinstance(name, str) or not name):
                raise ValueError(f"A generator, split or annotator is a name or None, not {name!r}.")
