"""The published table gives the figures that are known of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are scripts of the repository, no installed package

from benchmarks.selection.published import REPEATED, Mean, load, rated, tau_over_models  # noqa: E402

sys.path.remove(str(ROOT))


@pytest.mark.parametrize(
    ("score", "tau", "first", "third"),
    [
        ("logme", 0.670, 0.42, 0.00),
        ("h_score", 0.650, 0.72, 0.28),
        ("leep", 0.419, 2.66, 0.36),
        ("consensus", 0.719, 0.32, 0.00),
    ],
)
def test_means_over_the_sets(score: str, tau: float, first: float, third: float) -> None:
    sets = load()
    assert np.mean([one.tau(score) for one in sets]) == pytest.approx(tau, abs=5e-4)
    assert np.mean([one.regret(score, 1) for one in sets]) == pytest.approx(first, abs=6e-3)
    assert np.mean([one.regret(score, 3) for one in sets]) == pytest.approx(third, abs=6e-3)


def test_the_worst_without_one_network() -> None:
    worst = {s: np.mean([one.worst_tau(s) for one in load()]) for s in ("logme", "h_score", "leep")}
    assert worst == pytest.approx({"logme": 0.54, "h_score": 0.55, "leep": 0.29}, abs=5e-3)


def test_the_table_is_whole_and_its_fault_is_left_out() -> None:
    sets = load()
    assert [len(one.accuracy) for one in sets] == [10] * 8
    faulty = next(one for one in sets if one.name == "DTD")
    assert faulty.scores["nce"].tolist() == faulty.scores["logme"].tolist()
    assert {("DTD", "nce")} == REPEATED
    assert len(rated(sets, "nce")) == 7
    assert len(rated(sets, "logme")) == 8


def test_intervals_hold_their_mean_and_repeat() -> None:
    mean = Mean.of([0.1, 0.5, 0.9])
    assert mean.low < mean.value < mean.high
    assert mean == Mean.of([0.1, 0.5, 0.9])
    draws = tau_over_models(load()[:2], ["logme", "consensus"], draws=10)
    assert draws.shape == (2, 10)
    assert np.ptp(draws) > 0
