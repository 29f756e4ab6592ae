"""Decoding for a backbone: the same pixels, or a scaled photo that is as good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tl_image
import torch
from PIL import Image
from tl_image import jpeg
from tl_image.loader import ImageLoader
from tl_image.preprocessing import Preprocessing

from tl_core import DecodeError

Photo = Callable[..., np.ndarray]
LOADER = ImageLoader()
NEED = (32, 32)


def save(path: Path, pixels: np.ndarray, mode: str = "RGB", orientation: int = 1, **options: Any) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).convert(mode).save(path, "JPEG", exif=exif, **options)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("shape", [(60, 80), (33, 47), (2, 70)], ids=str)
def test_small_pictures_keep_every_pixel(tmp_path: Path, photo: Photo, mode: str, shape: tuple[int, int]) -> None:
    path = save(tmp_path / "a.jpg", photo(*shape), mode)
    decoded = LOADER.decode_for(path, NEED)
    assert decoded.flags.writeable
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, LOADER.decode(path))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff", "a.bmp", "a.gif"])
def test_other_formats_come_whole(tmp_path: Path, photo: Photo, name: str) -> None:
    Image.fromarray(photo(640, 640)).save(tmp_path / name)
    np.testing.assert_array_equal(LOADER.decode_for(tmp_path / name, NEED), LOADER.decode(tmp_path / name))


@pytest.mark.parametrize(
    ("size", "need", "divisor"),
    [
        ((640, 800), (32, 32), 8),
        ((640, 800), (33, 33), 4),
        ((640, 800), (32, 48), 4),
        ((160, 160), (32, 32), 2),
        ((158, 160), (32, 32), 1),
        ((644, 804), (32, 32), 4),  # no multiple of 8
        ((641, 800), (32, 32), 1),  # half a pixel would be left over
        ((3000, 4000), (256, 256), 4),
        ((3024, 4032), (256, 256), 4),
        ((3000, 4000), (520, 520), 2),
        ((375, 500), (256, 256), 1),
        ((80, 60_000), (32, 32), 1),
    ],
)
def test_by_how_much_photos_are_scaled(size: tuple[int, int], need: tuple[int, int], divisor: int) -> None:
    assert jpeg.scale(size, need) == divisor


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"keep_rgb": True}, {"subsampling": 2}], ids=str)
def test_large_photos_come_scaled(tmp_path: Path, photo: Photo, mode: str, options: dict[str, Any]) -> None:
    path = save(tmp_path / "a.jpg", photo(640, 800), mode, **options)
    decoded = LOADER.decode_for(path, NEED)
    assert decoded.shape == (80, 100, 3)
    assert decoded.flags.writeable
    whole = Image.fromarray(LOADER.decode(path)).resize((100, 80), Image.Resampling.BOX)
    assert np.abs(decoded.astype(int) - np.asarray(whole)).mean() < 1
    np.testing.assert_array_equal(LOADER.decode_for(path, None), LOADER.decode(path))
    np.testing.assert_array_equal(LOADER.decode_for(path, (200, 200)), LOADER.decode(path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(30, 40), (640, 800)], ids=["whole", "scaled"])
def test_upright_whatever_the_orientation(
    tmp_path: Path, photo: Photo, orientation: int, shape: tuple[int, int]
) -> None:
    path = save(tmp_path / "a.jpg", photo(*shape), orientation=orientation)
    decoded, whole = LOADER.decode_for(path, NEED), LOADER.decode(path)
    assert (decoded.shape[0] < decoded.shape[1]) == (orientation < 5)
    size = decoded.shape[1::-1]
    resized = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BOX))
    assert np.abs(decoded.astype(int) - resized).mean() < 1


def test_the_need_is_that_of_the_upright_picture(tmp_path: Path, photo: Photo) -> None:
    """400 x 800 stored sideways: 800 high and 400 wide, so that 160 x 80 fits twice and 80 x 160 once."""
    path = save(tmp_path / "a.jpg", photo(400, 800), orientation=6)
    assert LOADER.decode_for(path, (160, 80)).shape == (400, 200, 3)
    assert LOADER.decode_for(path, (80, 160)).shape == (800, 400, 3)


def test_the_first_picture_of_several(tmp_path: Path, photo: Photo) -> None:
    pictures = [Image.fromarray(photo(640, 800, seed=seed)) for seed in (0, 1)]
    pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    scaled = LOADER.decode_for(tmp_path / "a.jpg", NEED)
    assert np.abs(scaled.astype(int) - photo(80, 100, seed=0)).mean() < 3
    np.testing.assert_array_equal(LOADER.decode_for(tmp_path / "a.jpg", (300, 300)), LOADER.decode(tmp_path / "a.jpg"))


@pytest.mark.parametrize("shape", [(60, 80), (640, 800)], ids=["whole", "scaled"])
def test_what_decode_refuses_is_refused(tmp_path: Path, photo: Photo, shape: tuple[int, int]) -> None:
    """Cut at any place, or with bytes overwritten: never a picture where decode() has none."""
    content = save(tmp_path / "a.jpg", photo(*shape), quality=60).read_bytes()
    rng = np.random.default_rng(0)
    broken = [content[:n] for n in rng.integers(4, len(content) - 2, 20)]
    for _ in range(60):
        damaged = bytearray(content)
        for at in rng.integers(2, len(content), rng.integers(1, 6)):
            damaged[at] = rng.integers(0, 256)
        broken.append(bytes(damaged))
    path, refused = tmp_path / "b.jpg", 0
    for data in broken:
        path.write_bytes(data)
        reason = LOADER.check(path)
        if reason is not None:
            refused += 1
            with pytest.raises(DecodeError):
                LOADER.decode_for(path, NEED)
    assert refused >= 20


def photo_of_photos(folder: Path, width: int, height: int, across: int, seed: int) -> Image.Image:
    """A mosaic of shared photos: the more of them, the finer the detail."""
    paths = sorted((folder / "datasets/hymenoptera/train").glob("*/*.jpg"))
    rng, canvas = np.random.default_rng(seed), Image.new("RGB", (width, height))
    cell = (-(-width // across), -(-height // across))
    for place in range(across * across):
        with Image.open(paths[rng.integers(len(paths))]) as tile:
            row, column = divmod(place, across)
            canvas.paste(tile.resize(cell, Image.Resampling.LANCZOS), (column * cell[0], row * cell[1]))
    return canvas


@pytest.mark.shared
@pytest.mark.parametrize("across", [1, 4, 12])
@pytest.mark.parametrize("size", [(4000, 3000), (1704, 1280)], ids=str)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_scaled_photos_are_exact_enough(
    shared_data: Path, tmp_path: Path, across: int, size: tuple[int, int], interpolation: Any
) -> None:
    """What jpeg.MARGIN promises, for pixels and for features."""
    steps = Preprocessing((224, 224), "short", (256, 256), interpolation, (0.5,) * 3, (0.5,) * 3)
    [spec] = tl_image.tl_resolve_backbone(name=str(shared_data / "weights/mobilenetv2_100_imagenet"), modality="image")
    photo_of_photos(shared_data, *size, across, seed=1).save(tmp_path / "a.jpg", quality=92)
    scaled = LOADER.decode_for(tmp_path / "a.jpg", steps.need)
    assert scaled.shape[1] == size[0] // (4 if size[0] == 4000 else 2)
    pixels = torch.stack([steps.apply(image) for image in (LOADER.decode(tmp_path / "a.jpg"), scaled)])
    assert (pixels[0].int() - pixels[1]).abs().double().mean() < 0.9
    with torch.inference_mode():
        features = spec.build()({"x": pixels})["x"]
    assert torch.cosine_similarity(features[:1], features[1:]) > 0.9985
