"""The one image loader: any picture file becomes an upright 8-bit RGB image, or a sentence saying what to do.

Drawing defects onto an image is `draw_overlay`, in `sdg.overlay`.
"""

from __future__ import annotations

import os
import stat
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sdg.errors import SdgError, first_line, path_end, quoted
from sdg.overlay import draw_overlay

__all__ = ["MAX_PIXELS", "draw_overlay", "image_size", "load_image", "load_image_bytes", "save_image"]

MAX_PIXELS: Final = 8192 * 8192
"""Larger images are refused before they are decoded: a few kilobytes can unpack to gigabytes."""


class StoredImage(os.PathLike[str]):
    """A picture inside of a file of many, read when it is needed; as a path it is its name alone."""

    name: str

    @abstractmethod
    def content(self) -> bytes:
        """The bytes of its own file; raises SdgError where they cannot be read."""

    def __fspath__(self) -> str:
        return self.name


Array = NDArray[np.uint8 | np.uint16 | np.floating]
"""Pixels in memory: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; 8 or 16 bits, or floats from 0 to 1."""
Source = str | os.PathLike[str] | Image.Image | Array
"""An image: its file, where it is stored, or a picture in memory."""
Pair = tuple[Source, str]
"""An image and the prompt it was generated from."""

_LOADING: Final = threading.Lock()

# Formats that pictures come in. Pillow's others are left out on purpose: EPS, for one, runs Ghostscript.
_FORMATS: Final = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
_READABLE: Final = "PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF"

# EXIF orientation -> the turn that puts the stored pixels upright.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_AXES: Final = (5, 6, 7, 8)
_ORIENTATION_TAG: Final = 0x0112


def load_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as RGB, 8 bits a channel, upright.

    EXIF orientation is applied, transparency is laid on white, 16-bit and 1-bit values are scaled to 0–255,
    and of an animation the first frame is taken. Colour profiles are not applied. The size is checked
    against `max_pixels` before anything is decoded (Pillow's own, larger limit holds as well).
    Raises SdgError, naming the file, for anything that is not a whole and readable image.
    """
    if isinstance(path, StoredImage):
        return load_image_bytes(path.content(), path.name, max_pixels=max_pixels)
    with _opened(path) as stream:
        return _load(stream, _name(path), max_pixels)


def rgb_picture(image: Source, fit: Callable[[int, int], tuple[int, int]] | None = None) -> Image.Image:
    """An image file, or a picture in memory, as 8-bit RGB, transparency laid on white.

    fit: the width and height that it is to have, from those it has. Raises SdgError if it cannot be read, or
    is neither a path, a PIL image nor an array of pixels.
    """
    if fit is not None:
        picture = rgb_picture(image)
        size = fit(*picture.size)
        return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)
    if isinstance(image, (str, os.PathLike)):
        return load_image(image)
    if isinstance(image, np.ndarray):
        return array_picture(image)
    if not isinstance(image, Image.Image):
        raise SdgError(f"An image is a path, a PIL image or an array, not {type(image).__name__}.")
    with _LOADING:  # a file that is opened only is read here, which no two threads may do at once
        loaded = type(image) is Image.Image and image.width > 0 and image.height > 0
        return image if image.mode == "RGB" and loaded else as_rgb(image, "The image")


def array_picture(pixels: Array, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An `Array` as 8-bit RGB, transparency laid on white; OpenCV's BGR is to be turned round before.

    Raises SdgError for other shapes and types, no or too many pixels, and floats outside 0 to 1.
    """
    shape, kind = pixels.shape, pixels.dtype
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise SdgError(f"An array of pixels is (H, W), (H, W, 3) or (H, W, 4), not {quoted(shape)}.")
    if not 1 <= shape[0] * shape[1] <= max_pixels:
        raise SdgError(f"An array of pixels has 1 to {max_pixels:,} of them, not {shape[0]}×{shape[1]}.")
    if kind.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # written so that NaN is refused too
            raise SdgError("An array of floats holds values from 0 to 1; scale it, or make it uint8.")
        pixels = np.rint(pixels.astype(np.float32) * 255)
    elif kind.kind == "u" and kind.itemsize == 2:
        pixels = np.rint(pixels / 257)
    elif kind != np.uint8:
        raise SdgError(f"An array of pixels is uint8, uint16 or floats from 0 to 1, not {kind}.")
    return as_rgb(Image.fromarray(np.ascontiguousarray(pixels, np.uint8)), "The array")


def load_image_bytes(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Like `load_image`, for the content of a file; `name` stands for it in errors."""
    _refuse_empty_and_pointers(data[:64], name)
    return _load(BytesIO(data), name, max_pixels)


def image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) in pixels of the upright image, from the file's header alone.

    Raises SdgError as `load_image` does, except for damage behind the header, which it does not see.
    """
    with _opened(path) if not isinstance(path, StoredImage) else BytesIO(path.content()) as stream:
        image = _open(stream, _name(path), max_pixels)
        width, height = image.size
        return (height, width) if _orientation(image) in _SWAPS_AXES else (width, height)


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG file, which loses nothing; packed quickly rather than tightly."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Write a PNG file, whole or not at all, making its folder if need be; returns its path.

    Raises SdgError if the name does not end in .png or the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise SdgError(f"{target} cannot be written: pictures are saved as PNG, so end the name in .png.")
    # Beside the target, because a rename is atomic only within one file system.
    temporary = target.with_name(f".{uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                image.save(stream, format="PNG")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise SdgError(
            f"{_name(target)} cannot be written ({_reason(error)}); choose a folder you may write to."
        ) from error
    return target


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The file, open for reading, once it is known to be a regular file with something in it."""
    name = _name(path)
    try:
        # A pipe would block for ever and a device never ends, so look before opening.
        mode = Path(path).stat().st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise SdgError(f"{name} is not a regular file; give the path of an image file.")
        stream = Path(path).open("rb")  # noqa: SIM115 (closed below, where errors are no longer about opening)
        try:
            start = stream.read(64)
            stream.seek(0)
        except BaseException:
            stream.close()
            raise
    except FileNotFoundError:
        raise SdgError(f"{name} does not exist; check the path of the image.") from None
    except IsADirectoryError:
        raise SdgError(f"{name} is a folder; give the path of an image file.") from None
    except PermissionError:
        raise SdgError(f"{name} may not be read; ask for read permission or copy it elsewhere.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise SdgError(f"{name} cannot be opened ({_reason(error)}); check the path of the image.") from None
    with stream:
        _refuse_empty_and_pointers(start, name)
        yield stream


def _name(path: str | os.PathLike[str]) -> str:
    """A path in a sentence, however long or odd it is."""
    return path_end(os.fsdecode(path), 160)


def _refuse_empty_and_pointers(start: bytes, name: str) -> None:
    if not start:
        raise SdgError(f"{name} is empty (0 bytes); fetch or generate the image again.")
    if start.startswith(b"version https://git-lfs"):
        raise SdgError(f"{name} is a Git LFS pointer, not the image itself; fetch it with `git lfs pull`.")


def _open(stream: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    """Read the header, and refuse what is no image or too large an image."""
    if max_pixels < 1:
        raise ValueError(f"max_pixels is at least 1, not {max_pixels}.")
    Image.init()  # registers the formats; which of them exist depends on Pillow's version
    try:
        image = Image.open(stream, formats=[name for name in _FORMATS if name in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise SdgError(
            f"{name} claims to be larger than any image that is safe to decode; "
            "scale it down, or leave it out if it comes from someone you do not trust."
        ) from None
    except UnidentifiedImageError:
        raise SdgError(
            f"{name} is not an image that can be read, or its header is damaged; convert it to {_READABLE}."
        ) from None
    except Exception as error:  # Pillow's readers raise a dozen unrelated types on damaged headers
        raise _damaged(name) from error
    width, height = image.size
    if width * height > max_pixels:
        raise SdgError(
            f"{name} is {width}×{height} pixels, more than the {max_pixels:,} allowed; scale it down first."
        )
    return image


def _load(stream: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    image = _open(stream, name, max_pixels)
    # Before loading: Pillow turns a TIFF itself while loading it, and forgets where it stood.
    orientation = _orientation(image)
    rgb = as_rgb(image, name)
    turn = _UPRIGHT.get(orientation)
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info.clear()  # profiles and EXIF describe the file, no longer these pixels
    return upright


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1–8 of an opened image that is not yet loaded; 1 where there is none to go by."""
    if image.format == "TIFF":
        return 1  # Pillow gives the upright size and, once loaded, the upright pixels
    try:
        # The base class's method, because PNG's own decodes the pixels to look for EXIF behind them.
        return int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    except Exception:  # unreadable metadata must not cost the picture, and Pillow raises many types for it
        return 1


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """A picture in memory as `load_image` gives a file: 8-bit RGB, transparency laid on white.

    It stands as it is: where a file was turned is for who opened it. name: what to call it in messages.
    Raises SdgError where it has no pixels, its file is damaged or closed, or its values have no known white.
    """
    if not (image.width and image.height):
        raise SdgError(f"{name} has no pixels.")
    try:
        image.load()
        return _to_rgb(image, name)
    except SdgError:
        raise
    except Exception as error:  # Pillow's own, as above: the file is damaged, gone or closed
        raise _damaged(name) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_wide_to_grey(image, name)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _wide_to_grey(image: Image.Image, name: str) -> np.ndarray:
    """Pixels of 16 or more bits as (H, W) uint8, scaled: clipping would turn nearly all of them white."""
    values = np.asarray(image)
    white = 1.0 if image.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= white):  # written so that NaN is refused too
        raise SdgError(
            f"{name} holds values outside 0 to {white:g}, so what is white is unknown; "
            "convert it to 8 or 16 bits."
        )
    grey = np.rint(values * (255.0 / white)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = 255  # laid on white, as every transparency is
    return grey


def _damaged(name: str) -> SdgError:
    return SdgError(f"{name} is damaged or cut short and cannot be decoded; fetch or generate it again.")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)
