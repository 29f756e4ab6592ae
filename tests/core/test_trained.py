"""The trained part of a backbone: what moves, what stays, the rates, the pull, and the end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from chains import Chain, built, maps, tokens
from torch import Tensor, nn

from tl_core.config import TuneConfig
from tl_core.heads import MulticlassHead
from tl_core.training.interpolate import interpolate, weights_of
from tl_core.training.plan import plan_of
from tl_core.training.trained import Trained
from tl_core.types import Backbone, BackboneSpec, Head, State
from tl_core.views import at_view

Make = Callable[[], Backbone]


def tune(**values: Any) -> TuneConfig:
    statistics = "update" if values.get("update", "all") in ("all", "norms") else "keep"
    usual = {"strategy": "finetune", "lr": 0.01, "head_lr": 0.1, "weight_decay": 0.1, "batch_norm": statistics}
    return TuneConfig(**{**usual, **values})


def trained(backbone: Backbone, **values: Any) -> Trained:
    return Trained(backbone, plan_of(tune(**values), backbone), tune(**values))


def head_of(backbone: Backbone) -> Head:
    head = MulticlassHead(backbone.feature_dim, 3)
    with torch.no_grad():
        head.linear.weight.copy_(torch.linspace(-1, 1, head.linear.weight.numel()).reshape(3, -1))
    return head


def batch(backbone: Backbone, rows: int = 6) -> State:
    """Windows that differ, as the example has them."""
    example = backbone.example()
    assert example is not None
    return backbone.collate([varied(example, i) for i in range(rows)])


def varied(window: State, number: int) -> State:
    x = window["x"]
    if x.dtype == torch.int64:  # tokens: other words between the first and the last
        return {**window, "x": torch.cat([x[:1], x[1:-1].roll(number), x[-1:]])}
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(number))
    return {**window, "x": (x * 0.5 + noise * 100).to(x.dtype) if x.dtype == torch.uint8 else x + noise}


def steps(part: Trained, backbone: Backbone, head: Head, count: int = 2) -> None:
    optimizer = torch.optim.AdamW(part.groups(head))
    state = batch(backbone)
    y = torch.arange(len(state["x"])) % 3
    for _ in range(count):
        part.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss = head.loss(head(backbone(state)["x"]), y)
        pull = part.penalty()
        (loss if pull is None else loss + pull).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def snapshot(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def moved(backbone: Backbone, before: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that have changed."""
    after = backbone.state_dict()
    assert list(after) == list(before)
    return {name.removeprefix("segments.") for name in before if not torch.equal(before[name], after[name])}


def tiny_resnet() -> Backbone:
    from tl_image.backbones import assemble
    from tl_image.timm_networks import by_name

    return of_image(assemble, by_name("test_resnet"))


def of_image(assemble: Any, network: Any) -> Backbone:
    import dataclasses

    from tl_core import random_weights

    small = dataclasses.replace(network.preprocessing, size=(64, 64))
    network = dataclasses.replace(network, preprocessing=small)
    backbone: Backbone = assemble(network, random_weights(network.create, 0), "0" * 64, None)
    return built(backbone)


def tiny_mobilenet() -> Backbone:
    from tl_image.backbones import assemble
    from tl_image.timm_networks import by_name

    return of_image(assemble, by_name("test_efficientnet"))


def tiny_vit() -> Backbone:
    from tl_image.backbones import assemble
    from tl_image.timm_networks import _network

    return of_image(assemble, _network("test_vit", {"img_size": 64}, {"input_size": [3, 64, 64]}, "tiny"))


def tiny_bert() -> Backbone:
    import transformers
    from tl_text.segments import Pool, chain

    from tl_core import random_weights

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    model = random_weights(lambda: transformers.BertModel(config, add_pooling_layer=False), 0)
    return built(Words([*chain(model), ("pool", Pool(["mean"], 0, []))], 16, IDENTITY))


def tiny_wav2vec2(group_norm: bool = True) -> Backbone:
    import transformers
    from tl_audio.encoders import encoder_segments

    from tl_core import random_weights

    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 4), conv_stride=(5, 8, 8), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
        feat_extract_norm="group" if group_norm else "layer", do_stable_layer_norm=not group_norm, vocab_size=8,
    )  # fmt: skip
    model = random_weights(lambda: transformers.Wav2Vec2Model(config), 0)
    return built(Sounds(encoder_segments("wav2vec2", model, config), 32, IDENTITY))


def tiny_spectrogram() -> Backbone:
    import timm
    from tl_audio.spectrogram import body_segments

    from tl_core import random_weights

    body = random_weights(lambda: timm.create_model("mobilenetv3_small_050", num_classes=0, in_chans=1), 0)
    return built(Patches(body_segments(body), 1024, IDENTITY))


IDENTITY = maps().identity


class Words(Chain):
    def example(self) -> State:
        return {"x": torch.arange(2, 9)}

    def collate(self, windows: Any) -> State:
        x = torch.stack([window["x"] for window in windows])
        return {"x": x, "mask": torch.ones_like(x)}


class Sounds(Chain):
    def example(self) -> State:
        return {"x": torch.sin(torch.arange(4000) / 5), "frames": torch.tensor(10)}


class Patches(Chain):
    size = (1, 48, 32)


FAMILIES: list[Make] = [maps, tokens, tiny_resnet, tiny_mobilenet, tiny_vit, tiny_bert, tiny_wav2vec2, tiny_spectrogram]
UPDATES = ("all", "biases", "norms", "lora", "dora", "ia3")


@pytest.mark.parametrize("make", FAMILIES)
def test_frozen_segments_keep_weights_and_statistics_while_trained_ones_move(make: Make) -> None:
    backbone = make()
    before, part = snapshot(backbone), trained(backbone, train_from=2)
    steps(part, backbone, head_of(backbone))
    part.finish()
    changed = moved(backbone, before)
    assert part.segments == backbone.segment_names[backbone.segment_names.index(part.segments[0]) :]
    assert {name.partition(".")[0] for name in changed} <= set(part.segments)
    left = {name.removeprefix("segments.") for name in before} - changed
    in_trained = {name for name in left if name.partition(".")[0] in part.segments}
    for name in in_trained:  # what no gradient reaches, or one that is zero: the key's bias shifts all scores alike
        assert name.endswith(("k_proj.bias", "key.bias", "position_ids", "token_type_ids")), name
    statistics = {name for name in before if name.endswith("running_mean")}
    for name in statistics:
        assert (name.removeprefix("segments.") in changed) == (name.split(".")[1] in part.segments), name
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("make", [maps, tokens, tiny_resnet, tiny_bert, tiny_wav2vec2])
def test_an_update_moves_what_it_says(make: Make, update: str) -> None:
    backbone = make()
    before, part = snapshot(backbone), trained(backbone, update=update, train_from="all")
    said = {name for name, _ in part.tensors()}
    asked = part.parameters
    steps(part, backbone, head_of(backbone))
    part.finish()
    changed = moved(backbone, before)
    numbers = sum(p.numel() for p in backbone.parameters())
    assert changed
    assert not any(p.requires_grad for p in backbone.parameters())
    if update == "all":
        assert asked == numbers
        assert {f"segments.{name}" for name in changed} <= said
        return
    assert asked < numbers / (1 if make in (maps, tokens) else 4) or update in ("lora", "dora")
    if update == "biases":
        assert all(name.endswith("bias") for name in changed)
    elif update == "norms":
        norms = tuple(path for path, module in backbone.segments.named_modules() if "Norm" in type(module).__name__)
        assert all(name.startswith(norms) for name in changed)
    else:
        layers = {
            path for path, module in backbone.segments.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
        }
        assert {name.rpartition(".")[0] for name in changed} <= layers
    assert any("running" in name for name in changed) == (
        update == "norms" and any("running" in name for name in before)
    )


@pytest.mark.parametrize(
    ("make", "update"),
    [
        *((make, "lora") for make in FAMILIES),
        *((make, other) for make in (tiny_vit, tiny_mobilenet) for other in ("dora", "ia3")),
    ],
)
def test_merged_weights_compute_what_the_adapters_did(make: Make, update: str) -> None:
    backbone = make()
    part = trained(backbone, update=update, lr=0.05)
    shapes = {name: tensor.shape for name, tensor in make().state_dict().items()}
    start = backbone(batch(backbone))["x"]
    steps(part, backbone, head_of(backbone))
    backbone.eval()
    with torch.no_grad():
        adapted = backbone(batch(backbone))["x"]
        part.finish()
        merged = backbone(batch(backbone))["x"]
    assert (adapted - start).abs().max() > 1e-4
    torch.testing.assert_close(merged, adapted, rtol=1e-3, atol=1e-4)
    assert {name: tensor.shape for name, tensor in backbone.state_dict().items()} == shapes
    make().load_state_dict(backbone.state_dict())


def test_statistics_of_the_pretraining_are_kept_unless_asked_for_or_random() -> None:
    for changes, updates in (({}, False), ({"batch_norm": "update"}, True), ({"strategy": "scratch"}, True)):
        backbone = maps()
        part = trained(backbone, **{"batch_norm": "keep", **changes})
        part.train()
        norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        assert {norm.training for norm in norms} == {updates}
        assert backbone.segments["deep"].training


def test_batch_norm_of_a_single_window_keeps_its_statistics() -> None:
    backbone = maps()
    part = trained(backbone)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    part.train()
    assert [norm.training for norm in norms] == [True, True]
    part.train(windows=1)
    assert [norm.training for norm in norms] == [False, False]
    assert backbone.segments["deep"].training  # dropout stays


def test_gradual_goes_down_the_chain() -> None:
    backbone = maps()
    part = trained(backbone, strategy="gradual", weight_decay=0.0)
    head = head_of(backbone)
    optimizer = torch.optim.AdamW(part.groups(head))
    seen = []
    for stage in range(3):
        part.enter_stage(stage)
        part.train()
        before = snapshot(backbone)
        head.loss(head(backbone(batch(backbone))["x"]), torch.arange(6) % 3).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        seen.append((part.first, {name.partition(".")[0] for name in moved(backbone, before)}))
    assert seen == [(3, {"deep"}), (1, {"group", "deep"}), (0, {"stem", "group", "deep"})]
    assert part.segments == ("stem", "group", "act", "deep", "pool")


def test_rates_by_segment_and_decay_by_shape() -> None:
    backbone = maps()
    head = head_of(backbone)
    groups = trained(backbone, layer_decay=0.5).groups(head)
    held = [(g["lr"], g["weight_decay"], [tuple(p.shape) for p in g["params"]]) for g in groups]
    assert held == [
        (0.0025, 0.1, [(8, 3, 3, 3)]),
        (0.0025, 0.0, [(8,)] * 3),
        (0.005, 0.1, [(8, 2, 3, 3)]),
        (0.005, 0.0, [(8,)] * 3),
        (0.01, 0.1, [(12, 8, 1, 1)]),
        (0.01, 0.0, [(12,)] * 3),
        (0.1, 0.1, [(3, 12)]),
        (0.1, 0.0, [(3,)]),
    ]
    assert [g["lr"] for g in trained(maps()).groups(head)] == [0.01, 0.01, 0.1, 0.1]


def test_a_pull_elsewhere_takes_the_place_of_weight_decay() -> None:
    backbone = maps()
    groups = trained(backbone, l2_sp=0.1).groups(head_of(backbone))
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.01, 0.0), (0.1, 0.1), (0.1, 0.0)]


@pytest.mark.parametrize("update", ["dora", "ia3"])
def test_scaling_adapters_are_not_pulled_to_zero(update: str) -> None:
    backbone = tokens()
    groups = trained(backbone, update=update).groups(head_of(backbone))
    decayed = [p for g in groups if g["lr"] == 0.01 and g["weight_decay"] > 0 for p in g["params"]]
    assert all(8 in p.shape and p.ndim == 2 and p.shape != (8, 1) for p in decayed)
    assert len(decayed) == (0 if update == "ia3" else 4)


def test_l2_sp_is_the_squared_distance_from_the_start() -> None:
    backbone = maps()
    part = trained(backbone, l2_sp=0.5, train_from=1)
    start = snapshot(backbone)
    pull = part.penalty()
    assert pull is not None
    assert pull.item() == 0
    with torch.no_grad():
        backbone.get_parameter("segments.deep.0.weight").add_(0.1)
    pull = part.penalty()
    assert pull is not None
    assert pull.item() == pytest.approx(0.5 / 2 * 0.01 * start["segments.deep.0.weight"].numel(), rel=1e-5)
    pull.backward()  # type: ignore[no-untyped-call]
    grad = backbone.get_parameter("segments.deep.0.weight").grad
    assert grad is not None
    torch.testing.assert_close(grad, torch.full_like(grad, 0.5 * 0.1))
    assert trained(maps()).penalty() is None


def test_a_strong_pull_keeps_the_weights_near() -> None:
    distances = []
    for strength in (0.0, 10.0):
        backbone = maps()
        part = trained(backbone, l2_sp=strength, weight_decay=0.0, lr=0.001)
        steps(part, backbone, head_of(backbone), count=20)
        with torch.no_grad():
            pairs = zip(maps().parameters(), backbone.parameters(), strict=True)
            distances.append(sum(float((a - b).square().sum()) for a, b in pairs))
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize("update", ["all", "lora"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_wise_mixes_start_and_tuned(update: str, share: float) -> None:
    whole, mixed = maps(), maps()
    start, head_start = snapshot(whole), copy.deepcopy(head_of(whole)).state_dict()
    heads = []
    for backbone, wise in ((whole, 1.0), (mixed, share)):
        part, head = trained(backbone, strategy="lp_ft", wise=wise, update=update), head_of(backbone)
        steps(part, backbone, head)
        part.finish()
        heads.append(head.state_dict())
    for name, tuned in whole.state_dict().items():
        if tuned.is_floating_point():
            expected = share * tuned + (1 - share) * start[name]
            torch.testing.assert_close(mixed.state_dict()[name], expected, rtol=1e-5, atol=1e-6, msg=name)
            if share in (0.0, 1.0):
                assert torch.equal(mixed.state_dict()[name], tuned if share else start[name]), name
    for name in head_start:
        expected = share * heads[0][name] + (1 - share) * head_start[name]
        torch.testing.assert_close(heads[1][name], expected, rtol=1e-5, atol=1e-6)


def test_wise_leaves_a_head_that_started_from_nothing() -> None:
    backbone = maps()
    head = head_of(backbone)
    part = trained(backbone, wise=0.5)
    steps(part, backbone, head)
    tuned = weights_of(head)
    part.finish()
    assert all(torch.equal(tuned[name], tensor) for name, tensor in head.state_dict().items())


def test_interpolation_reaches_only_what_the_start_names() -> None:
    module = nn.BatchNorm1d(2)
    start = {"running_mean": torch.ones(2)}
    interpolate(module, start, 0.25)
    assert module.running_mean is not None
    assert module.running_mean.tolist() == [0.75, 0.75]
    assert module.weight.tolist() == [1, 1]
    assert "num_batches_tracked" not in weights_of(module)


class Doubling(Chain):
    def perturb(self, state: State, rng: np.random.Generator) -> State:
        return {"x": 2 * state["x"]}


@pytest.mark.parametrize("update", ["all", "lora"])
def test_a_view_trains_as_the_backbone_that_it_is_of(update: str) -> None:
    def build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
        whole = maps()
        return built(Doubling(list(whole.segments.items()), whole.feature_dim, whole.identity))

    backbone = at_view(BackboneSpec("maps", "image", "package", "chains", build), "deep").build()
    before, part = snapshot(backbone), trained(backbone, train_from=1, update=update, lr=0.05)
    steps(part, backbone, head_of(backbone))
    part.finish()
    assert part.segments[0] == "deep"
    assert {name.partition(".")[0] for name in moved(backbone, before)} == {"deep"}
    window = batch(backbone)
    assert torch.equal(backbone.perturb(window, np.random.default_rng(0))["x"], 2 * window["x"])


@pytest.mark.parametrize("update", UPDATES)
def test_the_state_of_training_is_all_in_its_tensors(update: str) -> None:
    """A second training that is set to the first one's tensors goes on as the first."""
    first, second = maps(), maps()
    parts = [trained(backbone, update=update, train_from=2) for backbone in (first, second)]
    steps(parts[0], first, head_of(first))
    with torch.no_grad():
        for (name, into), (other, tensor) in zip(parts[1].tensors(), parts[0].tensors(), strict=True):
            assert name == other
            into.copy_(tensor)
    for part in parts:
        part.finish()
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
