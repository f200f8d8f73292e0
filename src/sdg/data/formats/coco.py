"""COCO detection files: one JSON document with images, annotations and two categories.

An image carries `prompt` and the record's other fields; an annotation's `attributes` hold `reason`,
`importance` and `subtype`. Boxes are pixels in floats, which give back every integer box exactly.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from sdg.data.formats.boxes import as_size, from_scale, known_size, pixel_size, to_scale
from sdg.defects import Defect, DefectType
from sdg.errors import Faults, SdgError, quoted
from sdg.io.files import atomic_writer
from sdg.io.jsonl import ListWriter, load_document
from sdg.records import (
    STORED,
    Part,
    Path,
    Record,
    as_integer,
    diagnosis_extras,
    from_extras,
    read_parts,
    text_of,
    to_extras,
    with_extras,
)
from sdg.response.strict import LABELS

_CATEGORY_IDS: Final = {kind: number for number, kind in enumerate(DefectType, start=1)}
_CATEGORIES: Final = [
    {"id": number, "name": kind.value, "supercategory": "defect"} for kind, number in _CATEGORY_IDS.items()
]
_IMAGE_KEYS: Final = frozenset({"id", "file_name", "prompt", "annotated", STORED})


def read(path: Path) -> Iterator[Record]:
    """The records of a COCO file, in the order of its images; it is read whole, being one JSON document.

    An image's `width` and `height` are kept in the metadata, where `write` finds them again. An image
    without annotations is clean, unless it says `"annotated": false`.
    Raises SdgError with file, place and reason at the first fault.
    """
    return read_parts(path, parts(path))


def parts(path: Path) -> Iterator[Part]:
    """Each image with its annotations as a part of its own, for `validate`."""
    document = load_document(path)
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise SdgError(f"{path} is not a COCO file: it has no list of 'images'.")
    for key in ("categories", "annotations"):
        if not isinstance(document.get(key) or [], list):
            raise SdgError(f"{path} is not a COCO file: its {key!r} are no list.")
    names: dict[str, object] = {}
    annotations: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, image in enumerate(document["images"], start=1):
        if isinstance(image, dict):
            if _key(image.get("id")) in annotations:
                yield f"image {number}", partial(_refuse_repeated, image)
            annotations[_key(image.get("id"))] = []
    for category in document.get("categories") or []:
        if isinstance(category, dict):
            names[_key(category.get("id"))] = category.get("name")
    for number, annotation in enumerate(document.get("annotations") or [], start=1):
        if isinstance(annotation, dict) and (image_id := _key(annotation.get("image_id"))) in annotations:
            annotations[image_id].append((number, annotation))
        else:
            yield f"annotation {number}", partial(_refuse_orphan, annotation)
    for number, image in enumerate(document["images"], start=1):
        yield f"image {number}", partial(_record, image, annotations, names)


def write(
    path: Path,
    records: Iterable[Record],
    *,
    images: Path | None = None,
    size: tuple[int, int] | None = None,
    allow_outside: bool = False,
) -> int:
    """Write a COCO file; returns the number of images.

    Pixels need each image's size: `width` and `height` of the record's metadata, or else the header of its
    file in the folder `images`, or else `size` (width, height). allow_outside: whether a path may lead out
    of that folder.
    Records are streamed: annotations wait in a temporary file until the images are written.
    Raises SdgError where a size is not to be had, a path leads out or the file cannot be written.
    """
    with atomic_writer(path) as file, tempfile.TemporaryFile() as waiting:
        image_list, annotation_list = ListWriter(file, path), ListWriter(waiting, path)
        file.write(b'{"info": {"description": "Structured defects of generated images"},\n"images": [')
        for record in records:
            pixels = pixel_size(record, images, size, allow_outside)
            if pixels is None:
                raise SdgError(
                    f"The size of {record.filepath} in pixels is not known; "
                    "give the folder of the images (--images), or the size (--size)."
                )
            image_list.add(_image(record, image_list.count + 1, *pixels))
            for defect in record.diagnosis.defects if record.diagnosis else ():
                annotation_list.add(_annotation(defect, annotation_list.count + 1, image_list.count, pixels))
        file.write(b'],\n"annotations": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file)
        file.write(b'],\n"categories": ' + json.dumps(_CATEGORIES).encode() + b"}\n")
    return image_list.count


def _image(record: Record, image_id: int, width: int, height: int) -> dict[str, Any]:
    diagnosis = record.diagnosis
    image: dict[str, Any] = {"id": image_id, "file_name": record.filepath, "width": width, "height": height}
    image["prompt"] = record.prompt
    if diagnosis is None or not diagnosis.is_informative:
        image["annotated"] = False
    if diagnosis is not None and (stored := diagnosis_extras(diagnosis)):
        image[STORED] = stored
    taken = _IMAGE_KEYS if known_size(record) else _IMAGE_KEYS | {"width", "height"}
    return image | to_extras(record, taken=taken)


def _annotation(defect: Defect, annotation_id: int, image_id: int, pixels: tuple[int, int]) -> dict[str, Any]:
    x, y, width, height = to_scale(defect.box, pixels)
    attributes = {"reason": defect.reason, "importance": defect.importance, "subtype": defect.subtype}
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": _CATEGORY_IDS[defect.type],
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [],
        "attributes": {name: value for name, value in attributes.items() if value is not None},
    }


def _record(
    image: object,
    annotations: Mapping[str, list[tuple[int, dict[str, Any]]]],
    names: Mapping[str, object],
) -> tuple[Record]:
    if not isinstance(image, dict):
        raise ValueError(f"An image is a JSON object, not {quoted(image)}.")
    filepath = text_of(image, "file_name")
    prompt_key = "prompt" if "prompt" in image else "caption"
    prompt = text_of(image, prompt_key, default="")
    pixels = image.get("width"), image.get("height")
    defects: list[Defect] = []
    faults: list[str] = []
    for number, annotation in annotations[_key(image.get("id"))]:
        try:
            defects.extend(_defects(annotation, names, pixels))
        except ValueError as error:
            faults.append(f"Annotation {number}: {error}")
    if faults:
        raise Faults(faults)
    stored = image.get(STORED, {})
    unknown = image.get("annotated") is False and not stored and not defects
    diagnosis = None if unknown else with_extras(defects, stored)
    return (Record(filepath, prompt, diagnosis, **from_extras(image, known=_IMAGE_KEYS | {prompt_key})),)


def _defects(
    annotation: Mapping[str, Any], names: Mapping[str, object], pixels: tuple[object, object]
) -> Iterator[Defect]:
    if (size := as_size(*pixels)) is None:
        raise ValueError("Its image needs a 'width' and a 'height' in pixels.")
    box = from_scale(annotation.get("bbox"), size)
    category = annotation.get("category_id")
    if _key(category) not in names:
        raise ValueError(f"There is no category with the id {quoted(category)}.")
    name = names[_key(category)]
    if not isinstance(name, str) or name not in LABELS:
        raise ValueError(f"The category is 'artifact', 'misalignment' or 'both', not {quoted(name)}.")
    # CVAT keeps further values in `attributes`, FiftyOne beside the standard keys.
    attributes = annotation.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise ValueError(f"'attributes' is an object, not {quoted(attributes)}.")
    values = {**annotation, **attributes}
    importance: Any = as_integer(values.get("importance"))
    for kind in LABELS[name]:
        yield Defect(box, kind, values.get("reason") or "", importance, values.get("subtype"))


def _refuse_orphan(annotation: object) -> tuple[Record, ...]:
    if not isinstance(annotation, dict):
        raise ValueError(f"An annotation is a JSON object, not {quoted(annotation)}.")
    raise ValueError(f"There is no image with the id {quoted(annotation.get('image_id'))}.")


def _refuse_repeated(image: Mapping[str, Any]) -> tuple[Record, ...]:
    raise ValueError(f"Another image has the same id, {quoted(image.get('id'))}.")


def _key(value: object) -> str:
    """An id as a dictionary key; some tools write the same id as a number here and as text there."""
    return str(value)
