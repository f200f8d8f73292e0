"""Label Studio: tasks with their labelling configuration, and exports (its JSON format).

Boxes are percentages. The platform demands a box, so a clean image carries a placeholder box with the tag
"no problem", which reads as an empty set (SDG App. A); an annotation without any region says nothing. Keys
of an annotation that the platform does not know are lost there, so how a diagnosis came to be lies in the
task's data, and the ids of the regions say of which annotation it is.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, Final
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

from sdg.data.formats.boxes import Box, Size, from_scale, pixel_size, to_scale
from sdg.defects import BOX_SCALE, SUBTYPES, TIER_FLOORS, Defect, DefectType, Diagnosis
from sdg.errors import Faults, SdgError, quoted, reasons, shortened
from sdg.io.files import atomic_writer, require_begin, write_text
from sdg.io.jsonl import ListWriter, load_document
from sdg.records import (
    STORED,
    Fault,
    Part,
    Path,
    Record,
    as_integer,
    as_name,
    diagnosis_extras,
    from_extras,
    read_parts,
    text_of,
    to_extras,
    with_extras,
)
from sdg.response.strict import LABELS

NO_PROBLEM: Final = "no problem"
"""Tag of the placeholder box that stands for "I looked, and there is nothing"."""

LOCAL_FILES: Final = "/data/local-files/?d="
"""Where Label Studio serves images from its own disk (LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED)."""

_PERCENT: Final = (100.0, 100.0)
_GRID: Final = (BOX_SCALE, BOX_SCALE)
_DATA_KEYS: Final = frozenset({"image", "filepath", "prompt", STORED})
_REGION: Final = re.compile(r"annotation-([0-9]{1,6})-")
# Control of the labelling configuration -> type of its results, and the key their content is under.
_WIRE: Final = {
    "label": ("rectanglelabels", "rectanglelabels"),
    "reason": ("textarea", "text"),
    "importance": ("number", "number"),
    "subtype": ("choices", "choices"),
}
_NAMES: Final = {kind: name for name, (kind, _) in _WIRE.items()}  # for controls of other names
_AREAS: Final = frozenset({"x", "y", "points", "vertices", "rle"})  # keys of a result that is about a part
_BOX_LABELS: Final = ("rectanglelabels", "labels")  # keys that labels of a box are under
_KNOWN: Final = frozenset({*LABELS, NO_PROBLEM})
_NAMELESS: Final = "without an id, at "


def read(path: Path, on_fault: Callable[[Fault], object] | None = None) -> Iterator[Record]:
    """The records of tasks or an export: one for each annotation, one for a task without any.

    The annotator is the e-mail or number in `completed_by`; skipped annotations are left out. on_fault: is
    told of each annotation that cannot be read, with whose it is, and the rest is read.
    Raises SdgError with file, place and reason at the first fault, where there is no `on_fault`.
    """
    return read_parts(path, parts(path, on_fault))


def parts(path: Path, on_fault: Callable[[Fault], object] | None = None) -> Iterator[Part]:
    """Each task as a part of its own, for `validate`."""
    tasks = load_document(path)
    if not isinstance(tasks, list):
        raise SdgError(f"{path} is not a Label Studio file: it holds no list of tasks; export as JSON.")
    for number, task in enumerate(tasks, start=1):
        own = task.get("id") if isinstance(task, dict) else None
        place = f"task {own if type(own) is int else number}"
        yield place, partial(_records, task, on_fault, partial(Fault, str(path), place))


def write(
    path: Path,
    records: Iterable[Record],
    *,
    blind: bool = False,
    image_url: str = LOCAL_FILES,
    images: Path | None = None,
    size: Size | None = None,
    allow_outside: bool = False,
) -> int:
    """Write tasks, and the labelling configuration beside them as `.xml`; returns the number of tasks.

    Neighbouring records of one image become one task with several annotations. `blind` leaves out whatever is
    known, for people who are not to see it: a task has the picture, its path and its prompt alone, and the
    configuration the paper's subtypes. An image's address is `image_url` and its path.

    Each result says how large its image is, which Label Studio's own exports in pixels (COCO, YOLO, VOC) go
    by. images, size, allow_outside: where that is known from, as for COCO. Where it is not, it is the
    1000 × 1000 of the boxes' own grid, in which such an export has the right place.
    Raises SdgError where a file cannot be written or an image's size be read, and where an `.xml` beside
    would be replaced that is no labelling configuration.
    """
    subtypes = {kind: dict.fromkeys(names) for kind, names in SUBTYPES.items()}
    with atomic_writer(path) as file:
        _require_configuration(pathlib.Path(path))
        tasks = ListWriter(file, path)
        file.write(b"[")
        if blind:
            records = (Record(record.filepath, record.prompt) for record in records)
        for _, group in groupby(enumerate(records), key=_image_key if blind else _task_key):
            same_task = [record for _, record in group]
            annotations = [
                _annotation(at, r, pixel_size(r, images, size, allow_outside) or _GRID)
                for at, r in enumerate(same_task, start=1)
                if _says_something(r)
            ]
            data = _data(same_task[0], image_url)
            stored = [diagnosis_extras(r.diagnosis) if r.diagnosis else {} for r in same_task]
            if any(stored):
                data[STORED] = stored
            tasks.add({"data": data, "annotations": annotations})
            for record in same_task:
                for defect in record.diagnosis.defects if record.diagnosis else ():
                    if defect.subtype and defect.subtype.isprintable():  # XML holds nothing else
                        subtypes[defect.type][defect.subtype] = None
        file.write(b"\n]\n")
    if pathlib.Path(path).is_file():  # a pipe has nothing beside it
        names = dict.fromkeys(name for of_type in subtypes.values() for name in of_type)
        write_text(pathlib.Path(path).with_suffix(".xml"), labelling_config(names))
    return tasks.count


def _require_configuration(path: pathlib.Path) -> None:
    """Raise SdgError where the `.xml` beside tasks would take the place of something else."""
    if path.exists() and not path.is_file():  # a pipe has nothing beside it
        return
    if path.suffix == ".xml":
        raise SdgError(f"{path} would be the labelling configuration; name a .json file for the tasks.")
    otherwise = "is no labelling configuration, which stands beside the tasks; name another file for them"
    require_begin(path.with_suffix(".xml"), (b"<view",), otherwise)


def labelling_config(
    subtypes: Iterable[str] | None = None,
    *,
    heading: str = "Mark everything that is wrong, then look once more for what you missed",
    above: str = "",
) -> str:
    """Label Studio's labelling configuration (XML) for structured defects.

    A region takes one of the two types or the no-problem tag, a reason, an importance and a subtype, by
    default those of the paper's taxonomy. heading: what is to be done. above: XML of controls of the whole
    picture, which stand under the prompt.
    """
    if subtypes is None:
        subtypes = [name for names in SUBTYPES.values() for name in names]
    choices = "\n".join(f"        <Choice value={quoteattr(name)}/>" for name in subtypes)
    tiers = " · ".join(f"{floor}+ {tier}" for tier, floor in TIER_FLOORS.items())
    return f"""<View style="display: flex; align-items: flex-start; gap: 16px">
  <View style="flex: 1 1 0; min-width: 0">
    <Image name="image" value="$image" zoom="true" zoomControl="true"/>
  </View>
  <View style="flex: 0 0 30%; min-width: 230px; max-width: 380px; position: sticky; top: 0">
    {header("The picture was made from")}
    <Text name="prompt" value="$prompt"/>
    {header(heading)}
{above}    <RectangleLabels name="label" toName="image" canRotate="false">
      <Label value="{DefectType.ARTIFACT.value}" background="#d62728"/>
      <Label value="{DefectType.MISALIGNMENT.value}" background="#1f77b4"/>
      <Label value="{NO_PROBLEM}" background="#2ca02c"/>
    </RectangleLabels>
    <View visibleWhen="no-region-selected">
      {header("Choose a label, draw a box, then click the box to fill in the rest", faint=True)}
    </View>
    <View visibleWhen="region-selected">
      {header("Reason: which part, and what is wrong with it")}
      <TextArea name="reason" toName="image" perRegion="true" editable="true" rows="2"
                maxSubmissions="1" showSubmitButton="false" placeholder="The left hand has six fingers"/>
      {header("Importance, 1 to 100")}
      {header(tiers, faint=True)}
      <Number name="importance" toName="image" perRegion="true" min="1" max="100" step="1"/>
      {header("Subtype, if one fits")}
      <Choices name="subtype" toName="image" perRegion="true" choice="single" layout="select">
{choices}
      </Choices>
    </View>
  </View>
</View>
"""


def header(text: str, *, faint: bool = False) -> str:
    """A line of text above a control, in a labelling configuration; a `$name` is a task's own."""
    style = f"font-size: {13 if faint else 14}px; line-height: 1.35; margin: {2 if faint else 10}px 0 2px"
    weight = 400 if faint else 600
    return f'<Header value={quoteattr(text)} size="6" style="{style}; font-weight: {weight}"/>'


def _task_key(numbered: tuple[int, Record]) -> str:
    """Equal for neighbours that share a task; one without an annotation to show for itself stays alone."""
    number, record = numbered
    own = [_data(record, ""), None if _says_something(record) else number]
    # What JSON cannot hold is refused when it is written.
    return json.dumps(own, sort_keys=True, default=repr)


def _image_key(numbered: tuple[int, Record]) -> tuple[str, str]:
    return numbered[1].filepath, numbered[1].prompt


def _says_something(record: Record) -> bool:
    return record.diagnosis is not None or record.annotator is not None


def _data(record: Record, image_url: str) -> dict[str, Any]:
    image = image_url + quote(record.filepath, errors="surrogatepass")
    data = {"image": image, "filepath": record.filepath, "prompt": record.prompt}
    return data | to_extras(replace(record, annotator=None), taken=_DATA_KEYS)


def _annotation(number: int, record: Record, size: Size) -> dict[str, Any]:
    annotation: dict[str, Any] = {"result": write_regions(record.diagnosis, f"annotation-{number}", size)}
    if record.annotator is not None:
        annotation["completed_by"] = _person(record.annotator)
    return annotation


def _person(annotator: str) -> int | dict[str, str]:
    """Label Studio knows its people by number or by e-mail."""
    is_number = annotator.isdecimal() and len(annotator) < 19 and str(int(annotator)) == annotator
    return int(annotator) if is_number else {"email": annotator}


def write_regions(diagnosis: Diagnosis | None, name: str, size: Size) -> list[dict[str, Any]]:
    """The `result` of an annotation: a region for each defect, or the placeholder of a clean picture.

    name: what the regions' ids begin with. size: (width, height) of the picture, which Label Studio's
    exports in pixels need.
    """
    if diagnosis is None:
        return []
    if diagnosis.is_clean:
        whole = (0, 0, BOX_SCALE, BOX_SCALE)
        return [_result(f"{name}-placeholder", whole, size, "label", [NO_PROBLEM])]
    results = []
    for number, defect in enumerate(diagnosis.defects, start=1):
        said = {
            "label": [defect.type.value],
            "reason": [defect.reason] if defect.reason else None,
            "importance": defect.importance,
            "subtype": None if defect.subtype is None else [defect.subtype],
        }
        results += [
            _result(f"{name}-defect-{number}", defect.box, size, control, content)
            for control, content in said.items()
            if content is not None
        ]
    return results


def read_regions(results: list[Any]) -> tuple[Defect, ...] | None:
    """The inverse of `write_regions`, for whatever was drawn; None where there is no region at all.

    Raises ValueError, Faults for several, each of which names the region, counted from 1.
    """
    regions, faults = _regions(results)
    defects: list[Defect] = []
    for number, region in enumerate(regions, start=1):
        try:
            defects.extend(_defects(region))
        except ValueError as error:
            faults.append(f"Region {number}: {error}")
    if defects and any(region["label"] == [NO_PROBLEM] for region in regions):
        faults.append(f"It carries the tag {NO_PROBLEM!r} beside defects; keep one or the other.")
    if faults:
        raise Faults(faults)
    return tuple(defects) if regions else None


def _result(region: str, box: Box, size: Size, control: str, content: object) -> dict[str, Any]:
    """What one control of the labelling configuration says about one region; each repeats the box."""
    x, y, width, height = to_scale(box, _PERCENT)
    kind, key = _WIRE[control]
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, key: content}
    pixels = {"original_width": size[0], "original_height": size[1], "image_rotation": 0}
    return {"id": region, "from_name": control, "to_name": "image", "type": kind, "value": value, **pixels}


def _records(
    task: object, on_fault: Callable[[Fault], object] | None, fault_here: Callable[[str], Fault]
) -> list[Record]:
    """The records of a task; on_fault: is told of annotations that cannot be read, where any may be."""
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise ValueError(
            "A task is a JSON object with 'data'; export as JSON, not as JSON-MIN. Rows that are not Label "
            "Studio's stand one a line in a .jsonl."
        )
    data = task["data"]
    filepath = text_of(data, "filepath") if "filepath" in data else _path_of(text_of(data, "image"))
    prompt_key = next((key for key in ("prompt", "caption", "text") if key in data), "prompt")
    prompt = text_of(data, prompt_key, default="")
    fields = from_extras(data, known=_DATA_KEYS | {prompt_key})
    records: list[Record] = []
    faults: list[str] = []
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list):
        raise ValueError(f"'annotations' is a list, not {quoted(annotations)}.")
    stored = data.get(STORED, [])
    if not isinstance(stored, list):
        raise ValueError(f"{STORED!r} is a list, not {quoted(stored)}.")
    for number, annotation in enumerate(annotations, start=1):
        try:
            if isinstance(annotation, dict) and annotation.get("was_cancelled"):
                continue
            annotator, diagnosis = _annotated(annotation, number, stored)
            records.append(Record(filepath, prompt, diagnosis, **{**fields, "annotator": annotator}))
        except ValueError as error:
            whose = f"Annotation {number}{_by_whom(annotation)}"
            faults.extend(f"{whose}: {reason}" for reason in reasons(error))
    if faults and on_fault is not None:
        for fault in faults:
            on_fault(fault_here(fault))
    elif faults:
        raise Faults(faults)
    return records or [Record(filepath, prompt, None, **fields)]


def _path_of(image: str) -> str:
    return unquote(image[len(LOCAL_FILES) :]) if image.startswith(LOCAL_FILES) else image


def _by_whom(annotation: object) -> str:
    """ " by a@b.c", for a sentence; nothing where nobody is named."""
    person = _completed_by(annotation) if isinstance(annotation, dict) else None
    return f" by {shortened(str(person), 80)}" if person else ""


def _completed_by(annotation: Mapping[str, Any]) -> Any:
    person = annotation.get("completed_by")
    return (person.get("email") or person.get("id")) if isinstance(person, dict) else person


def _stored(results: list[Any], number: int, stored: list[Any]) -> Any:
    """What the task's data keeps of an annotation: of the one its regions' ids name.

    Without regions, of annotation `number`; what others have drawn since has ids of other kinds.
    """
    if results:
        ids = (_REGION.match(str(result.get("id"))) for result in results if isinstance(result, dict))
        number = next((int(found[1]) for found in ids if found), 0)
    return stored[number - 1] if 1 <= number <= len(stored) else {}


def _annotated(annotation: object, number: int, stored: list[Any]) -> tuple[str | None, Diagnosis | None]:
    """Annotator and diagnosis of one annotation; stored: what the task's data keeps of each."""
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        raise ValueError("An annotation is a JSON object with a list 'result'.")
    person = _completed_by(annotation)
    defects = read_regions(annotation["result"])
    diagnosis = with_extras(defects or (), _stored(annotation["result"], number, stored))
    unknown = defects is None and diagnosis.is_informative  # a clean one carries the placeholder
    return as_name("completed_by", person), None if unknown else diagnosis


def _regions(results: list[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """What is said of each box, in their order: `box`, `label` and, where given, the rest; and the faults.

    A defect that is not read would leave the picture clean. So a label on another shape than a box is a
    fault, and so is a region of a control of labels that has none. Regions of other controls are let be, and
    relations between regions.
    """
    regions: dict[str, dict[str, Any]] = {}
    others: list[dict[str, Any]] = []
    faults: dict[str, None] = {}
    labellers = {"label"}  # names of controls of labels
    for result in results:
        if isinstance(result, dict) and result.get("type") == "relation" and "value" not in result:
            continue  # an arrow from one region to another
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            raise ValueError("A result is a JSON object with a 'value'.")
        value = result["value"]
        kind = next((key for key in value if key.endswith("labels")), None)
        if kind in _BOX_LABELS and (_is_box(value) or _AREAS.isdisjoint(value)):
            if not isinstance(labels := value[kind], list):
                raise ValueError(f"The labels of a region are a list, not {quoted(labels)}.")
            if (key := _key(result)) in regions:
                raise ValueError(f"Two boxes have the id {quoted(result.get('id'))}; give each its own.")
            regions[key] = {"box": value, "label": [_tag(label) for label in labels]}
            labellers.add(str(result.get("from_name")))
        elif kind is not None and isinstance(value[kind], list) and _KNOWN & set(map(_tag, value[kind])):
            faults[f"A region of type {quoted(result.get('type'))} is no box; draw a rectangle."] = None
        else:
            others.append(result)
    nameless = [key for key in regions if key.startswith(_NAMELESS)]
    for result in others:
        value, name = result["value"], str(result.get("from_name"))
        control = name if name in _WIRE else _NAMES.get(str(result.get("type")), "")
        key = _key(result)
        if result.get("id") is None and control and not _is_box(value):
            if len(nameless) == 1:
                (key,) = nameless
            elif nameless and name in _WIRE:
                raise ValueError("Which of the boxes without an id is meant cannot be told; give each an id.")
        if key in regions:
            if control:
                regions[key].setdefault(control, value)
        elif (name in labellers or name in _WIRE) and not _AREAS.isdisjoint(value):
            faults["A box has no label; say whether it is an artifact or a misalignment."] = None
    return list(regions.values()), list(faults)


def _key(result: Mapping[str, Any]) -> str:
    """The id of a result's region; without one the place of its box, which all results of a region repeat."""
    if result.get("id") is not None:
        return str(result["id"])
    return _NAMELESS + json.dumps([result["value"].get(name) for name in ("x", "y", "width", "height")])


def _is_box(value: Mapping[str, Any]) -> bool:
    return value.keys() >= {"x", "y", "width", "height"}


def _tag(label: object) -> str:
    """A label as people spell it: "No-Problem" is "no problem"."""
    return " ".join(re.split(r"[\s_-]+", str(label).strip().lower()))


def _defects(region: Mapping[str, Any]) -> list[Defect]:
    box, labels = region["box"], region["label"]
    if labels == [NO_PROBLEM]:
        return []
    if not labels or any(label not in LABELS for label in labels):
        raise ValueError(
            f"A box is labelled 'artifact', 'misalignment' or {NO_PROBLEM!r}, not {quoted(labels)}."
        )
    if box.get("rotation"):
        raise ValueError("The box is turned; draw it upright.")
    corners = from_scale([box.get(name) for name in ("x", "y", "width", "height")], _PERCENT)
    number = region.get("importance", {})
    importance: Any = as_integer(number.get("number", _text(number)))
    kinds = dict.fromkeys(kind for label in labels for kind in LABELS[label])
    reason, subtype = _text(region.get("reason", {})) or "", _text(region.get("subtype", {}))
    return [Defect(corners, kind, reason, importance, subtype) for kind in kinds]


def _text(value: Mapping[str, Any]) -> str | None:
    """Text of a text area or of choices, several entries one a line; None where nothing was entered."""
    content = value.get("text", value.get("choices", []))
    if isinstance(content, list):
        return "\n".join(map(str, content)) if content else None
    return None if content is None else str(content)
