from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tl_image
import torch
from safetensors.torch import load_file, save_file
from tl_image import backbones

from tl_core import BackboneSpec, UserError

Folder = Callable[..., Path]


def resolve(name: object) -> list[BackboneSpec]:
    return tl_image.tl_resolve_backbone(name=str(name), modality="image")


def only(name: object) -> BackboneSpec:
    [spec] = resolve(name)
    return spec


def features(backbone: Any, seed: int = 0) -> torch.Tensor:
    image = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    with torch.inference_mode():
        out: torch.Tensor = backbone(backbone.collate([backbone.prepare(image).windows[0]]))["x"]
    return out


def change(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_folder_file_and_architecture_give_the_same_features(timm_folder: Folder) -> None:
    folder = timm_folder()
    built = only(folder).build()
    by_file = only(folder / "model.safetensors").build()
    by_architecture = only(f"test_resnet@{folder / 'model.safetensors'}").build()
    assert built.fingerprint == by_file.fingerprint
    assert torch.equal(features(built), features(by_file))
    assert built.identity.weights == by_architecture.identity.weights
    assert built.identity.architecture == by_architecture.identity.architecture == "timm/test_resnet"
    assert by_architecture.fingerprint != built.fingerprint  # prepared as for timm's own weights


def test_folder_features_are_timms(timm_folder: Folder) -> None:
    import timm
    from PIL import Image

    folder = timm_folder("test_vit", model_args={"img_size": 64})
    model = timm.create_model("test_vit", num_classes=10, img_size=64).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    data = timm.data.resolve_data_config(
        {}, pretrained_cfg=json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    )
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    x = timm.data.create_transform(**data)(Image.fromarray(image))[None]
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
    likeness = torch.cosine_similarity(features(only(folder).build()), expected)
    assert likeness > 0.9999  # resized pixels differ by a level here and there


def test_model_args_reach_the_network_and_its_twin(timm_folder: Folder) -> None:
    plain = only(timm_folder("mobilenetv3_small_050"))
    padded = only(timm_folder("mobilenetv3_small_050", name="padded", model_args={"pad_type": "same"}))
    assert padded.build().identity.architecture == 'timm/mobilenetv3_small_050 {"pad_type": "same"}'
    assert padded.build().identity.weights == plain.build().identity.weights
    assert not torch.equal(features(plain.build(1)), features(padded.build(1)))
    assert plain.build(1).fingerprint != padded.build(1).fingerprint


def test_random_build_leaves_the_global_generator_alone(timm_folder: Folder) -> None:
    spec = only(timm_folder())
    torch.manual_seed(0)
    spec.build(random_seed=4)
    spec.build()
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))


def test_facts_of_a_folder(timm_folder: Folder) -> None:
    provenance = {"licence": "MIT", "pretrained_on": "noise", "safetensors_sha256": "0" * 64}
    folder = timm_folder(provenance=provenance)
    spec = only(folder)
    assert (spec.source, spec.location, spec.licence, spec.pretrained_on) == ("folder", str(folder), "MIT", "noise")
    assert spec.input == "RGB 64x64"
    with pytest.raises(UserError, match=r"are not those expected: sha256 [0-9a-f]{16}..., expected 0000000000000000"):
        spec.build()
    assert spec.build(random_seed=0).feature_dim > 0


def test_the_backbone_states_its_need(timm_folder: Folder) -> None:
    built = only(timm_folder()).build()
    assert built.need == (71, 71)
    assert features(built).dtype == torch.float32
    assert built.prepare(np.zeros((70, 90, 3), np.uint8)).windows[0]["x"].dtype == torch.uint8


def test_batches_shrink_with_the_input(timm_folder: Folder) -> None:
    assert only(timm_folder()).build().batch_size(0) == 8
    large = timm_folder(name="large", pretrained_cfg={"input_size": [3, 288, 288]})
    assert only(large).build().batch_size(0) == 4


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet18.a1_in1k", "timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"]
)
def test_timm_names(name: str) -> None:
    spec = only(name)
    assert (spec.name, spec.source, spec.location) == (name, "hub", "timm/resnet18.a1_in1k")
    assert (spec.licence, spec.input, spec.options) == (
        "apache-2.0",
        "RGB 224x224",
        {"architecture": "timm/resnet18.a1_in1k"},
    )


def test_twins_of_a_name_need_no_network() -> None:
    assert only("test_vit.r160_in1k").build(random_seed=0).identity.architecture == "timm/test_vit"
    with pytest.raises(
        UserError, match=r"can't download timm/test_vit.r160_in1k .* without network give a local folder"
    ):
        only("test_vit.r160_in1k").build()


def test_hub_download_takes_the_folders_way(timm_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = timm_folder(), []

    def fetch(repo: str, revision: str | None, *, allow: tuple[str, ...]) -> tuple[Path, str]:
        asked.append(repo)
        return folder, "abc123"

    monkeypatch.setattr(backbones, "hub_folder", fetch)
    backbone = only("hf-hub:someone/their-model").build()
    assert asked == ["someone/their-model"]
    assert backbone.identity.revision == "abc123"
    assert backbone.fingerprint == only(folder).build().fingerprint
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="holds no image backbone"):
        only("someone/their-model").build()


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert"},
        {"model_type": "wav2vec2"},
        {"model_type": "audio-spectrogram-transformer"},
        {"modality": "audio"},
        {"model_args": {"in_chans": 1}, "frontend": {"sample_rate": 16000}},
    ],
)
def test_other_modalities_folders_are_not_ours(timm_folder: Folder, config: dict[str, Any]) -> None:
    folder = timm_folder()
    if "model_type" in config:
        (folder / "config.json").write_text(json.dumps(config))
    else:
        change(folder, **config)
    assert resolve(folder) == []
    with pytest.raises(UserError, match=r"no config.json beside it that names an image architecture; .* ARCH@FILE"):
        resolve(folder / "model.safetensors")


def test_names_that_mean_nothing_here(tmp_path: Path) -> None:
    names = [
        "resnet1",
        "no-such-name",
        "./missing",
        "/missing/folder",
        "a/b/c",
        "../x",
        "nothing@file.pth",
        str(tmp_path),
    ]
    assert [resolve(name) for name in names] == [[]] * len(names)
    assert tl_image.tl_resolve_backbone(name="resnet18", modality="text") == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"architecture": "test_resnett"},
            "names architecture 'test_resnett', unknown to timm; did you mean test_resnet",
        ),
        ({"framework": "torchvision", "architecture": "x"}, "'x', unknown to torchvision's classifiers"),
        ({"model_args": {"in_chans": 1}}, "takes images of 1 channels; only RGB"),
        ({"pretrained_cfg": {"input_size": [1, 64, 64]}}, "takes images of 1 channels; only RGB"),
        ({"pretrained_cfg": {"interpolation": "x"}}, "no interpolation 'x'"),
    ],
)
def test_unusable_folders(timm_folder: Folder, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        resolve(change(timm_folder(), **changes))


def test_unreadable_config(timm_folder: Folder) -> None:
    folder = timm_folder()
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"unreadable .*config.json"):
        resolve(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_args": {"no_such": 1}}, "timm can't make test_resnet with the model_args of .*no_such"),
        ({"architecture": "test_vit"}, "of another architecture: missing cls_token"),
        ({"architecture": "test_efficientnet"}, "of another architecture: missing"),
    ],
)
def test_unbuildable_folders(timm_folder: Folder, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        only(change(timm_folder(), **changes)).build()


def test_no_other_weights_through_model_args(timm_folder: Folder, tmp_path: Path) -> None:
    args = {"checkpoint_path": str(tmp_path / "evil.pth"), "pretrained": True, "num_classes": 3}
    assert only(change(timm_folder(), model_args=args)).build().identity.architecture == "timm/test_resnet"


def test_input_that_the_network_can_not_take(timm_folder: Folder) -> None:
    folder = timm_folder("test_vit", model_args={"img_size": 64})
    change(folder, model_args={}, pretrained_cfg={"input_size": [3, 64, 64]})
    with pytest.raises(UserError, match=r"timm/test_vit can't embed a 64x64 RGB image|of another architecture"):
        only(folder).build()


def test_damaged_and_missing_weights(timm_folder: Folder) -> None:
    folder = timm_folder()
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="unreadable weights"):
        only(folder).build()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights in"):
        only(folder).build()
    with pytest.raises(UserError, match=r"no such weights file: .*gone.pth"):
        resolve(f"resnet18@{folder / 'gone.pth'}")


def test_unknown_tag_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"timm's resnet18 has no weights 'nonsense'; there are: .*a1_in1k"):
        resolve("resnet18.nonsense")


def test_architecture_without_hub_weights() -> None:
    with pytest.raises(
        UserError, match="timm has no weights for legacy_xception on the hub; give a file: legacy_xception@FILE"
    ):
        resolve("legacy_xception")


def test_torchvision_by_architecture_and_file(tmp_path: Path) -> None:
    import torchvision

    model = torchvision.models.squeezenet1_1(num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "squeezenet.pth")
    for name in ("squeezenet1_1", "torchvision/squeezenet1_1"):
        backbone = only(f"{name}@{tmp_path / 'squeezenet.pth'}").build()
        assert backbone.identity.architecture == "torchvision/squeezenet1_1"
        assert backbone.identity.preprocessing["scale"] == [256, 256]
        assert backbone.feature_dim == 512
    wrong = {k: v for k, v in model.state_dict().items() if not k.startswith("features.0")}
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match=r"of another architecture: missing features.0.weight"):
        only(f"squeezenet1_1@{tmp_path / 'wrong.safetensors'}").build()


def test_torchvision_folder(tmp_path: Path) -> None:
    import torchvision

    state = torchvision.models.squeezenet1_1(num_classes=3).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    config = {
        "framework": "torchvision",
        "architecture": "squeezenet1_1",
        "input": {"size": [3, 64, 64], "crop_pct": 0.8},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = only(tmp_path).build()
    assert backbone.identity.preprocessing["scale"] == [80, 80]
    assert torch.equal(backbone.state_dict()["segments.features0.0.weight"], state["features.0.weight"])
