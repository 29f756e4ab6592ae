"""How often the gate's deciding rule promotes, over simulated retrains whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.retraining import gate_rates
from tl_core.config import GateConfig

SETTINGS = {setting.name: replace(setting, full=False) for setting in gate_rates.SETTINGS}
SURE = 0.999  # that as many promotions as are let pass are not chance alone


def promoted(name: str, retrains: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, float]:
    """Challengers that the metric rule lets pass, and the mean share of rows that they decide otherwise.

    All are judged by the rule, also those that the benchmark need not ask.
    """
    monkeypatch.setattr(gate_rates, "may_pass", lambda answers: True)
    found = [gate_rates.retrain(SETTINGS[name], seed) for seed in range(retrains)]
    return sum(one["metric"] for one in found), float(np.mean([one["differ"] for one in found]))


@pytest.mark.parametrize("name", ["equal, 200 rows", "equal, 200 rows in groups of 10"])
def test_a_challenger_that_is_no_better_is_seldom_promoted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = 1 - GateConfig().confidence
    assert stated == pytest.approx(0.05)
    count, _ = promoted(name, 300, monkeypatch)
    assert count <= binom.ppf(SURE, 300, stated)


def test_a_challenger_that_is_better_by_3_points_mostly_is(monkeypatch: pytest.MonkeyPatch) -> None:
    count, differ = promoted("3 points better, 1,000 rows", 100, monkeypatch)
    assert differ <= 0.1
    assert count >= 80
