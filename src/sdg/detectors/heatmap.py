"""`heatmap:FOLDER`: artifact and misalignment maps turned into boxes, so that heatmap methods can be scored.

A box is a connected region above a threshold, its importance the mean heat in it; present at all is what
the map's maximum says (SDG §5.2, Table 3: thresholds 0.10 and 0.33).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdg.defects import BOX_SCALE, Defect, DefectType, Diagnosis
from sdg.detectors.base import Stream, StreamingDetector, failed, path_of
from sdg.errors import SdgError
from sdg.images import MAX_PIXELS, Pair, image_size
from sdg.io.paths import claimed_twice, parts
from sdg.response import render_response

Heat = NDArray[np.float32]

THRESHOLD: Final = 0.33
MIN_AREA: Final = 0.0005
_SUFFIXES: Final = (".npy", ".png")
_WITH_CORNERS: Final = np.ones((3, 3), dtype=int)  # regions that touch at a corner are one


class HeatFolder:
    """The two maps of each image in a folder: `artifact/NAME.npy` or `NAME.artifact.npy`, PNG likewise.

    NAME is the image's path without its suffix, or any end of it. Maps are (H, W), of any size, 0 to 1 (8-
    and 16-bit files are scaled). paths: of all images, for a map that may be of several is of none.
    """

    def __init__(self, folder: Path, paths: Iterable[str]) -> None:
        self._folder = folder
        self._files = {path: {kind: _find_map(folder, path, kind) for kind in DefectType} for path in paths}
        claims = ((path, file) for path, files in self._files.items() for file in files.values() if file)
        self._unclear = claimed_twice(claims)

    def maps(self, path: str) -> dict[DefectType, Heat]:
        """Both maps of an image; raises SdgError where one is missing, unclear or no heat map."""
        return {kind: self._map(path, kind, file) for kind, file in self._files[path].items()}

    def _map(self, path: str, kind: DefectType, file: Path | None) -> Heat:
        if file is None:
            raise SdgError(f"{self._folder} holds no {kind.value} map for {path}.")
        if file in self._unclear:
            raise SdgError(f"{file} may belong to more than one of these images.")
        return read_heat(file)


class HeatmapDetector(StreamingDetector):
    """Reads an image's two maps from a folder, laid out as `HeatFolder` says.

    threshold: a pixel counts above it. min_area: smaller regions, as a share of the map, are left out
    unless they hold the map's maximum. Reasons stay empty.
    Raises SdgError where there is no such folder.
    """

    stored = True

    def __init__(
        self, folder: str | os.PathLike[str], *, threshold: float = THRESHOLD, min_area: float = MIN_AREA
    ) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise SdgError(f"{self._folder} is no folder; heatmap:FOLDER names the folder with the maps.")
        self._threshold, self._min_area = threshold, min_area

    @property
    def identity(self) -> Mapping[str, str | int | float]:
        return {
            "detector": "heatmap",
            "folder": str(self._folder.absolute()),
            "threshold": self._threshold,
            "min_area": self._min_area,
        }

    def stream(self, pairs: Sequence[Pair], wanted: Collection[int] | None = None) -> Stream:
        paths = [path_of(image) for image, _ in pairs]
        folder = HeatFolder(self._folder, [path for path in paths if path is not None])
        for index in range(len(pairs)) if wanted is None else sorted(wanted):
            path = paths[index]
            if path is None:
                yield index, failed("Heat maps are found by the image's path, and this image has none.")
            else:
                yield index, self._diagnosis(folder, path)

    def _diagnosis(self, folder: HeatFolder, path: str) -> Diagnosis:
        defects: list[Defect] = []
        try:
            for kind, heat in folder.maps(path).items():
                defects += heat_defects(heat, kind, self._threshold, self._min_area)
        except SdgError as error:
            return failed(str(error))
        bare = Diagnosis(defects=tuple(defects))
        return Diagnosis(bare.defects, raw=render_response(bare))


def heat_defects(
    heat: Heat, kind: DefectType, threshold: float = THRESHOLD, min_area: float = MIN_AREA
) -> list[Defect]:
    """Connected regions of a map above a threshold as defects, the most important first.

    heat: (H, W), 0 to 1. Boxes cover every pixel of their region; importance is the region's mean heat in
    percent, at least 1. There is a defect exactly where the map's maximum exceeds the threshold.
    """
    regions, found = ndimage.label(heat > threshold, structure=_WITH_CORNERS)
    if not found:
        return []
    sizes = np.bincount(regions.ravel(), minlength=found + 1)[1:]
    means = np.bincount(regions.ravel(), weights=heat.ravel(), minlength=found + 1)[1:] / sizes
    hottest = regions.flat[int(heat.argmax())] - 1
    height, width = heat.shape
    defects = []
    for index, window in enumerate(ndimage.find_objects(regions)):
        if sizes[index] < min_area * heat.size and index != hottest:
            continue
        rows, columns = window
        box = _box(columns.start, columns.stop, width), _box(rows.start, rows.stop, height)
        (x0, x1), (y0, y1) = box
        importance = min(100, max(1, round(100 * float(means[index]))))
        defects.append(Defect((x0, y0, x1, y1), kind, importance=importance))
    return sorted(defects, key=lambda defect: -(defect.importance or 0))


def _box(start: int, stop: int, size: int) -> tuple[int, int]:
    """First and last coordinate of pixels start to stop of `size`; never without length."""
    return start * BOX_SCALE // size, ceil(stop * BOX_SCALE / size)


def read_heat(file: Path) -> Heat:
    """A map as (H, W) in 0 to 1, from a grey PNG or a NPY array; raises SdgError, naming the file."""
    values = _read_npy(file) if file.suffix == ".npy" else _read_png(file)
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:  # in either order of bytes
        return (values / np.float32(np.iinfo(values.dtype).max)).astype(np.float32)
    heat = values.astype(np.float32)
    if np.isnan(heat.min()):
        raise SdgError(f"{file} holds NaN, which is no number; write the heat map again without it.")
    if not (heat.min() >= 0 and heat.max() <= 1):
        raise SdgError(f"{file} holds heat outside 0 to 1; scale it to that range.")
    return heat


def _read_png(file: Path) -> NDArray[Any]:
    image_size(file)  # refuses what is too large, before anything is decoded
    try:
        with Image.open(file, formats=["PNG"]) as image:
            values = np.asarray(image)
            mode = image.mode
    except (OSError, SyntaxError, ValueError):
        raise SdgError(f"{file} is damaged or no PNG; write the heat map again.") from None
    if mode == "L":
        return values
    if mode.startswith("I"):
        return values.astype(np.uint16)
    if mode == "RGB" and (values == values[..., :1]).all():
        return values[..., 0]
    raise SdgError(f"{file} is no grey picture, so its heat is unknown; write the map in grey or as NPY.")


def _read_npy(file: Path) -> NDArray[Any]:
    try:
        # Mapped, so that a wrong shape is refused before it fills the memory; pickles may run code.
        values = np.load(file, mmap_mode="r", allow_pickle=False)
        shape = [length for length in values.shape if length != 1]
    except Exception:  # numpy raises a dozen unrelated types on damaged headers
        raise SdgError(f"{file} is damaged or holds no plain array; write the heat map again.") from None
    if values.ndim > 2 and len(shape) == 2:  # (1, H, W), as models give it
        values = values.reshape(shape)
    if values.ndim != 2 or values.dtype.kind not in "uf" or not 1 <= values.size <= MAX_PIXELS:
        raise SdgError(f"{file} is no heat map: it needs the shape (H, W) and numbers from 0 to 1.")
    return np.asarray(values)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # longer than names may be, or where one may not look
        return False


def _find_map(folder: Path, path: str, kind: DefectType) -> Path | None:
    """The map of an image, under as much of the image's path as the folder keeps."""
    own = parts(path)
    own = own[1:] if own and PurePath(path).is_absolute() else own
    own = tuple(part for part in own if part != "..")
    for start in range(len(own)):
        *parents, name = own[start:]
        stem = PurePath(name).stem
        for suffix in _SUFFIXES:
            for candidate in (
                folder.joinpath(kind.value, *parents, stem + suffix),
                folder.joinpath(*parents, f"{stem}.{kind.value}{suffix}"),
                folder.joinpath(*parents, f"{stem}_{kind.value}{suffix}"),
            ):
                if _is_file(candidate):
                    return candidate
    return None
