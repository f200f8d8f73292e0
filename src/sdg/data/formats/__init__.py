"""The file formats by name, for the command line: read any of them, write any of them.

Those of other tools are loaded once one is asked for: they bring an image library and readers of XML.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, Final, Literal, get_args

from sdg.data.formats import sdg30k
from sdg.errors import SdgError, quoted
from sdg.io import jsonl
from sdg.io.jsonl import load_document
from sdg.io.predictions import read_prediction, write_prediction
from sdg.records import Fault, Part, Path, Record
from sdg.response.strict import BoxOrder

Format = Literal["sdg", "sdg30k", "predictions", "coco", "label-studio", "hf"]
"""sdg: our own JSONL; sdg30k: the released annotations; predictions: raw responses; hf: a dataset folder."""

FORMATS: tuple[Format, ...] = get_args(Format)

_LINES: Final[dict[str, Callable[..., Record]]] = {
    "sdg": lambda value, **_: Record.from_dict(value),  # its boxes have one order
    "sdg30k": sdg30k.from_annotation,
    "predictions": lambda value, box_order, **_: read_prediction(value, box_order=box_order),
}
"""What makes a record of a line's object, in the formats of one object a line."""


def read_records(
    path: Path,
    format: Format | None = None,
    *,
    box_order: BoxOrder = "xyxy",
    on_fault: Callable[[Fault], object] | None = None,
) -> Iterator[Record]:
    """Stream the records of a file in a format, by default the one `guess_format` finds.

    box_order holds for the formats of models and of the release (sdg30k, predictions). on_fault: is told of
    each annotation of a Label Studio export that cannot be read, and the rest is read.
    Raises SdgError with file, place and reason at the first fault, and at any in other formats.
    """
    format = _readable(path, format, box_order)
    if format in _LINES:
        return jsonl.read_records(path, partial(_LINES[format], box_order=box_order))
    told = {"on_fault": on_fault} if format == "label-studio" else {}
    records: Iterator[Record] = _of_tool(format).read(path, **told)
    return records


def line_reader(format: Format, box_order: BoxOrder = "xyxy") -> Callable[[bytes], Record]:
    """A function that reads one line of a format that has lines; it raises ValueError for a fault.

    Annotations are read without their reasoning.
    """
    return partial(jsonl.read_record, convert=partial(_LINES[format], box_order=box_order, reasoning=False))


def read_parts(path: Path, format: Format | None = None, *, box_order: BoxOrder = "xyxy") -> Iterator[Part]:
    """Each line, image or task on its own, so that one bad part does not hide the others."""
    format = _readable(path, format, box_order)
    if format in _LINES:
        return jsonl.parts(path, partial(_LINES[format], box_order=box_order))
    parts: Iterator[Part] = _of_tool(format).parts(path)
    return parts


def write_records(
    path: Path,
    records: Iterable[Record],
    format: Format,
    *,
    images: Path | None = None,
    size: tuple[int, int] | None = None,
    blind: bool = False,
    allow_outside: bool = False,
) -> int:
    """Write records in a format; returns how many images, tasks or lines were written.

    images: folder of the images, for COCO and Label Studio (their sizes) and hf (their files); size: (width,
    height) of all images, for COCO and Label Studio; blind: Label Studio tasks without annotations;
    allow_outside: whether the path of an image may lead out of `images`.
    Raises SdgError where something that the format needs is missing, where `blind` is asked of another format
    and where the file cannot be written.
    """
    if blind and format != "label-studio":
        raise SdgError(
            f"The format {quoted(format)} is not blind, only label-studio can be; leave blind out."
        )
    match format:
        case "sdg":
            return jsonl.write_with(path, records, Record.to_dict)
        case "sdg30k":
            return sdg30k.write_annotations(path, records)
        case "predictions":
            return jsonl.write_with(path, records, write_prediction)
    options: dict[str, Any] = {"images": images, "allow_outside": allow_outside}
    if format == "hf" and images is None:
        raise SdgError("A Hugging Face folder holds the images too; give the folder they are in.")
    if format != "hf":
        options["size"] = size
    if format == "label-studio":
        options["blind"] = blind
    count: int = _of_tool(format).write(path, records, **options)
    return count


def guess_format(path: Path) -> Format:
    """The format of a file, from the keys of its first record; raises SdgError where none fits."""
    if pathlib.Path(path).is_dir():
        return "hf"
    if pathlib.Path(path).suffix.lower() == ".json":
        return "label-studio" if isinstance(load_document(path), list) else "coco"
    keys = jsonl.first_object(path).keys()
    if "ann_translated_bboxes" in keys:
        return "sdg30k"
    if keys & {"response", "error"}:
        return "predictions"
    if "filepath" in keys and "prompt" in keys:
        return "sdg"
    if keys >= {"filepath", "caption"}:  # what `sdg diagnose --prompts` takes as well
        raise SdgError(f"{path} lists pictures without annotations; call their texts prompt, not caption.")
    raise SdgError(f"The format of {path} is not plain from its first line; name it: {', '.join(FORMATS)}.")


def _of_tool(format: Format) -> Any:
    """The module of another tool's format, which has `read`, `parts` and `write`; or SdgError."""
    if format not in FORMATS:
        raise SdgError(f"{quoted(format)} is no format; those are {', '.join(FORMATS)}.")
    return import_module(f"sdg.data.formats.{format.replace('-', '_')}")


def _readable(path: Path, format: Format | None, box_order: BoxOrder) -> Format:
    """The format to read; only those whose boxes models write may have another order of coordinates."""
    if box_order not in get_args(BoxOrder):
        raise ValueError(f"The box order is 'xyxy' or 'yxyx', not {box_order!r}.")
    format = format or guess_format(path)
    if box_order != "xyxy" and format not in ("sdg30k", "predictions"):
        raise SdgError(f"The boxes of the format {format!r} have one order only; leave the box order out.")
    return format
