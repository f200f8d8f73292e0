"""What an app offers: detectors and editors by URI, pictures to begin with, and where corrections go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sdg.defects import Diagnosis
from sdg.errors import SdgError, quoted
from sdg.io.files import real_path
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

    folder: where corrected pictures are saved, None for nowhere.
    """

    detectors: Sequence[str] = (EMBEDDED,)
    editors: Sequence[str] = (EMBEDDED,)
    examples: Sequence[Example] = ()
    folder: Path | None = None

    @property
    def note(self) -> str:
        """What has to be known about the detectors, in words; "" for nothing."""
        embedded = any(uri.partition("?")[0] == EMBEDDED for uri in self.detectors)
        return OTHER_WORLDS if embedded else ""

    def located(self, address: str) -> Path:
        """The picture that an address names; raises SdgError unless it is one of `examples`."""
        parts = urlsplit(address.strip())
        if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
            raise SdgError(
                f"{quoted(address)} is not on this machine; download the picture and drop it here."
            )
        path = Path(unquote(parts.path) if parts.scheme else address.strip())
        for example in self.examples:
            if isinstance(example.picture, Path) and real_path(example.picture) == real_path(path):
                return example.picture
        raise SdgError(
            f"{quoted(address)} is none of the pictures that this app was started with; drop the file here."
        )


def examples_of(items: Sequence[Item], truth: Mapping[str, Diagnosis]) -> list[Example]:
    """Pictures named on the command line; truth: what is known of some, by their paths."""
    return [Example(item.filepath, item.prompt, item.file, truth.get(item.filepath)) for item in items]


def known_truth(sources: Iterable[Path]) -> dict[str, Diagnosis]:
    """What files of annotations among these sources say, by the paths of their pictures.

    Raises SdgError where such a file cannot be read.
    """
    from sdg.data.formats import guess_format, read_records

    files = [source for source in sources if source.suffix.lower() == ".jsonl"]
    return {
        record.filepath: record.diagnosis
        for file in files
        if guess_format(file) in ("sdg", "sdg30k")
        for record in read_records(file)
        if record.diagnosis is not None
    }
