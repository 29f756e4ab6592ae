"""What an explained picture shows, and where a network's places lie on it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tl_image import overlay
from tl_image.loader import ImageLoader
from tl_image.preprocessing import Preprocessing
from tl_image.resolve import resolve

from tl_core import Heat, Saliency

PLAIN = Preprocessing((64, 64), "short", (64, 64), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("resize", ["short", "cover", "fit", "exact"])
@pytest.mark.parametrize(("height", "width"), [(90, 120), (120, 90), (40, 40), (60, 600)])
def test_seen_is_where_the_input_lies(resize: str, height: int, width: int) -> None:
    """A dot on the picture is found in the input where `seen` says."""
    ours = replace(PLAIN, resize=resize, scale=(72, 72))
    top, left, bottom, right = ours.seen(height, width)
    dot = np.zeros((height, width, 3), np.uint8)
    y, x = int(height * 0.55), int(width * 0.48)
    dot[y - 6 : y + 7, x - 6 : x + 7] = 255
    found = ours.apply(dot)[0].float()
    if resize == "fit":
        found = (found - 130).clamp(min=0)  # the margin has the mean colour
    rows, columns = found.sum(dim=1), found.sum(dim=0)
    middle = [float((line * (torch.arange(64) + 0.5)).sum() / line.sum()) / 64 for line in (rows, columns)]
    assert top + middle[0] * (bottom - top) == pytest.approx((y + 0.5) / height, abs=0.02)
    assert left + middle[1] * (right - left) == pytest.approx((x + 0.5) / width, abs=0.02)


def test_tokens_and_maps_lie_as_the_picture_does(timm_folder: Callable[..., Path]) -> None:
    (spec,) = resolve(str(timm_folder("test_vit", "vit", model_args={"img_size": 64})))
    built: Any = spec.build()
    assert built.layout.prefix == 1
    rows, columns = (side // 16 for side in built.preprocessing.size)
    tokens = torch.arange(1 + rows * columns).float().reshape(1, -1, 1)
    places = built.spatial({"x": tokens})
    assert places is not None
    assert places[0, 0].tolist() == (1 + torch.arange(rows * columns).reshape(rows, columns)).tolist()
    assert built.spatial({"x": torch.zeros(1, 5)}) is None
    built.layout = replace(built.layout, channels_last=True)
    assert built.spatial({"x": torch.zeros(1, 4, 5, 6)}).shape == (1, 6, 4, 5)


def saliency(values: np.ndarray, place: tuple[float, ...] = (0, 0, 1, 1), label: str = "cat") -> Saliency:
    return Saliency(label, 0.75, (Heat(values.astype(np.float32), place),), "a test")


def corner() -> np.ndarray:
    values = np.full((8, 8), -0.5)
    values[:2, 6:] = 1.0
    return values


def images(fragment: str) -> list[np.ndarray]:
    data = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', fragment)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(d)))).astype(int) for d in data]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "<b>cat & dog.png"
    Image.fromarray(np.full((100, 150, 3), 128, np.uint8)).save(path)
    return path


def test_the_picture_beside_its_heat(picture: Path) -> None:
    found = ImageLoader().overlay(picture, [saliency(corner()), saliency(-corner(), label="<dog>")])
    plain, heat, other = images(found.html)
    assert plain.shape == heat.shape == (149, 224, 3)
    redness = heat[..., 0] - heat[..., 2]
    assert redness[:20, -20:].mean() > 100
    assert abs(redness[-50:, :50]).mean() < 5
    assert (other[..., 0] - other[..., 2])[:15, -15:].mean() < 10
    assert found.texts[0].startswith("mostly upper right (half of it on ")
    assert found.texts[1].startswith("all over the picture")
    assert "<b>cat" not in found.html
    assert "<dog>" not in found.html
    assert "what spoke for cat, 0.75 lies mostly upper right" in found.html
    assert found == ImageLoader().overlay(picture, [saliency(corner()), saliency(-corner(), label="<dog>")])


def test_what_does_not_go_in_is_dark_and_a_margin_is_cut_off(picture: Path) -> None:
    half = np.ones((4, 4))
    inside = images(ImageLoader().overlay(picture, [saliency(half, (0.25, 0.25, 0.75, 0.75))]).html)[1]
    assert inside[75, 112, 0] > inside[75, 112, 2] + 50
    assert inside[:20].mean() < 0.8 * 128
    wide = images(ImageLoader().overlay(picture, [saliency(corner(), (-0.5, 0, 1.5, 1))]).html)[1]
    assert wide.shape == inside.shape


@pytest.mark.parametrize(
    ("rows", "columns", "text"),
    [(slice(0, 2), slice(0, 2), "mostly upper left"), (slice(3, 5), slice(3, 5), "mostly in the middle"),
     (slice(6, 8), slice(3, 5), "mostly lower"), (slice(3, 5), slice(6, 8), "mostly right"),
     (slice(0, 8), slice(0, 8), "all over the picture")],
)  # fmt: skip
def test_where_in_words(rows: slice, columns: slice, text: str) -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[rows, columns] = 1
    assert overlay.where(heat).startswith(text)
    assert overlay.where(-heat) == "nowhere: all of it speaks against"


@pytest.mark.parametrize("shape", [(2, 2), (2, 900), (900, 700)])
def test_any_picture_stays_small(shape: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)
    found = ImageLoader().overlay(path, [saliency(corner())])
    assert len(found.html) < 60_000
    assert len(images(found.html)) == 2
