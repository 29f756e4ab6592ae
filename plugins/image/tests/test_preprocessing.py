from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tl_image.network import Normalise
from tl_image.preprocessing import Preprocessing, from_data_config, from_image_processor

from tl_core import UserError

Photo = Callable[..., np.ndarray]
SHAPES = ((100, 60), (60, 100), (300, 450), (64, 64), (20, 31))


def network_input(steps: Preprocessing, image: np.ndarray) -> torch.Tensor:
    """What the network's first layer sees, float32 [3, H, W]."""
    x: torch.Tensor = Normalise(steps.mean, steps.std)(steps.apply(image)[None])[0]
    return x


def levels(steps: Preprocessing, image: np.ndarray, expected: torch.Tensor) -> torch.Tensor:
    """Absolute differences to a reference's input, in steps of a byte."""
    return (network_input(steps, image) - expected).abs() * torch.tensor(steps.std)[:, None, None] * 255


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
        expected = reference(Image.fromarray(image))
        assert mine.apply(image).dtype == torch.uint8
        assert mine.apply(image).is_contiguous()
        if interpolation in ("lanczos", "nearest"):
            torch.testing.assert_close(network_input(mine, image), expected, rtol=0, atol=1e-6)
        else:
            off = levels(mine, image, expected)
            assert off.max() <= 2.01
            assert off.mean() <= 0.25  # 0.05 but for images that Pillow takes vertically first


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 2),
        (3, 5),
        (2, 16),
        (16, 2),
        (1001, 333),
        (333, 1001),
        (2048, 1536),
        (255, 257),
        (64, 64),
        (31, 64),
        (73, 90),
    ],
    ids=str,
)
def test_resizes_as_pillow_does(photo: Photo, interpolation: Any, shape: tuple[int, int]) -> None:
    """Of photos, of noise and of black and white points: horizontally first, the order of all but the newest Pillow."""
    steps = Preprocessing((73, 73), "short", (73, 73), interpolation, (0.0,) * 3, (1.0,) * 3)
    rng = np.random.default_rng(shape[0])
    noise = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    points = (rng.integers(0, 2, (*shape, 3)) * 255).astype(np.uint8)
    filtered = Image.Resampling[interpolation.upper()]
    for image in (photo(*shape), noise, points):
        height, width = steps._resized_size(*shape)
        half = Image.fromarray(image).resize((width, shape[0]), filtered)
        whole = np.asarray(half.resize((width, height), filtered))
        top, left = round((height - 73) / 2), round((width - 73) / 2)
        expected = torch.from_numpy(whole[top : top + 73, left : left + 73].astype(int)).permute(2, 0, 1)
        off = (steps.apply(image).int() - expected).abs()
        assert off.max() <= 2
        assert off.double().mean() <= 0.05


def test_resizing_starts_no_threads(photo: Photo) -> None:
    """Decoder threads that each start a team of threads would fight over the cores."""
    code = (
        "import os, threading, numpy as np, torch\n"
        "from tl_image.preprocessing import Preprocessing\n"
        "steps = Preprocessing((518, 518), 'short', (518, 518), 'bicubic', (0.0,) * 3, (1.0,) * 3)\n"
        "image = np.zeros((900, 1200, 3), np.uint8)\n"
        "count = []\n"
        "def work():\n"
        "    steps.apply(image)\n"
        "    count.append(len(os.listdir('/proc/self/task')))\n"
        "threads, before = torch.get_num_threads(), len(os.listdir('/proc/self/task'))\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "print(count[0] - before, torch.get_num_threads() - threads)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["1", "0"]


def test_read_only_and_flipped_images(photo: Photo) -> None:
    steps = from_data_config({"input_size": (3, 64, 64)}, "a test")
    frozen = photo()
    frozen.setflags(write=False)
    assert torch.equal(steps.apply(frozen), steps.apply(photo()))
    assert torch.equal(steps.apply(photo()[:, ::-1]), steps.apply(np.ascontiguousarray(photo()[:, ::-1])))


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
        off = levels(mine, image, expected)
        assert off.max() <= 1.01
        assert off.mean() < 0.3  # of noise; a crop one pixel off would be tens of levels


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_large"])
def test_equals_torchvisions_own_transform(name: str) -> None:
    import torchvision
    from tl_image.torchvision_networks import by_name

    for weights in torchvision.models.get_model_weights(name):
        mine = by_name(name, weights.url.rpartition("/")[2]).preprocessing
        for height, width in ((241, 300), (301, 250)):
            image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
            off = levels(mine, image, weights.transforms()(Image.fromarray(image)))
            assert off.max() <= 1.01
            assert off.mean() <= 0.25  # of noise, where Pillow takes the vertical pass first


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
    assert x.min() > 252


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
    assert x[:, :16].max() == x[:, :, 48:].max() == 0
    assert x[:, 16:48, 16:48].float().mean() > 25


def test_what_the_loader_must_deliver() -> None:
    cfg = {"input_size": (3, 224, 224), "crop_pct": 0.875}
    assert from_data_config(cfg, "a test").need == (256, 256)
    assert from_data_config(cfg | {"input_size": (3, 112, 224)}, "a test").need == (128, 256)
    assert from_data_config(cfg | {"interpolation": "nearest"}, "a test").need is None


def test_padding_is_the_mean_colour(photo: Photo) -> None:
    steps = Preprocessing((64, 64), "fit", (64, 64), "bilinear", (0.5, 0.25, 1.0), (1.0, 1.0, 1.0))
    assert steps.apply(photo(30, 60))[:, 0, 0].tolist() == [128, 64, 255]


def test_normalisation_keeps_float32_under_autocast() -> None:
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    step = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.autocast("cpu", torch.bfloat16):
        out = step(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, x.float().div_(255).sub_(mean).div_(std))
    assert not step.state_dict()
