"""Faults of a group and of a model, put into real sets on purpose: see `planted.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.evaluation.material import Material
from tl_core.diagnostics.calibration import calibration
from tl_core.diagnostics.held_out import axes_of, dealt, held_out, tied
from tl_core.diagnostics.labels import FOLDS
from tl_core.diagnostics.shift import shift
from tl_core.evaluation.bootstrap import Floats
from tl_core.training.temperature import temperature

GROUPS = 5  # that rows are dealt to at random
HARMED = 60  # rows of one of them
SHARES = {"none": 0.0, "a third": 1 / 3, "all": 1.0}  # of its rows that are harmed
DISTORTIONS = {"as it is": 1.0, "too sure": 0.5, "not sure enough": 2.0}  # what logits are divided by
ROWS = 1000  # that calibration is judged on, at most


def shifted_group(of: Material, draws: int) -> dict[str, Any]:
    """60 rows of one of five groups: none, a third or all harmed at severity 3 by the plugin's first corruption.

    found: the group is warned of; others: of the other four. Rows are dealt to groups at random otherwise.
    """
    told: dict[str, Any] = {}
    for name, share in SHARES.items():
        found, others = [], []
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            chosen = rng.permutation(len(of.harmed))[:HARMED]
            features = of.features.copy()
            changed = chosen[: round(share * HARMED)]
            features[of.copied[changed]] = of.harmed[changed]
            group = rng.integers(1, GROUPS, len(of.truth))
            group[of.copied[chosen]] = 0
            names = {"place": [f"p{number}" for number in group]}
            said = shift(features, ["train"] * len(group), of.truth, of.targets, attributes=names, seed=seed)
            assert said is not None
            states = {test.name.split()[1]: test.state for test in said.tests}
            found.append(states["p0"] == "warn")
            others.append(sum(state == "warn" for place, state in states.items() if place != "p0"))
        told[name] = {"found": float(np.mean(found)), "others": float(np.mean(others))}
    return told | {"corruption": of.corruption}


def distorted_temperature(of: Material, strength: float, draws: int) -> dict[str, Any]:
    """A calibrated probe whose logits are then divided by 0.5 or 2, judged on rows that it was not calibrated on.

    Held-out probabilities; half of the rows set the temperature, at most 1,000 of the others judge.
    """
    fold = dealt(of.truth, of.targets, FOLDS, 0, tied(of.digests), grouped=False)
    logits = np.log(held_out(axes_of(of.features), of.truth, of.targets, fold, strength).astype(np.float64) + 1e-12)
    told: dict[str, Any] = {}
    for name, divisor in DISTORTIONS.items():
        warned, offsets = [], []
        for seed in range(draws):
            order = np.random.default_rng(seed).permutation(len(logits))
            first, second = order[: len(order) // 2], order[len(order) // 2 :][:ROWS]
            fitted = temperature(
                torch.from_numpy(logits[first]).float(), torch.from_numpy(of.truth[first]), of.targets.task
            )
            said = calibration(
                _softmax(logits[second] / fitted / divisor), of.truth[second], of.targets, temperature=fitted, seed=seed
            )
            assert said is not None
            warned.append(said.state == "warn")
            offsets.append(said.offset.value)
        told[name] = {"warned": float(np.mean(warned)), "offset": round(float(np.mean(offsets)), 4)}
    return told | {"rows": len(second)}


def _softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Floats = e / e.sum(axis=1, keepdims=True)
    return found
