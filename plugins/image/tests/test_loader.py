from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tl_image import loader as module
from tl_image.loader import ImageLoader

from tl_core import DecodeError

Photo = Callable[..., np.ndarray]
LOADER = ImageLoader()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
def test_lossless_formats_give_the_pixels(tmp_path: Path, photo: Photo, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(photo()).save(path, **({"lossless": True} if name.endswith("webp") else {}))
    decoded = LOADER.decode(path)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, photo())


def test_jpeg_is_near_the_pixels(tmp_path: Path, photo: Photo) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.jpg", quality=98)
    assert np.abs(LOADER.decode(tmp_path / "a.jpg").astype(int) - photo()).mean() < 2


def test_content_decides_not_the_extension(tmp_path: Path, photo: Photo) -> None:
    Image.fromarray(photo()).save(tmp_path / "really.png")
    path = (tmp_path / "really.png").rename(tmp_path / "named.jpg")
    assert LOADER.check(path) is None
    np.testing.assert_array_equal(LOADER.decode(path), photo())


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.tiff", "a.png"])
def test_first_frame_of_several(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    red, _, blue = LOADER.decode(tmp_path / name)[3, 4]
    assert red > 240
    assert blue < 15


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    """The brightest corner (top left in the stored pixels) lands where the orientation puts it."""
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    upright = LOADER.decode(path)
    assert upright.shape == ((16, 24, 3) if orientation < 5 else (24, 16, 3))
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    bright = {c for c in ((0, 0), (0, -1), (-1, 0), (-1, -1)) if upright[c].mean() > 128}
    assert bright == {corners[orientation]}


def test_damaged_exif_is_no_orientation(tmp_path: Path, photo: Photo) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\0\0garbage")
    assert LOADER.check(tmp_path / "a.jpg") is None


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    pixels[2, :, 3] = 128
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    rows = LOADER.decode(tmp_path / "rgba.png")[:, 0, 0]
    assert rows.tolist() == [0, 0, 127, 255]
    Image.fromarray(pixels).convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(LOADER.decode(tmp_path / "la.png")[:, 0, 0], rows)


@pytest.mark.parametrize("name", ["palette.png", "palette.gif"])
def test_transparent_palette_entries_lie_over_white(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / name, transparency=0)
    decoded = LOADER.decode(tmp_path / name)
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[2, 2].tolist() == [10, 20, 30]


def test_palette_with_partial_transparency_warns_nobody(tmp_path: Path, photo: Photo) -> None:
    image = Image.fromarray(photo()).quantize(8)
    image.save(tmp_path / "a.png", transparency=bytes([0, 100]))
    assert LOADER.check(tmp_path / "a.png") is None


@pytest.mark.parametrize("mode", ["L", "1"])
def test_greyscale_becomes_three_channels(tmp_path: Path, photo: Photo, mode: str) -> None:
    grey = Image.fromarray(photo()).convert(mode)
    grey.save(tmp_path / "a.png")
    expected = np.repeat(np.asarray(grey.convert("L"))[..., None], 3, axis=2)
    np.testing.assert_array_equal(LOADER.decode(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("name", ["a.jpg", "a.tiff"])
def test_cmyk(tmp_path: Path, name: str) -> None:
    """Adobe's JPEGs store CMYK inverted, TIFFs do not; both come out red."""
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / name)
    assert np.abs(LOADER.decode(tmp_path / name)[8, 8].astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bits_keep_the_high_byte(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 255, 256], [0x1280, 0xFF00, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    assert LOADER.decode(tmp_path / name)[..., 1].tolist() == [[0, 0, 1], [0x12, 0xFF, 0xFF]]


def test_sixteen_bit_colour_keeps_the_high_byte(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">HHH", 0x1280, 0xFF80, 0x7FFF) * 2
    (tmp_path / "a.png").write_bytes(png(2, 2, 16, 2, row * 2))
    assert LOADER.decode(tmp_path / "a.png")[1, 1].tolist() == [0x12, 0xFF, 0x7F]


def test_floats_in_the_unit_range_only(tmp_path: Path) -> None:
    for name, top in (("unit.tiff", 1.0), ("wide.tiff", 300.0), ("nan.tiff", np.nan)):
        Image.fromarray(np.array([[0.0, 0.5], [0.2, top]], np.float32)).save(tmp_path / name)
    assert LOADER.decode(tmp_path / "unit.tiff")[..., 0].tolist() == [[0, 128], [51, 255]]
    reason = "floating-point pixels outside 0..1: convert the file to 8 or 16 bits"
    assert LOADER.check(tmp_path / "wide.tiff") == LOADER.check(tmp_path / "nan.tiff") == reason


def test_wide_integers_beyond_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000], [1, 2]], np.int32)).save(tmp_path / "a.tiff")
    assert "32-bit pixels outside 0..65535" in str(LOADER.check(tmp_path / "a.tiff"))


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_bombs_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side, side, 1, 0, b""))
    assert str(LOADER.check(tmp_path / "a.png")).startswith("too large: ")
    assert "134,217,728 pixels" in str(LOADER.check(tmp_path / "a.png"))


def test_large_photos_pass_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Photo) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 80 - 1)  # Pillow warns from here on
    assert LOADER.check(tmp_path / "a.png") is None


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_single_pixels_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert LOADER.check(tmp_path / "a.png") == f"too small: {size[0]}x{size[1]}, at least 2 pixels a side"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_files_are_refused_whatever_the_cut(tmp_path: Path, photo: Photo, name: str, share: float) -> None:
    path = tmp_path / name
    Image.fromarray(photo()).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    reason = str(LOADER.check(path))
    assert reason.startswith(("truncated ", "unreadable "))
    assert "object at" not in reason
    with pytest.raises(DecodeError):
        LOADER.decode(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a WAV sound"),
        (b"\x00\x00\x00\x18ftypheic", "a HEIC photo"),
        (b"\x00\x00\x00\x18ftypisom", "a video or sound (MP4)"),
        (b"<!DOCTYPE html><p>404", "an HTML page"),
        (b"<svg xmlns='x'/>", "an XML or SVG text"),
        (b"\x01\x02\x03\x04\x05", "unknown content"),
    ],
)
def test_other_kinds_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    expected = f"not an image: {reason}; read are JPEG, PNG, WebP, BMP, TIFF, GIF"
    assert LOADER.check(tmp_path / "a.jpg") == expected


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    assert LOADER.check(tmp_path) == "can't be opened: Is a directory"


def test_threads_share_the_silence_and_restore_the_filters(tmp_path: Path, photo: Photo) -> None:
    image = Image.fromarray(photo()).quantize(8)
    image.save(tmp_path / "warns.png", transparency=bytes([0, 100]))
    Image.fromarray(photo()).save(tmp_path / "cut.tiff", compression="tiff_lzw")
    cut = (tmp_path / "cut.tiff").read_bytes()
    (tmp_path / "cut.tiff").write_bytes(cut[: len(cut) // 2])  # Pillow warns of its metadata
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        reasons = list(pool.map(LOADER.check, [tmp_path / "warns.png", tmp_path / "cut.tiff"] * 100))
    assert reasons == [None, "unreadable TIFF: damaged or truncated header"] * 100
    assert list(warnings.filters) == before
    assert module._inside == 0


def test_augmentation_crops_and_keeps_the_picture(photo: Photo) -> None:
    image = photo(90, 120)
    variants = [LOADER.augment(image, np.random.default_rng(seed)) for seed in range(30)]
    assert all(v.dtype == np.uint8 and v.flags.c_contiguous for v in variants)
    shares = [v.shape[0] * v.shape[1] / (90 * 120) for v in variants]
    assert 0.5 < min(shares) < 0.75
    assert max(shares) <= 1.0
    assert len({v.shape for v in variants}) > 20
    assert max(abs(v.mean() / image.mean() - 1) for v in variants) < 0.45
    np.testing.assert_array_equal(image, photo(90, 120))


def test_augmentation_of_the_smallest_image() -> None:
    image = np.full((2, 2, 3), 200, np.uint8)
    for seed in range(20):
        assert min(LOADER.augment(image, np.random.default_rng(seed)).shape[:2]) >= 1


def test_render_escapes_the_name_and_shrinks(tmp_path: Path, photo: Photo) -> None:
    path = tmp_path / 'a"><b>.png'
    Image.fromarray(photo(600, 900)).save(path)
    fragment = LOADER.render(path)
    assert fragment.startswith('<img src="data:image/jpeg;base64,')
    assert 'alt="a&quot;&gt;&lt;b&gt;.png" width="256" height="171">' in fragment
    assert len(fragment) < 40_000
