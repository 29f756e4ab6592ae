"""Corruptions of pictures do what their names say, to large pictures as much as to small ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from tl_image.corruptions import CORRUPTIONS, blur, jpeg, low_resolution, noise, overexposure
from tl_image.loader import ImageLoader

Photo = Callable[..., np.ndarray]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def detail(image: np.ndarray) -> float:
    """Mean difference of neighbouring pixels."""
    return float(np.abs(np.diff(image.astype(np.float64), axis=1)).mean())


def checkered(side: int, field: int) -> np.ndarray:
    row, column = np.indices((side, side)) // field
    return np.repeat((((row + column) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("corrupt", [blur, low_resolution])
def test_detail_is_lost(corrupt: Callable[..., np.ndarray]) -> None:
    image = checkered(224, 4)
    left = [detail(corrupt(image, severity, rng())) for severity in (1, 3, 5)]
    assert detail(image) > left[0] > left[1] > left[2]


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@pytest.mark.parametrize("size", [(2, 2), (2, 500), (300, 7), (500, 641)])
def test_any_shape_is_kept(photo: Photo, name: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    for severity in range(1, 6):
        harmed = CORRUPTIONS[name](image, severity, rng())
        assert (harmed.shape, harmed.dtype, harmed.flags.writeable) == (image.shape, np.uint8, True)


@pytest.mark.parametrize("name", ["blur", "noise", "low resolution"])
def test_a_large_picture_is_harmed_as_much_as_a_small_one(photo: Photo, name: str) -> None:
    """What is left of the difference when both are seen at 112 pixels: by strengths in pixels it would be a fifth."""

    def seen(image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BOX)).astype(np.float64)

    harm = []
    for side in (224, 1120):
        image = np.array(Image.fromarray(checkered(28, 1)).resize((side, side), Image.Resampling.NEAREST))
        harm.append(np.abs(seen(CORRUPTIONS[name](image, 4, rng())) - seen(image)).mean())
    assert harm[1] == pytest.approx(harm[0], rel=0.25)


def test_noise_has_the_strength_of_imagenet_c() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    found = [(noise(grey, severity, rng()).astype(float) - 128).std() / 255 for severity in (1, 2)]
    assert found == pytest.approx([0.08, 0.12], rel=0.02)


def test_overexposure_brightens_and_keeps_the_hue() -> None:
    image = np.array([[[100, 50, 0], [0, 0, 0], [255, 255, 255]]], np.uint8)
    found = overexposure(image, 2, rng())
    assert found.tolist() == [[[151, 76, 0], [51, 51, 51], [255, 255, 255]]]


def test_jpeg_takes_its_blocks(photo: Photo) -> None:
    image = photo(64, 64)
    assert 1 < np.abs(jpeg(image, 5, rng()).astype(float) - image).mean() < 40


def test_plain_features_of_a_picture(photo: Photo) -> None:
    loader = ImageLoader()
    found = loader.plain(photo(64, 64))
    assert (found.shape, found.dtype) == ((1408,), np.float32)
    assert loader.plain(photo(37, 501)).shape == (1408,)
    red = np.zeros((50, 50, 3), np.uint8)
    red[..., 0] = 255
    thumbnail, colours, edges = np.split(loader.plain(red), [768, 832])
    assert np.array_equal(thumbnail.reshape(16, 16, 3)[..., 0], np.ones((16, 16)))
    assert np.flatnonzero(colours).tolist() == [3 * 16]
    assert not edges.any()


def test_edges_tell_upright_lines_from_level_ones() -> None:
    stripes = checkered(64, 8)[:1].repeat(64, axis=0)
    upright = ImageLoader().plain(stripes)[832:].reshape(8, 8, 9)
    level = ImageLoader().plain(stripes.transpose(1, 0, 2).copy())[832:].reshape(8, 8, 9)
    assert upright.sum(axis=(0, 1)).argmax() == 0  # the gradient goes across
    assert level.sum(axis=(0, 1)).argmax() in (4, 5)


def test_the_key_names_what_decodes() -> None:
    import PIL

    assert ImageLoader().libraries() == {"pillow": PIL.__version__}
