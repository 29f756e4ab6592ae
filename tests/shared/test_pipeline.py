"""The five steps on real data and real weights of each modality: clearly above both floors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tl_core.config import validate
from tl_core.registry import load_registry
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.workspace import Workspace

CASES = {
    "image": ("hymenoptera", "mobilenet_v1_025_224_imagenet", {}),
    "text": ("masakhanews_fra", "minilm_l6_vocab15k", {"text": "text"}),
    "audio": ("fsdd", "yamnet_audioset", {"group": "speaker"}),
}


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("modality", sorted(CASES))
def test_above_both_floors(modality: str, shared_data: Path, tmp_path: Path) -> None:
    dataset, weights, data = CASES[modality]
    config = validate(
        {
            "data": {"path": str(shared_data / "datasets" / dataset), **data},
            "select": {"backbones": [str(shared_data / "weights" / weights)], "sample": 100},
            "tune": {"minutes": 0},  # no trials: fine-tuning on all of it takes minutes
        }
    )
    registry = load_registry()
    workspace = Workspace(tmp_path / "out", tmp_path / "store", tmp_path / "cache")
    facts = version(config, registry, workspace)
    assert (facts["modality"], facts["quarantined"]) == (modality, 0)
    for step in (select, extract, tune, evaluate):
        step(config, registry, workspace)
    metrics = json.loads(workspace.metrics.read_text())
    assert metrics["accuracy_low"] > metrics["floor_majority"]
    assert metrics["accuracy"] > metrics["floor_random_init"]
    assert weights in (workspace.step("evaluate") / "report.html").read_text(encoding="utf-8")
