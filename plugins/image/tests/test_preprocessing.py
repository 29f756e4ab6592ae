from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tl_image.preprocessing import Preprocessing, from_data_config, from_image_processor

from tl_core import UserError

Photo = Callable[..., np.ndarray]
SHAPES = ((100, 60), (60, 100), (300, 450), (64, 64), (20, 31))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize("size", [(3, 64, 64), (3, 48, 64)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_equals_timms_reference(
    photo: Photo, crop_mode: str, interpolation: str, size: tuple[int, ...], crop_pct: float
) -> None:
    from timm.data import create_transform, resolve_data_config

    cfg = {
        "input_size": size,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "interpolation": interpolation,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    reference = create_transform(**resolve_data_config({}, pretrained_cfg=cfg), is_training=False)
    mine = from_data_config(cfg, "a test")
    for height, width in SHAPES:
        image = photo(height, width, seed=height)
        x = mine.apply(image)
        assert x.is_contiguous()
        torch.testing.assert_close(x, reference(Image.fromarray(image)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("processor", "values"),
    [
        ("BitImageProcessor", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}, "resample": 3}),
        ("ViTImageProcessor", {"size": {"height": 64, "width": 48}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
        ("BitImageProcessor", {"size": {"shortest_edge": 71}, "crop_size": {"height": 64, "width": 64}, "resample": 2}),
        ("BitImageProcessor", {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}, "resample": 3}),
        ("BitImageProcessor", {"size": {"shortest_edge": 50}, "crop_size": {"height": 64, "width": 65}, "resample": 3}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 64}, "crop_pct": 0.875}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}),
        ("MobileNetV1ImageProcessor", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}),
        (
            "ViTImageProcessor",
            {"size": {"height": 64, "width": 64}, "rescale_factor": 1 / 127.5, "do_normalize": False},
        ),
    ],
)
def test_close_to_transformers_processor(photo: Photo, processor: str, values: dict[str, Any]) -> None:
    import transformers

    reference = getattr(transformers, processor)(**values)
    mine = from_image_processor(reference.to_dict(), "a test")
    for height, width in (*SHAPES, (77, 90), (101, 60)):  # odd margins: half pixels must fall the same way
        # fine texture: a crop one pixel to the side must not pass for a rounding difference
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = torch.as_tensor(np.asarray(reference(image, return_tensors="pt")["pixel_values"]))[0]
        x = mine.apply(image)
        assert x.shape == expected.shape
        levels = (x - expected).abs() * torch.tensor(mine.std)[:, None, None] * 255
        assert levels.max() <= 2.01  # torchvision resamples bytes with coarser weights than Pillow
        assert levels.mean() < 0.5  # of noise; a crop one pixel off would be tens of levels


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_large"])
def test_equals_torchvisions_own_transform(name: str) -> None:
    import torchvision
    from tl_image.torchvision_networks import by_name

    for weights in torchvision.models.get_model_weights(name):
        mine = by_name(name, weights.url.rpartition("/")[2]).preprocessing
        for height, width in ((241, 300), (301, 250)):
            image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
            torch.testing.assert_close(mine.apply(image), weights.transforms()(Image.fromarray(image)))


def test_facts_are_all_numbers_as_json() -> None:
    facts = from_data_config({"input_size": (3, 64, 64), "crop_pct": 0.5}, "a test").facts
    assert facts == {
        "size": [64, 64],
        "resize": "short",
        "scale": [128, 128],
        "interpolation": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "offset": "round",
    }


def test_long_strips_stay_small(photo: Photo) -> None:
    strip = np.zeros((2, 60_000, 3), np.uint8)
    strip[:, 29_990:30_010] = 255
    x = from_data_config({"input_size": (3, 64, 64), "mean": (0.0,), "std": (1.0,)}, "a test").apply(strip)
    assert x.shape == (3, 64, 64)
    assert x.min() > 0.99


@pytest.mark.parametrize(
    ("cfg", "reason"),
    [
        ({"input_size": (1, 64, 64)}, "a test takes images of 1 channels"),
        ({"interpolation": "cubist"}, "no interpolation 'cubist', which a test asks for; allowed: nearest, lanczos"),
        ({"mean": (0.1, 0.2)}, "unusable preprocessing in a test: expected a value per RGB channel, found 2"),
    ],
)
def test_unusable_data_configs(cfg: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        from_data_config(cfg, "a test")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"do_resize": False}, "expected do_resize without do_pad and rescale_offset"),
        ({"do_resize": True, "do_pad": True}, "expected do_resize without do_pad"),
        ({"do_resize": True, "size": {"shortest_edge": 64}}, "size shortest_edge needs do_center_crop"),
        ({"do_resize": True, "size": {"longest_edge": 64}}, "is neither shortest_edge nor height"),
    ],
)
def test_unusable_processors(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        from_image_processor(values, "a test")


def test_input_may_be_larger_than_the_resized_image(photo: Photo) -> None:
    steps = Preprocessing((64, 64), "exact", (32, 32), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    x = steps.apply(photo())
    assert x[:, :16].abs().max() == 0
    assert x[:, 16:48, 16:48].abs().min() >= 0
    assert x[:, 16:48, 16:48].mean() > 0.1
