"""The embedded backbone: there, small, what its card and catalogue say, and more than its random twin."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tl_image
import torch
from tl_image.catalogue import catalogue

from tl_core import Backbone, BackboneSpec, UserError

STARTER = Path(tl_image.__file__).parent / "starter"
WEIGHTS = STARTER / "model.safetensors"


@pytest.fixture(name="spec")
def spec_fixture() -> BackboneSpec:
    return next(spec for spec in catalogue() if spec.name == "starter-image")


def embed(backbone: Backbone, pictures: list[np.ndarray]) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(backbone.collate([backbone.prepare(picture).windows[0] for picture in pictures]))["x"]


def test_builds_without_network(spec: BackboneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    backbone = spec.build()
    assert backbone.feature_dim == spec.feature_dim
    assert backbone.segment_names == ("stem", "layer1", "layer2", "layer3", "layer4", "pool")
    assert sum(p.numel() for p in backbone.parameters()) == spec.params
    assert backbone.identity.weights == spec.sha256


def test_the_weights_are_those_of_the_record(spec: BackboneSpec) -> None:
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    record = json.loads((Path(__file__).parents[3] / "samples/pretrain/image.json").read_text(encoding="utf-8"))
    assert digest == spec.sha256 == record["sha256"]
    assert record["curve"][-1]["hits"] > 5 / record["settings"]["classes"]
    assert WEIGHTS.stat().st_size <= 5_000_000


def test_other_weights_are_refused(spec: BackboneSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_image.backbones.weights_digest", lambda files: "0" * 64)
    with pytest.raises(UserError, match=r"the weights of starter-image are not those expected.*; reinstall"):
        spec.build()


def test_is_no_default(spec: BackboneSpec) -> None:
    assert not spec.presets
    assert spec.source == "package"
    assert spec.licence == "Apache-2.0"


def test_features_are_not_the_random_twins(spec: BackboneSpec, photo: Callable[..., np.ndarray]) -> None:
    pictures = [photo(seed=seed) for seed in range(8)]
    features, random = embed(spec.build(), pictures), embed(spec.build(random_seed=0), pictures)
    assert features.shape == random.shape == (8, 384)
    assert features.isfinite().all()
    # drawn networks map all pictures to nearly the same direction; a trained one tells them apart
    assert _likeness(features) < _likeness(random)


def _likeness(features: torch.Tensor) -> float:
    return float(torch.corrcoef(features).mean())


def test_the_card_names_the_facts(spec: BackboneSpec) -> None:
    card = (STARTER / "README.md").read_text(encoding="utf-8")
    for fact in (f"{spec.params:,}", f"{spec.feature_dim}", "96x96", str(spec.licence), "not for production"):
        assert fact in card
    assert card.index("<!-- scores -->") < card.index("<!-- /scores -->")
    cfg = json.loads((STARTER / "config.json").read_text(encoding="utf-8"))["pretrained_cfg"]
    assert f"mean {cfg['mean'][0]}, deviation {cfg['std'][0]}" in card
