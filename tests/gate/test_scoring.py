"""Two real bundles on the rows of a real manifest: the same answers as anywhere else, and what they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tl_core.bundle import ModelBundle
from tl_core.config import RunConfig, validate
from tl_core.errors import UserError
from tl_core.gate import Asked, Decision, freeze, judge
from tl_core.gate.scoring import answers, candidate, latency, megabytes
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.store import FeatureStore
from tl_core.workspace import Workspace

from .material import manifest, rows


@dataclass(frozen=True)
class Night:
    """A finished run: its files, its data and its model."""

    workspace: Workspace
    config: RunConfig
    data: Manifest
    bundle: ModelBundle
    store: FeatureStore


@pytest.fixture(scope="module")
def nights(timeseries: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Night]:
    """A probe, and a network fine-tuned on the same data with 30 series more, whose test set is held."""
    import conftest

    folder = tmp_path_factory.mktemp("nights")
    found: dict[str, Night] = {}
    conftest.write_waves(folder / "waves", per_class=20)
    for name, strategy in (("first", "probe"), ("second", "finetune")):
        settings = {
            "data": {"path": str(folder / "waves"), "holdout": "set.json" if found else None},
            "tune": {"strategy": strategy, "epochs": 1},
            "evaluate": {"diagnostics": False, "scratch_minutes": 0, "bootstrap": 100, "explain": 0, "robustness": 0},
        }
        config, ws = validate(settings), Workspace(folder / name, folder / "store", folder / "cache")
        if found:
            freeze(found["first"].data).save(ws.root / "set.json")
        version(config, timeseries, ws)
        for step in (select, extract, tune, evaluate):
            step(config, timeseries, ws)
        data = Manifest.load(ws.manifest, ws.root)
        found[name] = Night(ws, config, data, ModelBundle.load(ws.model, timeseries), FeatureStore(ws.store))
        for kind in ("slow", "fast", "noise"):
            for i in range(10):
                wave = np.load(folder / "waves" / kind / f"{i:03}.npy")
                np.save(folder / "waves" / kind / f"new {i}.npy", wave[::-1])
    return found


def decide(nights: dict[str, Night]) -> tuple[Asked, Decision]:
    first, second = nights["first"], nights["second"]
    test_set = freeze(first.data)
    asked = Asked.of(second.data, test_set, first.data, renew_share=0.5)
    models = [
        candidate(name, name, night.workspace.model, night.bundle, second.data, asked, night.store, second.config)
        for name, night in nights.items()
    ]
    return asked, judge(asked, models[1], models[0], test_set, second.config.gate, resamples=100)


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_bundle_says_what_its_own_run_said(nights: dict[str, Night], name: str) -> None:
    night = nights[name]
    test = night.data.rows("test")
    said = answers(night.bundle, night.data, test, night.store)
    table = pq.read_table(night.workspace.step("evaluate") / "predictions.parquet")
    stored = np.stack([table[f"p_{label}"].to_numpy() for label in night.data.targets.classes], axis=1)
    np.testing.assert_allclose(said, stored, atol=1e-5)
    predicted = night.bundle.predict([sample.source for sample in night.data.samples(test)])
    np.testing.assert_allclose(said, [[p.probabilities[c] for c in p.probabilities] for p in predicted], atol=1e-5)


def test_rows_of_the_gate_come_from_both_versions_of_the_data(nights: dict[str, Night]) -> None:
    asked, decision = decide(nights)
    first, second = nights["first"].data, nights["second"].data
    old, new = set(first.digests(first.rows("test"))), set(second.digests(second.rows("test")))
    assert old < new  # held, and joined by a share of the new ones
    known = set(first.digests(np.arange(len(first))))
    digests = second.digests(asked.rows)
    assert set(digests) == old | (new - known)  # not what the champion learned from before it came to test
    assert [digest in old for digest in digests] == asked.frozen.tolist()
    assert [digest not in old for digest in digests] == asked.newest.tolist()
    assert asked.newest.any()
    assert not asked.learned.any()
    kept = decision.test_set
    assert (kept.judged, kept.newest, kept.learned) == (len(old), len(new - known), 0)
    assert decision.rule("metric").state in ("pass", "fail", "can't tell")


def test_a_test_row_that_the_champion_learned_from_is_left_out(nights: dict[str, Night]) -> None:
    first, second = nights["first"].data, nights["second"].data
    learned = set(first.digests(first.rows("train"))) | set(first.digests(first.rows("val")))
    told = Manifest(
        second.table.set_column(
            second.table.schema.get_field_index("split"),
            second.table.schema.field("split"),
            [["test"] * len(second)],
        ),
        second.modality, second.targets, second.root, (), "other", base=second.base,
    )  # fmt: skip
    asked = Asked.of(told, freeze(told), first, renew_share=0.5)
    assert [digest in learned for digest in told.digests(asked.rows)] == asked.learned.tolist()
    assert asked.learned.any()


def test_the_store_spares_the_network_where_that_was_not_tuned(
    nights: dict[str, Night], monkeypatch: pytest.MonkeyPatch
) -> None:
    night = nights["first"]

    def refuse(*_: object) -> None:
        raise AssertionError("computed though it is stored")

    monkeypatch.setattr(night.bundle.backbone, "prepare_many", refuse)
    monkeypatch.setattr(night.bundle.backbone, "prepare", refuse)
    assert len(answers(night.bundle, night.data, night.data.rows("test"), night.store)) == 12


def test_rows_that_the_store_lacks_are_computed(nights: dict[str, Night], tmp_path: Path) -> None:
    night = nights["first"]
    test = night.data.rows("test")
    stored = answers(night.bundle, night.data, test, night.store)
    anew = answers(night.bundle, night.data, test, FeatureStore(tmp_path))
    np.testing.assert_allclose(anew, stored, atol=1e-2)


def test_no_rows_give_no_answers(nights: dict[str, Night]) -> None:
    night = nights["second"]
    assert answers(night.bundle, night.data, np.zeros(0, np.int64), night.store).shape == (0, 3)


def test_other_data_are_refused(nights: dict[str, Night]) -> None:
    night = nights["first"]
    with pytest.raises(UserError, match=r"the model is for timeseries data and a multiclass task, the data are words"):
        answers(night.bundle, manifest(rows(4)), np.arange(4), night.store)


def test_the_size_counts_every_weight_once(nights: dict[str, Night]) -> None:
    for night in nights.values():
        files = sum(path.stat().st_size for path in night.workspace.model.iterdir())
        weights = sum(t.numel() * t.element_size() for t in night.bundle.backbone.state_dict().values())
        found = megabytes(night.workspace.model, night.bundle)
        if night.bundle.facts["trained_segments"]:
            assert files / 1e6 <= found + 1e-3 < (files + weights) / 1e6 + 2e-3
        else:
            assert found == pytest.approx((files + weights) / 1e6, abs=1e-3)


def test_the_latency_is_the_median_of_warm_single_samples(nights: dict[str, Night]) -> None:
    night = nights["first"]
    sources = [sample.source for sample in night.data.samples(night.data.rows("test")[:4])]
    ticks = iter(np.cumsum([0.0, 0.010, 1.0, 0.020, 1.0, 0.030, 1.0, 0.5]).tolist())
    assert latency(night.bundle, sources, repeats=1, clock=lambda: next(ticks)) == pytest.approx(25.0)
    assert latency(night.bundle, []) is None
