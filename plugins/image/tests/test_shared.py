"""Real weights and real photos."""

from __future__ import annotations

from pathlib import Path

import pytest
import tl_image
import torch
from tl_image.loader import ImageLoader
from torch import Tensor

from tl_core import Backbone

pytestmark = pytest.mark.shared

FOLDERS = {
    "deeplabv3_mnv2_050_voc": 160,
    "mobilenet_v1_025_224_imagenet": 256,
    "mobilenet_v1_050_160_imagenet": 512,
    "mobilenet_v1_075_coco": 768,
    "mobilenetv1_100_imagenet": 1024,
    "mobilenetv2_100_imagenet": 1280,
    "mobilenetv2_100_inat_birds": 1280,
    "mobilenetv2_100_inat_insects": 1280,
    "squeezenet1_0_imagenet": 512,
}


def embed(backbone: Backbone, paths: list[Path]) -> Tensor:
    loader = ImageLoader()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(paths), 32):
            windows = [backbone.prepare(loader.decode(path)).windows[0] for path in paths[start : start + 32]]
            rows.append(backbone(backbone.collate(windows))["x"])
    return torch.cat(rows)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_image_folder(shared_data: Path, name: str) -> None:
    [spec] = tl_image.tl_resolve_backbone(name=str(shared_data / "weights" / name), modality="image")
    assert len(spec.sha256 or "") == 64
    assert spec.licence
    backbone = spec.build()
    photos = sorted((shared_data / "datasets/hymenoptera/test").glob("*/*.jpg"))[::50]
    rows = embed(backbone, photos)
    assert rows.shape == (len(photos), FOLDERS[name]) == (len(photos), backbone.feature_dim)
    assert torch.isfinite(rows).all()
    assert rows.std(dim=0).mean() > 0.05
    assert len(backbone.segment_names) > 5
    assert 'pad_type": "same' in backbone.identity.architecture or not name.startswith(("mobilenetv1", "mobilenetv2"))


@pytest.mark.parametrize("name", ["minilm_l6_vocab15k", "yamnet_audioset"])
def test_other_modalities(shared_data: Path, name: str) -> None:
    assert tl_image.tl_resolve_backbone(name=str(shared_data / "weights" / name), modality="image") == []


def test_same_as_transformers_and_timm_compute(shared_data: Path) -> None:
    """From the same pixels: the folders' own libraries give the same pooled features."""
    import timm
    from safetensors.torch import load_file
    from transformers import MobileNetV1ForImageClassification

    pixels = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    x = (pixels.float() / 255 - 0.5) / 0.5
    weights = shared_data / "weights"
    [spec] = tl_image.tl_resolve_backbone(name=str(weights / "mobilenet_v1_025_224_imagenet"), modality="image")
    reference = MobileNetV1ForImageClassification.from_pretrained(spec.location).float().eval()
    with torch.inference_mode():
        expected = reference.mobilenet_v1(x).pooler_output
        torch.testing.assert_close(spec.build()({"x": pixels})["x"], expected, rtol=1e-4, atol=1e-5)
    [spec] = tl_image.tl_resolve_backbone(name=str(weights / "mobilenetv2_100_imagenet"), modality="image")
    model = timm.create_model("mobilenetv2_100", pad_type="same").eval()
    model.load_state_dict({k: v.float() for k, v in load_file(Path(spec.location) / "model.safetensors").items()})
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(spec.build()({"x": pixels})["x"], expected, rtol=1e-4, atol=1e-5)


def test_photos_are_prepared_as_transformers_does(shared_data: Path) -> None:
    from transformers import AutoImageProcessor

    photos = sorted((shared_data / "datasets/hymenoptera/test").glob("*/*.jpg"))[::15]
    for name in ("mobilenet_v1_025_224_imagenet", "mobilenet_v1_050_160_imagenet", "mobilenet_v1_075_coco"):
        [spec] = tl_image.tl_resolve_backbone(name=str(shared_data / "weights" / name), modality="image")
        backbone, processor = spec.build(), AutoImageProcessor.from_pretrained(spec.location)
        for photo in photos:
            decoded = ImageLoader().decode(photo)
            x = backbone.prepare(decoded).windows[0]["x"].float()
            expected = (processor(decoded, return_tensors="pt")["pixel_values"][0] * 0.5 + 0.5) * 255
            assert (x - expected).abs().max() < 0.01


def test_pretrained_beats_random(shared_data: Path) -> None:
    [spec] = tl_image.tl_resolve_backbone(
        name=str(shared_data / "weights/mobilenet_v1_050_160_imagenet"), modality="image"
    )
    folder = shared_data / "datasets/hymenoptera"
    paths, labels = {}, {}
    for split, step in (("train", 2), ("test", 2)):
        paths[split] = sorted((folder / split).glob("*/*.jpg"))[::step]
        labels[split] = torch.tensor([path.parent.name == "bees" for path in paths[split]]).float() * 2 - 1
    accuracy = {}
    for seed in (None, 0):
        backbone = spec.build(seed)
        x, y = (embed(backbone, paths[split]).double() for split in ("train", "test"))
        mean, std = x.mean(dim=0), x.std(dim=0)
        std[std == 0] = 1  # no epsilon: this network's random twin has features of some 1e-31
        x, y = (x - mean) / std, (y - mean) / std
        # ridge regression on +-1, its strength the number of features: fixed, not chosen on these photos
        kernel = x @ x.T + x.shape[1] * torch.eye(len(x), dtype=torch.float64)
        predicted = y @ (x.T @ torch.linalg.solve(kernel, labels["train"].double()))
        accuracy[seed] = (predicted.sign() == labels["test"]).double().mean().item()
    assert accuracy[None] > 0.8
    assert accuracy[None] > accuracy[0] + 0.15
