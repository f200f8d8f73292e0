"""`supervision.Detections`, the value that Roboflow's tools draw, track and measure.

Class 0 is artifact and 1 is misalignment; boxes are pixels. What Detections has no place for stands in its
`data` (reason, importance, subtype) and `metadata` (reasoning, status, raw response, repairs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sdg.data.formats.boxes import from_scale, to_scale
from sdg.defects import Defect, DefectType, Diagnosis
from sdg.errors import installed, quoted
from sdg.records import as_integer, diagnosis_extras, with_extras
from sdg.response.strict import LABELS

if TYPE_CHECKING:
    import supervision

CLASS_NAMES: Final = tuple(kind.value for kind in DefectType)
"""Name of each class id."""


def to_detections(diagnosis: Diagnosis, size: tuple[int, int]) -> supervision.Detections:
    """The defects as Detections of an image of `size` = (width, height) pixels.

    xyxy: (K, 4) float32. Raises SdgError where supervision is not installed.
    """
    with installed("supervision is not installed", "data"):
        from supervision import Detections
    defects = diagnosis.defects
    boxes = np.array([to_scale(defect.box, size) for defect in defects], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        xyxy=boxes.astype(np.float32),
        class_id=np.array([CLASS_NAMES.index(defect.type) for defect in defects], dtype=int),
        data={
            "class_name": np.array([defect.type.value for defect in defects], dtype=str),
            "reason": _objects([defect.reason for defect in defects]),
            "importance": _objects([defect.importance for defect in defects]),
            "subtype": _objects([defect.subtype for defect in defects]),
        },
        metadata=diagnosis_extras(diagnosis),
    )


def from_detections(detections: supervision.Detections, size: tuple[int, int]) -> Diagnosis:
    """The Diagnosis that Detections of an image of `size` = (width, height) pixels say.

    The type is the class name in `data`, or else the class id; `data` may lack the other values.
    Raises ValueError, in one sentence, for a box outside the image or another class.
    """
    data: dict[str, Any] = dict(detections.data)
    defects: list[Defect] = []
    for index, (x0, y0, x1, y1) in enumerate(detections.xyxy.astype(np.float64).tolist()):
        label = _label(detections, index)
        importance: Any = as_integer(_value(data, "importance", index))
        reason, subtype = _value(data, "reason", index) or "", _value(data, "subtype", index)
        box = from_scale([x0, y0, x1 - x0, y1 - y0], size)
        defects.extend(Defect(box, kind, reason, importance, subtype) for kind in LABELS[label])
    known = {"reasoning", "status", "raw", "repairs", "error"}
    return with_extras(defects, {key: value for key, value in detections.metadata.items() if key in known})


def _label(detections: supervision.Detections, index: int) -> str:
    names = detections.data.get("class_name")
    if names is not None:
        label = str(names[index])
    elif detections.class_id is not None and 0 <= detections.class_id[index] < len(CLASS_NAMES):
        label = CLASS_NAMES[detections.class_id[index]]
    else:
        raise ValueError(f"Detection {index + 1} has no class name, and its id is not 0 or 1.")
    if label not in LABELS:
        raise ValueError(f"Detection {index + 1} is 'artifact' or 'misalignment', not {quoted(label)}.")
    return label


def _value(data: dict[str, Any], key: str, index: int) -> Any:
    return data[key][index] if key in data else None


def _objects(values: list[Any]) -> np.ndarray:
    """A 1-D array of Python objects: texts of any length, and None."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
