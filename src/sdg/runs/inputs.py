"""What a run is asked to diagnose: image files, folders of them, files that list them, with their prompts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdg.errors import SdgError, path_end
from sdg.images import StoredImage
from sdg.io import jsonl, parquet
from sdg.io.parquet_images import stored_images
from sdg.io.paths import PathIndex, data_path, real_path
from sdg.runs.journal import Key

_IMAGES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif"}
)
_TABLES: Final = (".json", ".csv", ".tsv", ".txt")
"""Ends of what is taken for a list of pictures elsewhere, and holds none itself."""
_PATHS, _PROMPTS = ("filepath", "filename", "image"), ("caption", "prompt")

Place = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a run: what the output calls it, its prompt, and where it lies."""

    filepath: str
    prompt: str
    file: Path | StoredImage

    @property
    def key(self) -> Key:
        """What tells the images of a run apart."""
        return self.filepath, self.prompt


def gather(
    sources: Iterable[Place],
    *,
    prompt: str | None = None,
    prompts: Place | None = None,
    images: Place | None = None,
    leave_out: Place | None = None,
    allow_outside: bool = False,
    embedded: bool = False,
) -> list[Item]:
    """Every image that `sources` name, each once, in their order; a folder's in the order of their paths.

    Links to folders are followed, to each folder once. A JSON Lines or Parquet file holds `filepath` and
    `caption` (or `prompt`); its images lie in the folder `images`, by default its own, or in its own column
    `image`, where `embedded` allows that. For other images the prompt is `prompt`, or what the JSON Lines
    file `prompts` says for their path, the end of their path or their name. leave_out: a folder inside of one
    of `sources` whose images are no inputs, such as overlays of them. allow_outside: whether a path in a file
    that lists images may lead out of their folder.
    Raises SdgError for a source that does not exist, for a path that leads out, for images without a prompt,
    and where prompt and prompts are both given.
    """
    if prompt is not None and prompts is not None:
        raise SdgError("Give one prompt for all images or a file with the prompts, not both.")
    found: list[tuple[str, str | None, Path | StoredImage]] = []
    for source in sources:
        path = Path(source)
        folder = path.parent if images is None else Path(images)
        if jsonl.is_parquet(path) and (stored := stored_images(path)):
            if not embedded:
                raise SdgError(f"{path} holds its pictures itself; here they have to be files of their own.")
            names = parquet.prompts(path)
            found += [
                (image.name, prompt if text is None else text, image)
                for image, text in zip(stored, names, strict=True)
            ]
        elif path.suffix.lower() == ".jsonl" or jsonl.is_parquet(path):
            found += [
                (name, text, data_path(name, folder, allow_outside=allow_outside))
                for name, text in _pairs(path)
            ]
        elif path.is_dir():
            found += [(file.as_posix(), prompt, file) for file in _image_files(path, leave_out)]
        elif path.suffix.lower() in _TABLES and path.is_file():
            raise SdgError(
                f"{path} is no picture; give rows of pictures and prompts as JSON Lines, one object a line, "
                "in a file that ends in .jsonl."
            )
        elif path.exists():
            found.append((path.as_posix(), prompt, path))
        else:
            raise SdgError(
                f"{path} does not exist; give images, folders of images, JSON Lines or Parquet files."
            )
    bare = [name for name, text, _ in found if text is None]
    if bare and prompts is None:
        raise SdgError(f"{bare[0]} has no prompt; give it with --prompt, or a file of them with --prompts.")
    known = _look_up(bare, prompts) if prompts is not None else {}
    items = [Item(name, known[name] if text is None else text, file) for name, text, file in found]
    return list(dict.fromkeys(items))


def _image_files(folder: Path, leave_out: Place | None) -> list[Path]:
    left_out = None if leave_out is None else real_path(leave_out)
    if left_out == real_path(folder):
        left_out = None  # asked for by its name

    def refuse(error: OSError) -> None:  # what cannot be listed would be left out without a word
        raise SdgError(f"{path_end(str(error.filename), 160)} cannot be listed: {error.strerror}.") from None

    files = [
        path
        for path in sorted(Path(at, name) for at, names in _folders(folder, refuse) for name in names)
        if path.suffix.lower() in _IMAGES and not path.name.startswith(".")
        if left_out is None or left_out not in real_path(path).parents
    ]
    if not files:
        raise SdgError(f"{folder} holds no images.")
    return files


def _folders(folder: Path, refuse: Callable[[OSError], None]) -> Iterator[tuple[str, list[str]]]:
    """Every folder in one, with the names of its files; links are followed, to each folder once.

    What lies there itself comes first, so that no link gives it another name.
    """
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        for top in waiting:
            for at, folders, names in os.walk(top, onerror=refuse):
                if (real := real_path(at)) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                links += [path for name in folders if (path := Path(at, name)).is_symlink()]
                yield at, names
        waiting = sorted(links)


def _pairs(path: Place) -> list[tuple[str, str]]:
    """Path and prompt of each line."""

    def pair(value: Mapping[str, Any]) -> tuple[str, str]:
        if jsonl.is_parquet(path) and not any(key in value for key in _PATHS):
            raise ValueError("'filepath' names no picture, and 'image' holds none; a row has one of the two.")
        return _text(value, _PATHS), _text(value, _PROMPTS)

    return list(jsonl.read_with(path, pair))


def _text(value: Mapping[str, Any], keys: Sequence[str]) -> str:
    key = next((key for key in keys if key in value), keys[0])
    text = value.get(key)
    if not isinstance(text, str) or (keys is _PATHS and not text):
        raise ValueError(f"{key!r} is missing or no text.")
    return text


def _look_up(names: Iterable[str], prompts: Place) -> dict[str, str]:
    """The prompt that a file holds for each image."""
    by_path: dict[str, set[str]] = {}
    for path, prompt in _pairs(prompts):
        by_path.setdefault(path, set()).add(prompt)
    index = PathIndex(by_path)
    found: dict[str, str] = {}
    for name in names:
        paths = index.find(name)
        choices = {prompt for path in paths for prompt in by_path[path]}
        if len(choices) != 1:
            what = "no prompt" if not choices else "more than one prompt"
            raise SdgError(f"{prompts} holds {what} for {name}.")
        found[name] = choices.pop()
    return found
