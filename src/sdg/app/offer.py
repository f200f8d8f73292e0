"""What an app offers: detectors and editors by URI, pictures to begin with, and where corrections go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdg.defects import Diagnosis
from sdg.errors import SdgError, quoted
from sdg.io.paths import real_path
from sdg.reporting.thumbnails import Source
from sdg.runs.inputs import Item

EMBEDDED = "testbed"
OTHER_WORLDS = (
    "The embedded detector knows one small world: the flat shapes of the example pictures, and prompts like "
    "theirs. It refuses pictures of other worlds; for those name a detector, such as "
    "sdg app --detector hf:ORG/NAME."
)


@dataclass(frozen=True, slots=True)
class Example:
    """A picture to begin with, and what is known to be wrong with it, where anything is."""

    name: str
    prompt: str
    picture: Source
    truth: Diagnosis | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What users may choose from. A page never names a model or a path of its own.

    editors: none for an app that repairs nothing. folder: for corrected pictures, None where none are saved.
    """

    detectors: Sequence[str] = (EMBEDDED,)
    editors: Sequence[str] = (EMBEDDED,)
    examples: Sequence[Example] = ()
    folder: Path | None = None

    @property
    def note(self) -> str:
        """What has to be known about the detectors, in words; "" for nothing."""
        return OTHER_WORLDS if usual_editors(self.detectors) else ""

    def located(self, address: str) -> Path:
        """The picture that an address names; raises SdgError unless it is one of `examples`."""
        unknown = (
            f"{quoted(address)} is none of the pictures that this app was started with; drop the file here."
        )
        try:
            parts = urlsplit(address.strip())
            path = real_path(unquote(parts.path) if parts.scheme else address.strip())
        except ValueError:  # of brackets and NUL
            raise SdgError(unknown) from None
        if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
            raise SdgError(
                f"{quoted(address)} is not on this machine; download the picture and drop it here."
            )
        for example in self.examples:
            if isinstance(example.picture, Path) and real_path(example.picture) == path:
                return example.picture
        raise SdgError(unknown)


def examples_of(items: Sequence[Item], truth: Mapping[tuple[Path, str], Diagnosis]) -> list[Example]:
    """Pictures named on the command line; truth: as `known_truth` has it."""
    return [
        Example(item.filepath, item.prompt, item.file, truth.get((real_path(item.file), item.prompt)))
        for item in items
    ]


def usual_editors(detectors: Sequence[str]) -> tuple[str, ...]:
    """Editors where none is named: the embedded one, if a detector knows its world."""
    return (EMBEDDED,) if any(uri.partition("?")[0] == EMBEDDED for uri in detectors) else ()


class Drawn(Protocol):
    """A picture in memory of which everything is known, as `sdg.testbed` draws them."""

    @property
    def prompt(self) -> str: ...
    @property
    def picture(self) -> NDArray[np.uint8]: ...
    @property
    def diagnosis(self) -> Diagnosis: ...


def drawn_examples(drawn: Iterable[Drawn]) -> list[Example]:
    """Such pictures, under numbers."""
    return [
        Example(f"{number}.png", one.prompt, Image.fromarray(one.picture), one.diagnosis)
        for number, one in enumerate(drawn, start=1)
    ]


def known_truth(sources: Iterable[Path], images: Path | None = None) -> dict[tuple[Path, str], Diagnosis]:
    """What files of annotations among these sources say, by where each picture lies, and its prompt.

    Two files may call two pictures by one path. images: folder of the pictures, by default each file's own.
    A plain list of pictures and prompts says nothing. Raises SdgError where a file cannot be read.
    """
    from sdg.data.formats import guess_format, read_records

    found: dict[tuple[Path, str], Diagnosis] = {}
    for file in (source for source in sources if source.suffix.lower() == ".jsonl"):
        try:
            format = guess_format(file)
        except SdgError:  # of a list that has no format, or a first line that `gather` has refused
            continue
        if format in ("sdg", "sdg30k"):
            folder = file.parent if images is None else images
            found |= {
                (real_path(folder / one.filepath), one.prompt): one.diagnosis
                for one in read_records(file, format)
                if one.diagnosis is not None
            }
    return found
