"""The starters' benchmark: intervals and verdicts, folds and draws, trainings that are remembered, and model cards."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are scripts of the repository, no installed package

from benchmarks.starters import few_labels, measuring, tables  # noqa: E402
from benchmarks.starters.__main__ import write_cards  # noqa: E402
from benchmarks.starters.data import DataSet, cross_validated  # noqa: E402
from benchmarks.starters.few_labels import Budget, Trained, draw, trained_side  # noqa: E402
from benchmarks.starters.picture import picture  # noqa: E402
from benchmarks.starters.resampling import CONFIDENCE, Resamples, verdict  # noqa: E402
from conftest import write_waves  # noqa: E402
from tl_core.config import validate  # noqa: E402
from tl_core.errors import UserError  # noqa: E402
from tl_core.evaluation import Interval  # noqa: E402
from tl_core.manifest import Manifest, scan  # noqa: E402
from tl_core.registry import Registry  # noqa: E402
from tl_core.store import FeatureStore  # noqa: E402
from tl_core.types import Backbone  # noqa: E402
from tl_core.weights import read_json  # noqa: E402
from tl_core.workspace import write_json  # noqa: E402

sys.path.remove(str(ROOT))
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def rows(share: float, n: int, seed: int = 0) -> np.ndarray:
    """One run [1, N] with this share of right rows, in random places."""
    right: np.ndarray = np.random.default_rng(seed).permutation(n)[None] < share * n
    return right


def half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


# --- intervals


def test_one_run_has_the_interval_of_a_share() -> None:
    found = Resamples(400, None).interval(rows(0.7, 400))
    assert found.value == 0.7
    assert half(found) == pytest.approx(Z * np.sqrt(0.7 * 0.3 / 400), rel=0.1)


def test_runs_add_their_own_spread_without_bias() -> None:
    shares = np.random.default_rng(3).normal(0.5, 0.05, 16)
    runs = np.concatenate([rows(share, 4000, seed) for seed, share in enumerate(shares)])
    found = Resamples(4000, None, resamples=1000).interval(runs)
    assert half(found) == pytest.approx(Z * np.std(shares, ddof=1) / 4, rel=0.12)  # the rows' own part is tiny


def test_groups_are_resampled_whole_and_few_groups_never_narrow_the_interval() -> None:
    alike = np.repeat(rows(0.5, 20), 20, axis=1)  # 20 groups, each all right or all wrong
    groups = [str(i // 20) for i in range(400)]
    by_group, by_row = Resamples(400, groups), Resamples(400, None)
    assert (by_group.unit, by_row.unit) == ("20 groups", "400 rows")
    assert half(by_group.interval(alike)) > 3 * half(by_row.interval(alike))
    agreed = np.tile(np.arange(100) < 50, 4)[None]  # four groups with the same share: they alone would say +-0
    few = Resamples(400, [str(i // 100) for i in range(400)])
    assert few.unit == "4 groups and 400 rows"
    assert half(few.interval(agreed)) == pytest.approx(half(by_row.interval(agreed)), rel=0.05)


def test_a_run_without_errors_still_has_an_interval() -> None:
    found = Resamples(50, None).interval(np.ones((3, 50), bool))
    assert found.method == "wilson"
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.9 < found.low < 1.0


@pytest.mark.parametrize(
    ("ours", "theirs", "difference", "expected"),
    [
        ((0.8, 0.75, 0.85), (0.6, 0.55, 0.65), (0.2, 0.1, 0.3), "wins"),
        ((0.8, 0.65, 0.85), (0.7, 0.6, 0.75), (0.1, 0.02, 0.2), "leads"),
        ((0.8, 0.7, 0.9), (0.75, 0.65, 0.85), (0.05, -0.02, 0.1), "can't tell"),
        ((0.8, 0.7, 0.9), (0.8, 0.7, 0.9), (0.0, 0.0, 0.1), "can't tell"),
        ((0.5, 0.45, 0.55), (0.7, 0.65, 0.75), (-0.2, -0.25, -0.1), "loses"),
    ],
)
def test_verdicts(ours: Any, theirs: Any, difference: Any, expected: str) -> None:
    assert verdict(Interval(*ours), Interval(*theirs), Interval(*difference)) == expected


def test_the_difference_is_paired_by_rows_and_runs() -> None:
    resamples = Resamples(300, None)
    theirs = rows(0.6, 300)
    ours = theirs.copy()
    ours[0, np.flatnonzero(~theirs[0])[:12]] = True  # the same rows and a few more
    better = resamples.compare(ours, theirs)
    assert better.verdict == "leads"
    assert better.difference.value == pytest.approx(0.04)
    assert resamples.compare(theirs, ours).verdict == "loses"

    spread = np.concatenate([rows(share, 300, seed) for seed, share in enumerate((0.2, 0.4, 0.6, 0.8))])
    shifted = spread.copy()
    shifted[:, :10] = True
    gain = resamples.compare(shifted, spread).difference
    assert half(gain) < 0.02  # run i against run i: what the runs differ by among themselves is no doubt

    same = resamples.compare(theirs, theirs)
    assert same.verdict == "can't tell"
    assert same.difference.low < 0 < same.difference.high  # a difference that never changes is no certainty


# --- data


@pytest.fixture
def grouped(tmp_path: Path, timeseries: Registry) -> Manifest:
    """Three classes of 40 series by eight recorders, train rows only."""
    folder = write_waves(tmp_path / "data", per_class=40)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.npy"))
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "recorder"])
        writer.writerows([file, file.split("/")[0], f"r{i % 8}"] for i, file in enumerate(files))
    config = validate({"data": {"group": "recorder"}})
    return scan(folder, config, timeseries.loaders(), base=tmp_path, progress=False)


def test_every_row_is_tested_once_and_no_group_crosses_a_split(grouped: Manifest) -> None:
    everyone = np.arange(len(grouped))
    groups = grouped.groups(everyone)
    assert groups is not None
    fold = [str(int(name[1:]) % 4) for name in groups]
    folds = cross_validated(grouped, fold, validate({"data": {"group": "recorder"}}))
    assert len(folds) == 4
    assert sorted(np.concatenate([m.rows("test") for m in folds]).tolist()) == everyone.tolist()
    for manifest in folds:
        members = [set(manifest.groups(manifest.rows(split)) or ()) for split in ("train", "val", "test")]
        assert all(members)
        assert len(set.union(*members)) == sum(map(len, members))
        assert len({fold[row] for row in manifest.rows("test")}) == 1
    assert len(DataSet("waves", folds).test_groups or ()) == len(grouped)


def test_a_draw_has_ten_of_each_class_and_every_test_row(grouped: Manifest) -> None:
    first, again, other = draw(grouped, 0), draw(grouped, 0), draw(grouped, 1)
    counts = first.counts()
    assert set(counts["train"].values()) == {10}
    assert max(counts["val"].values()) <= 10
    assert counts["test"] == grouped.counts()["test"]
    assert first.data_version == again.data_version != other.data_version
    assert np.array_equal(first.target_array(first.rows("test")), other.target_array(other.rows("test")))


# --- trainings


def test_each_side_takes_its_best_rate_and_remembers_finished_trainings(
    grouped: Manifest, timeseries: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = timeseries.backbone("gaussian-derivatives", "timeseries")
    budget = Budget(epochs=2, rates=(1e-6, 1e-2), draws=2, tuning_draws=1, batch_size=16)
    draws = [draw(grouped, seed) for seed in range(2)]
    seen: list[tuple[str, float]] = []
    train = few_labels._train

    def watched(manifest: Manifest, backbone: Backbone, spec: Any, config: Any, *rest: Any) -> Trained:
        seen.append((backbone.fingerprint, config.tune.lr))
        found = train(manifest, backbone, spec, config, *rest)
        return replace(found, val=1.0 if config.tune.lr == 1e-6 else 0.5)

    monkeypatch.setattr(few_labels, "_train", watched)
    scratch = trained_side(draws, spec, budget, True, timeseries, tmp_path)
    assert [lr for _, lr in seen] == [1e-6, 1e-2, 1e-6]  # both on the first draw, the better one on the second
    assert len({fingerprint for fingerprint, _ in seen}) == 2  # each draw starts from random weights of its own
    assert [training.rate for training in scratch] == [1e-6, 1e-6]
    assert [training.steps for training in scratch] == [4, 4]
    assert len(scratch[0].right) == len(grouped.rows("test"))
    tuned = trained_side(draws, spec, budget, False, timeseries, tmp_path)
    assert tuned != scratch
    assert seen[3][0] == spec.build().fingerprint

    monkeypatch.setattr(few_labels, "_train", None)
    assert trained_side(draws, spec, budget, True, timeseries, tmp_path) == scratch


# --- results


def test_a_whole_measurement_of_few_labels(grouped: Manifest, timeseries: Registry, tmp_path: Path) -> None:
    spec = timeseries.backbone("gaussian-derivatives", "timeseries")
    budget = Budget(epochs=1, rates=(1e-3,), draws=2, tuning_draws=1)
    store = FeatureStore(tmp_path / "store")
    few = measuring.few_labels(DataSet("waves", (grouped,)), spec, budget, timeseries, store, tmp_path)
    assert [method["name"] for method in few["methods"]] == ["probe", "finetune", "scratch"]
    assert (few["train_rows"], few["batch_norms"]) == (30, False)
    text = "\n".join(tables.few_labels_table(few))
    assert "| the same network from scratch |" in text
    assert "batch-norm" not in text


def probe_row(name: str, verdict: str, **real: list[float]) -> dict[str, Any]:
    return {
        "data": name, "classes": 3, "folds": 1, "test_rows": 100, "unit": "100 rows", "verdict": verdict,
        "ours": [0.81234, 0.75, 0.875], "theirs": [0.6, 0.5, 0.7], "difference": [0.21234, 0.1, 0.3], "real": real,
    }  # fmt: skip


def part(*probe: dict[str, Any]) -> dict[str, Any]:
    return {
        "backbone": "starter-x", "weights": "ab" * 32, "fingerprint": "cd" * 32, "seeds": 5, "probe": list(probe),
        "few_labels": None, "absent": [], "command": "python -m benchmarks.starters",
        "machine": {"date": "2026-01-02", "torch": "9.9"},
    }  # fmt: skip


def test_the_tables_say_where_the_starter_does_not_win() -> None:
    measured = part(
        probe_row("one", "wins", big=[0.9, 0.85, 0.95]),
        probe_row("two", "can't tell"),
        probe_row("three", "loses"),
        probe_row("four", "wins"),
    )
    assert tables.summary(measured) == (
        "Probe against its own random initialisation, 4 sets: wins on 2 (one, four); can't tell on 1 (two); loses on 1 "
        "(three)."
    )
    lines = tables.probe_table(measured)
    assert "| **0.812 (0.750 to 0.875)** | +0.212 (+0.100 to +0.300) | wins | 0.900 (0.850 to 0.950) |" in lines[2]
    assert len({line.count("|") for line in lines}) == 1
    drawn = ElementTree.fromstring(picture(measured))
    assert len(drawn.findall("{*}circle")) == 3 + 9  # the legend; two marks a set, and one of real weights
    page = tables.page({"image": measured})
    assert "## Images: starter-x" in page
    assert "date 2026-01-02" in page


def test_a_card_gets_its_tables_between_the_markers_and_nothing_else_changes(tmp_path: Path) -> None:
    results, card = tmp_path / "starters.json", tmp_path / "README.md"
    write_json(results, {"image": part(probe_row("one", "wins"))})
    card.write_text("# Starter\n\n<!-- scores -->\nbygone\n<!-- /scores -->\n\nThe end.\n", encoding="utf-8")
    write_cards(results, {"image": card})
    written = card.read_text(encoding="utf-8")
    assert written.startswith("# Starter\n\n<!-- scores -->\n**Probe against")
    assert written.endswith("benchmarks/results/starters.md.\n<!-- /scores -->\n\nThe end.\n")
    assert "bygone" not in written
    write_cards(results, {"image": card})
    assert card.read_text(encoding="utf-8") == written


def test_cards_that_cannot_be_written_are_all_named_and_none_is_touched(tmp_path: Path) -> None:
    results, card, other = tmp_path / "starters.json", tmp_path / "a.md", tmp_path / "b.md"
    write_json(results, {"image": part(probe_row("one", "wins"))})
    card.write_text("<!-- scores -->\n<!-- /scores -->\n", encoding="utf-8")
    with pytest.raises(UserError) as wrong:
        write_cards(results, {"image": card, "audio": other})
    assert str(wrong.value) == f"no results for audio in {results}; measure them first; no model card {other}"
    write_json(results, read_json(results) | {"audio": part()})
    other.write_text("no markers", encoding="utf-8")
    write_json(tmp_path / "config.json", {"provenance": {"safetensors_sha256": "ef" * 32}})
    with pytest.raises(UserError, match=r"the results for image are of other weights than .* holds; measure it again"):
        write_cards(results, {"image": card})
    write_json(tmp_path / "config.json", {"provenance": {"safetensors_sha256": "ab" * 32}})
    with pytest.raises(UserError, match=r"b\.md has no <!-- scores --> and <!-- /scores -->: put both"):
        write_cards(results, {"image": card, "audio": other})
    assert card.read_text(encoding="utf-8") == "<!-- scores -->\n<!-- /scores -->\n"
