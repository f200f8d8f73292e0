"""Hugging Face dataset folders: `datasets.load_dataset("imagefolder", data_dir=FOLDER)` reads what we write.

FOLDER/train, /validation and /test each hold numbered images and a `metadata.jsonl`. All columns are text,
and defects, repairs and metadata JSON in text: Arrow guesses types from the first rows of each split, so
that lists which are empty in one split, or values which are null in another, would not load together.
"""

from __future__ import annotations

import filecmp
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, BinaryIO, Final

from sdg.defects import Diagnosis
from sdg.errors import SdgError, quoted
from sdg.io import jsonl
from sdg.io.files import writing
from sdg.io.paths import data_path, leads_inside
from sdg.records import (
    NAMES,
    Part,
    Path,
    Record,
    as_name,
    from_extras,
    read_parts,
    text_of,
)

SPLITS: Final = ("train", "validation", "test")
"""The splits `imagefolder` tells apart, each by the name of its folder; a record without one is in train."""

_OWN: Final = frozenset(
    {"filepath", "prompt", "defects", "status", "reasoning", "raw", "repairs", "metadata"}
)


def read(folder: Path) -> Iterator[Record]:
    """Stream the records of a folder, split by split; paths are those the images had before (`filepath`).

    A folder that somebody else wrote gives records without diagnosis: the path inside the folder, the
    prompt (`prompt`, `text` or `caption`) and the other columns as metadata.
    Raises SdgError with file, line and reason at the first fault.
    """
    for metadata_file in metadata_files(folder):
        yield from read_parts(metadata_file, _parts(pathlib.Path(folder), metadata_file))


def parts(folder: Path) -> Iterator[Part]:
    """Each line of each split as a part of its own, for `validate`."""
    for metadata_file in metadata_files(folder):
        split = metadata_file.relative_to(folder).parent.as_posix()
        for place, make in _parts(pathlib.Path(folder), metadata_file):
            yield f"{split} {place}", make


def metadata_files(folder: Path) -> list[pathlib.Path]:
    """The `metadata.jsonl` of the folder and of each split; raises SdgError where there is none."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise SdgError(f"{folder} is not a folder; a Hugging Face dataset folder is needed here.")
    places = [folder, *(folder / split for split in SPLITS)]
    found = [place / "metadata.jsonl" for place in places if (place / "metadata.jsonl").is_file()]
    if not found:
        raise SdgError(f"{folder} holds no metadata.jsonl, neither itself nor in train, validation or test.")
    return found


def write(folder: Path, records: Iterable[Record], *, images: Path, allow_outside: bool = False) -> int:
    """Write a new dataset folder; returns the number of records.

    Images are copied from the folder `images`, never linked: a change to one of the two would be one to both.
    They are numbered: `imagefolder` would take a file name with "test" in it for a split. allow_outside:
    whether the path of an image may lead out of the folder `images`.
    Raises SdgError where the folder is not empty, an image is missing, its path leads out or a split is not
    one of `SPLITS`.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SdgError(f"{folder} exists already; name a folder that is new or empty.")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name[:200]}.") as temporary:
            whole = pathlib.Path(temporary) / "whole"
            count = _fill(whole, records, pathlib.Path(images), allow_outside)
            whole.replace(folder)
    return count


def restore_images(folder: Path, target: Path) -> int:
    """Put the images of a dataset folder back under the paths they had, in `target`; returns how many.

    Raises SdgError where a path leaves either folder, or an image is missing or cannot be written.
    """
    count = 0
    for metadata_file in metadata_files(folder):
        for row in jsonl.read_objects(metadata_file):
            try:
                source = _inside(metadata_file.parent, text_of(row, "file_name"))
                place = _inside(pathlib.Path(target), text_of(row, "filepath"))
            except ValueError as error:
                raise SdgError(f"{metadata_file}: {error}") from None
            _put(source, place)
            count += 1
    return count


def pictures(folder: Path, *, allow_outside: bool = False) -> dict[str, pathlib.Path]:
    """Path of each record -> where its image lies in a dataset folder.

    Raises SdgError where an image's path leads out of the folder and is not allowed to.
    """
    folder, found = pathlib.Path(folder), {}
    for metadata_file in metadata_files(folder):
        beside = metadata_file.parent.relative_to(folder)
        for row in jsonl.read_objects(metadata_file):
            try:
                name, path = text_of(row, "file_name"), _path(row, beside)
            except ValueError as error:
                raise SdgError(f"{metadata_file}: {error}") from None
            found[path] = data_path(name, metadata_file.parent, folder, allow_outside=allow_outside)
    return found


def _fill(whole: pathlib.Path, records: Iterable[Record], images: pathlib.Path, allow_outside: bool) -> int:
    whole.mkdir()
    files: dict[str, BinaryIO] = {}
    count = 0
    with ExitStack() as stack:
        for count, record in enumerate(records, start=1):
            split = record.split or SPLITS[0]
            if split not in SPLITS:
                raise SdgError(
                    f"{record.filepath} is in the split {quoted(split)}; imagefolder has {SPLITS} only."
                )
            if split not in files:
                (whole / split).mkdir()
                files[split] = stack.enter_context((whole / split / "metadata.jsonl").open("xb"))
            name = f"{count:08d}{pathlib.Path(record.filepath).suffix.lower()}"
            source = data_path(record.filepath, images, allow_outside=allow_outside)
            _put(source, whole / split / name)
            try:
                files[split].write(jsonl.dump_object(_row(record, name)))
            except (TypeError, ValueError) as error:  # of metadata that JSON cannot hold
                raise SdgError(f"{record.filepath}: {error}") from None
    if not count:
        raise SdgError("There are no records to write.")
    return count


def _put(source: pathlib.Path, place: pathlib.Path) -> None:
    """A copy of a file under a new name, unless it lies there already."""
    if not source.is_file():
        raise SdgError(f"The image {source} does not exist; check the folder of the images.")
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as original:
            try:
                copy = place.open("xb")
            except FileExistsError:
                if not (place.is_file() and filecmp.cmp(source, place, shallow=False)):
                    raise SdgError(f"{place} exists already; name a folder without other images.") from None
                return
            with copy:
                shutil.copyfileobj(original, copy)


def _inside(folder: pathlib.Path, path: str) -> pathlib.Path:
    place = folder / path
    if not leads_inside(place, folder):
        raise ValueError(f"The path {quoted(path)} leaves the folder.")
    return place


def _row(record: Record, name: str) -> dict[str, str]:
    diagnosis = record.diagnosis
    row = {"file_name": name, "filepath": record.filepath, "prompt": record.prompt}
    row |= {field: getattr(record, field) or "" for field in NAMES}
    row["defects"] = json.dumps(None if diagnosis is None else diagnosis.to_dict()["defects"])
    diagnosis = diagnosis or Diagnosis()
    row |= {"status": diagnosis.status.value, "reasoning": diagnosis.reasoning, "raw": diagnosis.raw}
    return row | {
        "error": diagnosis.error,
        "repairs": json.dumps(diagnosis.repairs),
        "metadata": json.dumps(dict(record.metadata), allow_nan=False),
    }


def _parts(folder: pathlib.Path, metadata_file: pathlib.Path) -> Iterator[Part]:
    beside = metadata_file.parent.relative_to(folder)
    return jsonl.parts(metadata_file, partial(_record, beside=beside))


def _record(row: Mapping[str, Any], beside: pathlib.Path) -> Record:
    if not row.keys() >= _OWN:
        return _foreign_record(row, beside)
    names = {name: as_name(name, row.get(name)) for name in NAMES}
    defects, repairs, metadata = (_json(row, key) for key in ("defects", "repairs", "metadata"))
    if not isinstance(metadata, dict):
        raise ValueError(f"'metadata' is a JSON object, not {quoted(metadata)}.")
    diagnosis = None
    if defects is not None:
        texts = {key: row[key] for key in ("status", "reasoning", "raw")}
        texts["error"] = row.get("error", "")  # which version 0.1 did not write
        diagnosis = Diagnosis.from_dict({"defects": defects, **texts, "repairs": repairs})
    return Record(_path(row, beside), text_of(row, "prompt"), diagnosis, **names, metadata=metadata)


def _foreign_record(row: Mapping[str, Any], beside: pathlib.Path) -> Record:
    prompt = next((key for key in ("prompt", "text", "caption") if key in row), "prompt")
    fields = from_extras(row, known={"file_name", prompt})
    return Record(_path(row, beside), text_of(row, prompt, default=""), None, **fields)


def _path(row: Mapping[str, Any], beside: pathlib.Path) -> str:
    """The path that an image had; in the folder of somebody else the one it has there."""
    return text_of(row, "filepath") if row.keys() >= _OWN else (beside / text_of(row, "file_name")).as_posix()


def _json(row: Mapping[str, Any], key: str) -> Any:
    try:
        return jsonl.DECODER.decode(text_of(row, key))
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{key!r} is not JSON.") from None
