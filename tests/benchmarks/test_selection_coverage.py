"""The simulation behind the ranking's intervals, on its cheapest setting."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are scripts of the repository, no installed package

from benchmarks.selection import coverage  # noqa: E402
from benchmarks.selection.coverage import SETTINGS, Counts, render, replicate, summary  # noqa: E402

sys.path.remove(str(ROOT))
CHEAPEST = SETTINGS[0]


def test_intervals_hold_the_truth_and_equals_are_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "TRUTHS", 10)
    truths = {noise: CHEAPEST.truth(noise) for noise in (1.0, 1.5)}
    counts = Counts()
    for seed in range(30):
        replicate(CHEAPEST, truths, seed, counts)
    found = summary(counts, truths)
    assert found["inside"] >= 0.75  # 60 intervals of 90%, in pairs of the same rows
    assert found["gap_inside"] >= 0.75
    assert found["tied"] >= 0.75
    assert found["decoy_chosen"] == 0
    assert found["best_lost"] == 0
    text = render({CHEAPEST.name: found})
    assert f"| {CHEAPEST.name} | multiclass | 100 x 16 | 2 |" in text
    assert "| 95% to 100% |" in text


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_views_are_worse_under_more_noise(setting: coverage.Setting) -> None:
    rng = np.random.default_rng(0)
    views, targets = replace(setting, rows=50).draw(50, [0.0, 1.0], rng)
    assert [tuple(view.shape) for view in views] == [(50, setting.width)] * 2
    assert len(targets) == 50
    assert views[0].std() < views[1].std()
