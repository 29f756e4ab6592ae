"""Every family, whole, in every two spans and from every stored cut, equals its library's own pooled features."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tl_image import timm_networks, torchvision_networks
from tl_image.backbones import ImageBackbone, assemble
from tl_image.folders import folder_network
from tl_image.network import Network, Normalise
from torch import Tensor, nn

from tl_core import UserError

SIDE = 64
DATA = {"input_size": (3, SIDE, SIDE)}
VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
VIT |= {"image_size": SIDE, "patch_size": 16}
MOBILE = {"depth_multiplier": 0.25, "initializer_range": 0.3}  # the default of 0.02 fades to nothing in 27 layers


def pixels() -> Tensor:
    """uint8 [3, 3, SIDE, SIDE]: what prepare() and collate() give."""
    return torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def images(network: Network) -> Tensor:
    """The same pixels as the network's own library takes them."""
    return Normalise(network.preprocessing.mean, network.preprocessing.std)(pixels())  # type: ignore[no-any-return]


def shaken(model: nn.Module) -> nn.Module:
    """With batch-norm statistics that are not the identity and no layer scale near zero."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def assert_chain_equals(network: Network, model: nn.Module, expected: Tensor) -> ImageBackbone:
    weights = sum(p.numel() for p in model.parameters())
    backbone = assemble(network, model, "weights", None).eval()
    x = pixels()
    windows = [{"x": row} for row in x[:2]]  # the third row fills the batch up
    with torch.inference_mode():
        whole = backbone({"x": x})["x"]
        torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-5)
        for cut in range(1, len(backbone.segment_names)):
            boundary = backbone({"x": x}, stop=cut)
            assert boundary.keys() == {"x"}
            kept = boundary["x"].clone()
            assert torch.equal(backbone(boundary, start=cut)["x"], whole), backbone.segment_names[cut]
            assert torch.equal(boundary["x"], kept), f"{backbone.segment_names[cut]} changes its input in place"
            assert boundary["x"].dtype == torch.float32
            rows = backbone.boundary_rows(boundary, windows)
            assert {backbone.boundary_bucket(row) for row in rows} == {0}
            stored = backbone.collate_boundary([{"x": row["x"].half().float()} for row in rows])
            assert stored["x"].shape == (2, *boundary["x"].shape[1:])
            likeness = torch.cosine_similarity(backbone(stored, start=cut)["x"], whole[:2])
            assert likeness.min() > 0.9999, backbone.segment_names[cut]
    assert not backbone.ragged
    assert whole.shape == (3, backbone.feature_dim)
    assert whole.std(dim=0).mean() > 0
    assert sum(p.numel() for p in backbone.parameters()) <= weights
    return backbone


BLOCKS = {
    "test_resnet": ("stem", "layer1", "layer2", "layer3", "layer4", "pool"),
    "test_efficientnet": ("stem", "blocks0", "blocks1", "blocks2", "blocks3", "blocks4", "conv_head", "pool"),
    "mobilenetv3_small_050": ("stem", *(f"blocks{i}" for i in range(6)), "pool", "conv_head"),
    "mobilenetv1_100": ("stem", *(f"blocks{i}" for i in range(5)), "conv_head", "pool"),
    "test_convnext": ("stem", "stage0", "stage1", "stage2", "stage3", "pool"),
    "test_convnext3": ("stem", "stage0", "stage1", "stage2", "stage3", "pool"),
    "test_vit": ("embed", *(f"block{i}" for i in range(6)), "pool"),
    "test_vit2": ("embed", *(f"block{i}" for i in range(8)), "pool"),
    "test_vit3": ("embed", *(f"block{i}" for i in range(9)), "pool"),
    "mobilenetv4_conv_small_050": ("stem", *(f"blocks{i}" for i in range(5)), "pool", "conv_head"),
    "regnetx_002": ("stem", "s1", "s2", "s3", "s4", "pool"),
    "swin_tiny_patch4_window7_224": ("embed", *(f"layers{i}" for i in range(4)), "pool"),
    "swinv2_tiny_window8_256": ("embed", *(f"layers{i}" for i in range(4)), "pool"),
    "deit_tiny_patch16_224": ("embed", *(f"block{i}" for i in range(12)), "pool"),
    "test_byobnet": ("network",),
    "deit_tiny_distilled_patch16_224": ("network",),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_timm(name: str) -> None:
    arguments: dict[str, Any] = {"img_size": SIDE} if "vit" in name or "deit" in name or "swin" in name else {}
    if "swin" in name:
        arguments |= {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 4}
    config = {"architecture": name, "pretrained_cfg": DATA, "model_args": arguments}
    network = timm_networks.by_config(config, Path("a-folder"))
    model: Any = shaken(network.create())
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images(network)), pre_logits=True)
    backbone = assert_chain_equals(network, model, expected)
    assert backbone.segment_names == BLOCKS[name]
    assert backbone.feature_dim == model.head_hidden_size


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit3", "mobilenetv3_small_050"]
)
def test_timm_drops_the_classifier_and_nothing_else(name: str) -> None:
    import timm

    network = timm_networks.by_name(name)
    full = timm.create_model(name, num_classes=7).state_dict()
    model = network.create()
    adapted = network.adapt(model, dict(full))
    assert adapted.keys() == model.state_dict().keys()
    assert len(full) - len(adapted) == 2  # weight and bias


def test_timms_converter_reads_original_names() -> None:
    """Facebook's ConvNeXt files name their layers differently."""
    import timm

    names = {
        "stem.0": "downsample_layers.0.0",
        "stem.1": "downsample_layers.0.1",
        "head.norm": "norm",
        "head.fc": "head",
    }
    model = timm.create_model("test_convnext", num_classes=7)
    original = {}
    for key, value in model.state_dict().items():
        for mine, theirs in names.items():
            if key.startswith(mine):
                key = key.replace(mine, theirs, 1)
        key = key.replace(".downsample.", ".DOWN.").replace(".blocks.", ".").replace("conv_dw", "dwconv")
        key = key.replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
        if ".DOWN." in key:
            _, stage, _, rest = key.split(".", 3)
            key = f"downsample_layers.{stage}.{rest}"
        original[key] = value
    network = timm_networks.by_name("test_convnext")
    adapted = network.adapt(network.create(), original)
    assert adapted.keys() == network.create().state_dict().keys()


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5"]
)
def test_torchvision(name: str) -> None:
    config = {"framework": "torchvision", "architecture": name, "input": {"size": [3, SIDE, SIDE]}}
    network = torchvision_networks.by_config(config, Path("a-folder"))
    model: Any = shaken(network.create())
    whole = copy.deepcopy(model)
    with torch.inference_mode():
        if name in ("resnet18", "shufflenet_v2_x0_5"):
            whole.fc = nn.Identity()
            expected = whole(images(network))
        else:
            features = whole.features(images(network))
            features = features.relu() if name == "densenet121" else features
            expected = features.mean(dim=(2, 3))
    backbone = assert_chain_equals(network, model, expected)
    assert (len(backbone.segment_names) > 4) == (name != "shufflenet_v2_x0_5")


@pytest.fixture(scope="module")
def transformers_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(config: Any, model: str) -> Path:
        import transformers
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = tmp_path_factory.mktemp("transformers")
        torch.manual_seed(3)
        shaken(getattr(transformers, model)(config)).save_pretrained(folder)
        processor = transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
        processor.save_pretrained(folder)
        return folder

    return make


def built(folder: Path) -> tuple[Network, nn.Module]:
    from tl_core import load_strict, read_weights

    network = folder_network(folder)
    assert network is not None
    model = network.create()
    load_strict(model, network.adapt(model, read_weights(folder / "model.safetensors")), str(folder))
    return network, model.eval()


def transformers_cases() -> list[Any]:
    return [
        pytest.param("ViTConfig", VIT, "ViTForImageClassification", 5, id="vit"),
        pytest.param("ViTConfig", VIT, "ViTModel", 5, id="vit-with-pooler"),
        pytest.param("Dinov2Config", VIT, "Dinov2ForImageClassification", 5, id="dinov2"),
        pytest.param("MobileNetV1Config", MOBILE, "MobileNetV1ForImageClassification", 15, id="v1"),
        pytest.param("MobileNetV2Config", MOBILE, "MobileNetV2ForImageClassification", 19, id="v2"),
        pytest.param(
            "ResNetConfig",
            {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
            "ResNetForImageClassification",
            1,
            id="resnet",
        ),
        pytest.param(
            "ConvNextConfig",
            {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
            "ConvNextForImageClassification",
            1,
            id="convnext",
        ),
        pytest.param(
            "SwinConfig",
            {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": SIDE, "window_size": 4},
            "SwinForImageClassification",
            1,
            id="swin",
        ),
    ]


@pytest.mark.parametrize(("config", "arguments", "model", "segments"), transformers_cases())
def test_transformers(
    transformers_folder: Callable[..., Path], config: str, arguments: dict[str, Any], model: str, segments: int
) -> None:
    import transformers
    from transformers.utils import logging

    folder = transformers_folder(getattr(transformers, config)(**arguments), model)
    level = logging.get_verbosity()
    network, mine = built(folder)
    assert logging.get_verbosity() == level
    logging.set_verbosity_error()
    reference: Any = getattr(transformers, model).from_pretrained(folder).eval()
    logging.set_verbosity(level)
    base = reference.base_model
    with torch.inference_mode():
        out = base(pixel_values=images(network))
        token = "vit" in str(folder_model_type(folder))
        expected = out.last_hidden_state[:, 0] if token else out.pooler_output.flatten(1)
    assert len(assert_chain_equals(network, mine, expected).segment_names) == segments


def folder_model_type(folder: Path) -> str:
    from tl_core import read_json

    return str(read_json(folder / "config.json")["model_type"])


def test_image_tower_of_a_text_and_image_model(transformers_folder: Callable[..., Path]) -> None:
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text |= {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(vision_config=VIT, text_config=text)
    folder = transformers_folder(config, "CLIPModel")
    network, mine = built(folder)
    reference = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = reference.vision_model(pixel_values=images(network)).pooler_output
    assert_chain_equals(network, mine, expected)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 2}, {"num_hidden_layers": 4}, {"hidden_size": 32}])
def test_transformers_weights_of_another_network(
    transformers_folder: Callable[..., Path], change: dict[str, Any]
) -> None:
    import json

    import transformers

    folder = transformers_folder(transformers.ViTConfig(**VIT), "ViTForImageClassification")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=r"of another architecture: .*check the architecture in config.json"):
        built(folder)


def test_architecture_names_what_decides_the_network(transformers_folder: Callable[..., Path]) -> None:
    import transformers

    names = set()
    for change in ({}, {"num_attention_heads": 4}, {"layer_norm_eps": 1e-3}):
        folder = transformers_folder(transformers.ViTConfig(**{**VIT, **change}), "ViTForImageClassification")
        network = folder_network(folder)
        assert network is not None
        assert network.architecture.startswith('transformers/vit {"attention_probs')
        assert "transformers_version" not in network.architecture
        names.add(network.architecture)
    assert len(names) == 3
