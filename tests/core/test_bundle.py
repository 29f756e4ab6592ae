from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tl_core.bundle import ModelBundle, backbone_facts, model_card
from tl_core.config import validate
from tl_core.errors import FormatError, UserError
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.workspace import Workspace


@pytest.fixture(scope="module", params=["probe", "finetune"])
def trained(
    request: pytest.FixtureRequest, timeseries: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    import conftest

    folder = tmp_path_factory.mktemp(request.param)
    waves = conftest.write_waves(folder / "waves")
    config = validate({"data": {"path": str(waves)}, "tune": {"strategy": request.param, "epochs": 1}})
    ws = Workspace(folder / "out", folder / "store", folder / "cache")
    version(config, timeseries, ws)
    for step in (select, extract, tune, evaluate):
        step(config, timeseries, ws)
    return ws


def test_raw_files_get_the_predictions_of_the_run(trained: Workspace, timeseries: Registry) -> None:
    bundle = ModelBundle.load(trained.model, timeseries)
    assert bundle.notes == ()
    rows = pq.read_table(trained.step("evaluate") / "predictions.parquet").to_pylist()
    waves = trained.root.parent / "waves"
    predictions = bundle.predict([waves / row["id"] for row in rows])
    assert [p.label for p in predictions] == [row["predicted"] for row in rows]
    np.testing.assert_allclose([p.probability for p in predictions], [r["probability"] for r in rows], atol=1e-5)
    assert all(sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5) for p in predictions)


def test_a_bad_file_gets_its_error_and_shifts_nobody(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    good = sorted((trained.root.parent / "waves" / "fast").iterdir())[:2]
    (tmp_path / "bad.npy").touch()
    bundle = ModelBundle.load(trained.model, timeseries)
    got = bundle.predict([good[0], tmp_path / "bad.npy", tmp_path / "none.npy", good[1]])
    alone = [bundle.predict([g])[0] for g in good]
    assert [got[0].label, got[3].label] == [a.label for a in alone]
    assert got[1].error == "empty file"
    assert got[1].label is None
    assert got[2].error is not None


def test_each_prediction_says_how_unusual_its_source_is(
    trained: Workspace, timeseries: Registry, tmp_path: Path
) -> None:
    """In the space of the bundle's own backbone: a row that was learnt from lies as close as it can."""
    bundle = ModelBundle.load(trained.model, timeseries)
    assert bundle.reference is not None
    assert bundle.facts["reference"] == bundle.reference.facts()
    assert bundle.facts["reference"]["rows"] == bundle.facts["training"]["training_rows"]
    manifest = Manifest.load(trained.manifest, trained.root)

    def unusual(split: str) -> list[float]:
        said = [p.unusual for p in bundle.predict([manifest.sample(int(r)).source for r in manifest.rows(split)])]
        assert None not in said
        return [value for value in said if value is not None]

    val = unusual("val")
    assert max(val) == pytest.approx(1.0, abs=2e-3)  # fewer than 19 rows: the largest distance is the threshold
    assert np.mean(unusual("train")) < np.mean(val)
    np.save(tmp_path / "spike.npy", np.where(np.arange(100) == 50, 1000.0, 0.0))
    (spike,) = bundle.predict([tmp_path / "spike.npy"])
    assert spike.unusual is not None
    assert spike.unusual > 1


def test_a_bundle_without_a_reference_still_predicts(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    def older(facts: dict[str, object]) -> None:
        facts["format"] = 1
        del facts["reference"]

    source = sorted((trained.root.parent / "waves" / "fast").iterdir())[0]
    copy = changed(trained, tmp_path, older)
    (copy / "reference.safetensors").unlink()
    (before,) = ModelBundle.load(copy, timeseries).predict([source])
    (now,) = ModelBundle.load(trained.model, timeseries).predict([source])
    assert before.unusual is None
    assert now.unusual is not None
    assert dataclasses.replace(now, unusual=None) == before


def test_a_reference_that_has_gone_is_told(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    copy = changed(trained, tmp_path, lambda facts: None)
    (copy / "reference.safetensors").unlink()
    with pytest.raises(UserError, match=r"unreadable .*reference\.safetensors"):
        ModelBundle.load(copy, timeseries)


def test_the_bundle_records_where_it_comes_from(trained: Workspace) -> None:
    facts = json.loads((trained.model / "bundle.json").read_text())
    assert facts["classes"] == ["fast", "noise", "slow"]
    assert len(facts["backbone"]["weights"]) == len(facts["backbone"]["fingerprint"]) == 64
    assert facts["training"]["data_version"]
    assert "gaussian-derivatives" in (trained.model / "README.md").read_text()
    assert {p.suffix for p in trained.model.iterdir()} <= {".json", ".md", ".safetensors"}


def test_other_weights_are_refused(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    copy = changed(trained, tmp_path, lambda facts: facts["backbone"].update(weights="0" * 64))
    with pytest.raises(UserError, match="give the right ones: --backbone FOLDER"):
        ModelBundle.load(copy, timeseries)


def test_changed_preprocessing_is_told(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    copy = changed(trained, tmp_path, lambda facts: facts["backbone"]["preprocessing"].update(width=64))
    assert ModelBundle.load(copy, timeseries).notes == (
        "preprocessing 'width' was 64 in training and is 128 here: results may differ",
    )


def test_a_newer_format_is_refused(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    copy = changed(trained, tmp_path, lambda facts: facts.update(format=99))
    with pytest.raises(FormatError, match="this tl reads up to 2; update tl"):
        ModelBundle.load(copy, timeseries)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"format": 0}, "no usable format;"),
        ({"format": True, "classes": "ab"}, "no usable format, classes;"),
        ({"precision": "float7"}, r"no usable precision \(it is 'float7'; one of float32, bfloat16\);"),
    ],
)
def test_facts_that_no_tl_has_written_are_refused(
    facts: dict[str, Any], named: str, trained: Workspace, timeseries: Registry, tmp_path: Path
) -> None:
    copy = changed(trained, tmp_path, lambda stored: stored.update(facts))
    with pytest.raises(FormatError, match=named):
        ModelBundle.load(copy, timeseries)


def test_a_folder_that_is_no_bundle(timeseries: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no model bundle"):
        ModelBundle.load(tmp_path, timeseries)


def test_a_damaged_head_is_told(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    copy = changed(trained, tmp_path, lambda facts: None)
    (copy / "head.safetensors").write_bytes(b"garbage")
    with pytest.raises(UserError, match="unreadable"):
        ModelBundle.load(copy, timeseries)


def test_a_head_of_other_classes_is_told(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    copy = changed(trained, tmp_path, lambda facts: facts["classes"].append("other"))
    with pytest.raises(UserError, match="does not hold the weights of a head for the classes"):
        ModelBundle.load(copy, timeseries)


def test_all_that_lacks_in_its_facts_is_told(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    def damage(facts: dict[str, object]) -> None:
        del facts["classes"]
        facts["backbone"] = None

    with pytest.raises(FormatError, match="is damaged: no usable classes, backbone; train again or fetch it again"):
        ModelBundle.load(changed(trained, tmp_path, damage), timeseries)


def changed(trained: Workspace, tmp_path: Path, change) -> Path:  # type: ignore[no-untyped-def]
    copy = tmp_path / "model"
    shutil.copytree(trained.model, copy)
    facts = json.loads((copy / "bundle.json").read_text())
    change(facts)
    (copy / "bundle.json").write_text(json.dumps(facts))
    return copy


def test_weights_that_have_gone_can_be_named(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    copy = changed(trained, tmp_path, lambda facts: facts["backbone"].update(request="./gone"))
    with pytest.raises(UserError, match="say where its weights are: --backbone FOLDER"):
        ModelBundle.load(copy, timeseries)
    assert ModelBundle.load(copy, timeseries, "gaussian-derivatives").notes == ()


def test_weights_of_other_segments_are_refused(trained: Workspace, timeseries: Registry, tmp_path: Path) -> None:
    copy = changed(trained, tmp_path, lambda facts: facts.update(trained_segments=["filters"]))
    shutil.copy(copy / "head.safetensors", copy / "backbone.safetensors")
    with pytest.raises(UserError, match="another version of the backbone's plugin"):
        ModelBundle.load(copy, timeseries)


def test_a_folder_is_recorded_as_it_was_asked_for(timeseries: Registry) -> None:
    spec = timeseries.backbone("gaussian-derivatives", "timeseries")
    folder = dataclasses.replace(spec, source="folder", location="/home/somebody/project/weights")
    assert backbone_facts(folder, "./weights", spec.build())["location"] == "./weights"
    assert backbone_facts(spec, spec.name, spec.build())["location"] == "tl_timeseries"


def test_the_card_says_how_it_was_trained() -> None:
    facts = {
        "task": "multiclass", "modality": "image", "classes": ["a", "b"], "head": "linear",
        "trained_segments": ["layer4"],
        "backbone": {"name": "resnet50", "architecture": "ResNet", "weights": "9b", "revision": None, "licence": None,
                     "pretrained_on": None},
        "training": {"strategy": "lp_ft", "asked": "auto", "why": "fine-tuning pays", "trained_parameters": 14_964_736,
                     "temperature": 1.3128, "memorised": True, "seed": 0, "update": None},
    }  # fmt: skip
    card = model_card(facts)
    for line in (
        "- Head: linear; trained segments: layer4 (14,964,736 parameters)",
        "- Strategy: lp_ft, chosen by auto: fine-tuning pays",
        "- Calibration: logits are divided by 1.31, which validation rows asked for",
        "- **Warning: it has memorised training rows**; the run's report says more",
        "- Seed: 0",
    ):
        assert f"\n{line}\n" in card
    assert "Update" not in card
    plain = model_card({**facts, "trained_segments": [], "training": {"strategy": "probe", "temperature": None}})
    assert "- Head: linear; trained segments: none (frozen)" in plain
    assert "- Strategy: probe\n" in plain
    assert "Calibration" not in plain
