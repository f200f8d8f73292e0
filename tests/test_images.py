"""Every kind of picture file becomes the pixels a viewer shows, or one sentence that names the file."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sdg.errors import SdgError
from sdg.images import as_rgb, image_size, load_image, load_image_bytes, save_image


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    """A PNG file assembled by hand, so that no encoder stands between the test and its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", header)
    if extra:
        body += chunk(extra[:4], extra[4:])
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def pixels(image: Image.Image) -> list[list[tuple[int, ...]]]:
    return [[tuple(int(v) for v in p) for p in row] for row in np.asarray(image)]


def grey(*values: int) -> list[tuple[int, int, int]]:
    return [(v, v, v) for v in values]


def load(data: bytes) -> Image.Image:
    image = load_image_bytes(data, "picture")
    assert image.mode == "RGB"
    return image


# --- modes ---------------------------------------------------------------------------------------------


def test_rgb_is_unchanged() -> None:
    assert pixels(load(png(2, 1, 8, 2, [bytes([1, 2, 3, 250, 0, 9])]))) == [[(1, 2, 3), (250, 0, 9)]]


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    row = struct.pack(">4H", 0, 257, 32896, 65535)
    assert pixels(load(png(4, 1, 16, 0, [row]))) == [grey(0, 1, 128, 255)]


def test_sixteen_bit_rgb_is_scaled() -> None:
    row = struct.pack(">3H", 65535, 32896, 0)
    assert pixels(load(png(1, 1, 16, 2, [row]))) == [[(255, 128, 0)]]


def test_sixteen_bit_tiff_and_pgm_are_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 10, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + values.astype(">u2").tobytes())
    assert pixels(load_image(tmp_path / "a.tif")) == [grey(0, 10, 255)]
    assert pixels(load_image(tmp_path / "a.pgm")) == [grey(0, 10, 255)]


def test_float_tiff_from_0_to_1_is_scaled_and_others_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.2, 1.0]], dtype=np.float32)).save(tmp_path / "unit.tif")
    assert pixels(load_image(tmp_path / "unit.tif")) == [grey(0, 51, 255)]
    for name, value in (("wide.tif", 1.5), ("nan.tif", np.nan), ("negative.tif", -0.1)):
        Image.fromarray(np.array([[0.0, value]], dtype=np.float32)).save(tmp_path / name)
        with pytest.raises(SdgError, match=rf"{name} holds values outside 0 to 1,.* convert it"):
            load_image(tmp_path / name)


def test_thirty_two_bit_integers_have_no_known_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(SdgError, match="outside 0 to 65535"):
        load_image(tmp_path / "deep.tif")


def test_one_bit_becomes_black_and_white() -> None:
    assert pixels(load(png(4, 1, 1, 0, [bytes([0b01100000])]))) == [grey(0, 255, 255, 0)]


def test_two_bit_grey_is_scaled() -> None:
    assert pixels(load(png(4, 1, 2, 0, [bytes([0b00011011])]))) == [grey(0, 85, 170, 255)]


def test_transparency_is_laid_on_white() -> None:
    rgba = png(3, 1, 8, 6, [bytes([9, 9, 9, 0, 200, 100, 0, 255, 0, 0, 0, 51])])
    assert pixels(load(rgba)) == [[(255, 255, 255), (200, 100, 0), (204, 204, 204)]]
    grey_alpha = png(2, 1, 8, 4, [bytes([77, 0, 77, 255])])
    assert pixels(load(grey_alpha)) == [[(255, 255, 255), (77, 77, 77)]]


def test_sixteen_bit_alpha_is_laid_on_white() -> None:
    row = struct.pack(">4H", 65535, 0, 0, 0) + struct.pack(">4H", 65535, 0, 0, 65535)
    assert pixels(load(png(2, 1, 16, 6, [row]))) == [[(255, 255, 255), (255, 0, 0)]]


def test_a_transparent_colour_is_laid_on_white() -> None:
    assert pixels(load(png(2, 1, 8, 0, [bytes([7, 8])], b"tRNS" + struct.pack(">H", 7)))) == [grey(255, 8)]
    sixteen = png(2, 1, 16, 0, [struct.pack(">2H", 1799, 2056)], b"tRNS" + struct.pack(">H", 1799))
    assert pixels(load(sixteen)) == [grey(255, 8)]


def test_a_transparent_one_bit_colour_is_laid_on_white() -> None:
    black_is_clear = b"tRNS" + struct.pack(">H", 0)
    assert pixels(load(png(2, 1, 1, 0, [bytes([0b01000000])], black_is_clear))) == [grey(255, 255)]


@pytest.mark.parametrize("transparent", [0, bytes([0, 255, 128])])
def test_palette_with_transparency(tmp_path: Path, transparent: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 0])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "palette.png", transparency=transparent)
    half = 127 if isinstance(transparent, bytes) else 0
    expected = [(255, 255, 255), (200, 0, 0), (half, half, half)]
    assert pixels(load_image(tmp_path / "palette.png")) == [expected]


def test_palette_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putdata([0, 1])
    image.save(tmp_path / "palette.png")
    assert pixels(load_image(tmp_path / "palette.png")) == [[(10, 20, 30), (200, 0, 0)]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    Image.new("CMYK", (16, 16), (0, 0, 0, 255)).save(tmp_path / "black.tif")
    red = np.asarray(load_image(tmp_path / "red.jpg"), dtype=int)
    assert np.abs(red - [255, 0, 0]).max() <= 3
    assert np.asarray(load_image(tmp_path / "black.tif")).max() == 0


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert load_image(tmp_path / name).getcolors() == [(64, (255, 0, 0))], name


# --- orientation ---------------------------------------------------------------------------------------

# Where the stored pixel (row, column) of a 2 x 3 image is shown, by EXIF's definition of the eight values:
# each names the visual side of stored row 0 and of stored column 0.
SHOWN_AT = {
    1: lambda r, c: (r, c),
    2: lambda r, c: (r, 2 - c),
    3: lambda r, c: (1 - r, 2 - c),
    4: lambda r, c: (1 - r, c),
    5: lambda r, c: (c, r),
    6: lambda r, c: (c, 1 - r),
    7: lambda r, c: (2 - c, 1 - r),
    8: lambda r, c: (2 - c, r),
}


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg", "avif"])
@pytest.mark.parametrize("orientation", SHOWN_AT)
def test_exif_orientation_puts_the_picture_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    # Blocks of 16 pixels, so that lossy formats keep their colours apart.
    stored = np.array([[0, 50, 100], [150, 200, 250]], dtype=np.uint8)
    image = Image.fromarray(np.kron(stored, np.ones((16, 16), np.uint8))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    image.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))

    expected = np.zeros((3, 2) if orientation >= 5 else (2, 3), dtype=int)
    for r in range(2):
        for c in range(3):
            expected[SHOWN_AT[orientation](r, c)] = stored[r, c]
    loaded = load_image(path)
    assert np.abs(np.asarray(loaded, dtype=int)[8::16, 8::16, 0] - expected).max() <= 8
    assert image_size(path) == loaded.size == (16 * expected.shape[1], 16 * expected.shape[0])


def test_saving_and_loading_again_does_not_turn_the_picture_twice(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png", exif=exif)
    once = load_image(tmp_path / "a.png")
    assert load_image(save_image(once, tmp_path / "b.png")).size == once.size == (2, 4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_exif_does_not_cost_the_picture() -> None:
    data = png(2, 1, 8, 0, [bytes([1, 2])], b"eXIf" + b"MM\x00\x2a\xff\xff\xff\xff garbage")
    assert pixels(load(data)) == [grey(1, 2)]


# --- refusals ------------------------------------------------------------------------------------------


def one_sentence(error: SdgError, name: str) -> bool:
    text = str(error)
    return name in text and text.endswith(".") and "\n" not in text and "Traceback" not in text


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    # 60,000 x 60,000 pixels are promised; a few bytes are there, and none of them is looked at.
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(60_000, 60_000, 8, 2, [b"\0" * 100]))
    for read in (load_image, image_size):
        with pytest.raises(SdgError, match=r"bomb.png .* scale it down") as caught:
            read(bomb)
        assert one_sentence(caught.value, "bomb.png")


def test_the_size_limit_is_exact_and_adjustable(tmp_path: Path) -> None:
    path = save_image(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    assert load_image(path, max_pixels=200).size == (20, 10)
    with pytest.raises(SdgError, match=r"a.png is 20×10 pixels, more than the 199 allowed; scale it down"):
        load_image(path, max_pixels=199)
    with pytest.raises(SdgError, match="more than the 199 allowed"):
        image_size(path, max_pixels=199)
    with pytest.raises(SdgError, match="up is 20×10"):
        load_image_bytes(path.read_bytes(), "up", max_pixels=199)
    with pytest.raises(ValueError, match="at least 1"):
        load_image(path, max_pixels=0)


def test_pillow_settings_stay_as_they_were(tmp_path: Path) -> None:
    from PIL import ImageFile

    limit, truncated = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    path = save_image(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    load_image(path, max_pixels=10**12)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert truncated == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_an_error_and_never_half_a_picture(
    tmp_path: Path, suffix: str, share: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SdgError) as caught:
        load_image(path)
    assert one_sentence(caught.value, path.name)


def test_what_is_no_image_is_named_with_what_to_do(tmp_path: Path) -> None:
    cases = {
        "empty.png": (b"", "is empty .* again"),
        "text.png": (b"hello, I am a text file" * 9, "is not an image .* convert it"),
        "vector.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image .* convert it"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        "head.png": (png(2, 2, 8, 2, [b"\0" * 6] * 2)[:20], "not an image|damaged"),
    }
    for name, (data, wanted) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SdgError, match=wanted) as from_file:
            load_image(tmp_path / name)
        assert one_sentence(from_file.value, name)
        with pytest.raises(SdgError, match=wanted) as from_bytes:
            load_image_bytes(data, name)
        assert one_sentence(from_bytes.value, name)


def test_a_path_that_leads_nowhere_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path / "missing.png": "does not exist; check the path",
        tmp_path: "is a folder; give",
        tmp_path / "loop": "cannot be opened",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / ("x" * 400): "cannot be opened",
        Path("a\0b.png"): "cannot be opened",
    }
    for path, wanted in cases.items():
        for read in (load_image, image_size):
            with pytest.raises(SdgError, match=wanted):
                read(path)


def test_a_forbidden_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image(Image.new("RGB", (2, 2)), tmp_path / "secret.png")

    def refuse(*args: object, **kwargs: object) -> None:  # chmod does not bind the superuser
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SdgError, match=r"secret.png may not be read; ask for read permission"):
        load_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata
def test_damaged_files_of_every_format_give_a_picture_or_an_sdg_error(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    originals = []
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tif", "ppm", "avif", "jp2"):
        path = tmp_path / f"whole.{suffix}"
        noise.save(path)
        originals.append(path.read_bytes())

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(originals),
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=20),
    )
    def damaged(data: bytes, changes: list[tuple[float, int]]) -> None:
        broken = bytearray(data)
        for place, value in changes:
            broken[int(place**2 * len(broken))] = value  # mostly in the header, where the harm is done
        try:
            image = load_image_bytes(bytes(broken), "broken", max_pixels=10**6)
        except SdgError as error:
            outcome = one_sentence(error, "broken")
        else:
            outcome = image.mode == "RGB"
        assert outcome

    damaged()


# --- writing -------------------------------------------------------------------------------------------


def test_saving_is_lossless_and_makes_the_folder(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    path = save_image(Image.fromarray(noise), tmp_path / "new" / "folder" / "a.png")
    assert np.array_equal(np.asarray(load_image(path)), noise)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(Image.new("RGB", (2, 2), "red"), tmp_path / "a.png")

    def disk_full(self: Image.Image, stream: object, format: str) -> None:
        stream.write(b"\x89PNG half of")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", disk_full)
    with pytest.raises(SdgError, match=r"a.png cannot be written \(No space left on device\)"):
        save_image(Image.new("RGB", (2, 2), "blue"), path)
    monkeypatch.undo()
    assert load_image(path).getpixel((0, 0)) == (255, 0, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_only_png_is_written_and_a_blocked_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SdgError, match=r"a.jpg cannot be written: .* end the name in .png"):
        save_image(Image.new("RGB", (2, 2)), tmp_path / "a.jpg")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SdgError, match="choose a folder"):
        save_image(Image.new("RGB", (2, 2)), tmp_path / "file" / "a.png")


def test_pictures_in_memory_are_as_those_of_files() -> None:
    half = Image.fromarray(np.full((2, 2), 0.5, np.float32))
    assert as_rgb(half, "it").getpixel((0, 0)) == (128, 128, 128)
    deep = Image.fromarray(np.full((2, 2), 32768, np.uint16))
    assert as_rgb(deep, "it").getpixel((0, 0)) == (128, 128, 128)
    assert as_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), "it").getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(SdgError, match="it has no pixels"):
        as_rgb(Image.new("L", (0, 3)), "it")
