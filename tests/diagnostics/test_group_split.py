"""A split that ignores groups against one that keeps them whole."""

from __future__ import annotations

import csv
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tl_core.diagnostics.group_split import group_split
from tl_core.diagnostics.results import GroupSplit
from tl_core.types import Targets

TARGETS = Targets("multiclass", ("a", "b", "c"))


def data(voice: float, *, groups: int = 12, per_group: int = 30, seed: int = 0) -> dict[str, Any]:
    """Rows of three classes; `voice` is how far each group says each class in a way of its own."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), per_group)
    truth = np.tile(np.arange(3), len(group) // 3)
    classes, ways = rng.normal(size=(3, 30)), rng.normal(size=(groups, 3, 30))
    features = 0.4 * classes[truth] + voice * ways[group, truth] + rng.normal(size=(len(group), 30))
    return {
        "features": features.astype(np.float32),
        "truth": truth,
        "groups": [f"speaker {g}" for g in group],
        "targets": TARGETS,
        "strength": 30.0,
        "resamples": 200,
    }


def found(case: dict[str, Any]) -> GroupSplit:
    result = group_split(**case)
    assert result is not None
    return result


def test_the_gap_shows_where_groups_have_ways_of_their_own() -> None:
    result = found(data(1.0))
    assert result.groups == 12
    assert result.gap.low > 0.1
    assert result.gap.value == pytest.approx(result.random.value - result.grouped.value, abs=2e-6)
    assert "promises too much" in result.text
    assert f"{result.grouped.value:.3f} on groups that it has not seen" in result.text


def test_no_gap_is_claimed_where_groups_say_nothing() -> None:
    claimed = [found(data(0.0, seed=seed)).gap.low > 0 for seed in range(10)]
    assert sum(claimed) <= 2  # one in twenty lies above a 90% interval by chance


def test_few_groups_are_left_out_one_by_one() -> None:
    """With two groups each fold is a group: a class that they say in opposite ways is never right."""
    rng = np.random.default_rng(0)
    truth = np.tile([0, 1], 60)
    group = np.repeat([0, 1], 60)
    sign = np.where((truth == 1) ^ (group == 1), 1.0, -1.0)
    features = np.stack([sign * 3, group * 9.0], axis=1) + rng.normal(0, 0.1, (120, 2))
    result = group_split(
        features.astype(np.float32), truth, [f"g{g}" for g in group], Targets("multiclass", ("a", "b")), 1.0
    )
    assert result is not None
    assert result.grouped.value == 0.0


def test_classes_that_one_group_alone_shows_are_left_out() -> None:
    case = data(0.5)
    alone = np.array([name == "speaker 3" for name in case["groups"]])
    case["truth"] = np.where(alone, 2, case["truth"] % 2)
    result = found(case)
    assert "30 rows of classes that only one group shows were left out" in result.text
    assert result.grouped.value > 0.5  # a class that can't be learnt would cost all its rows


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks(task: Any) -> None:
    case = data(1.0)
    if task == "multilabel":
        case["truth"] = np.eye(3, dtype=np.float32)[case["truth"]]
        case["targets"] = Targets("multilabel", ("a", "b", "c"))
    else:
        case["truth"] = case["truth"].astype(np.float32) * 100 + 7
        case["targets"] = Targets("regression")
    result = found(case)
    assert result.gap.low > 0
    assert result.random.value > result.grouped.value


def test_nothing_is_said_without_groups_to_compare() -> None:
    case = data(1.0)
    rows = len(case["truth"])
    assert group_split(**(case | {"groups": ["one"] * rows})) is None
    assert group_split(**(case | {"groups": [str(i) for i in range(rows)]})) is None
    few = {"features": case["features"][:12], "truth": case["truth"][:12], "groups": ["x", "y"] * 6}
    assert group_split(**(case | few)) is None


def test_the_same_input_gives_the_same_result() -> None:
    assert found(data(0.7)) == found(data(0.7))


@pytest.mark.shared
def test_spoken_digits_of_speakers_that_were_heard_are_easier(shared_data: Path) -> None:
    """FSDD: six speakers; features are mean and spread of the log energy in 20 bands over time."""
    folder = shared_data / "datasets" / "fsdd"
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    features = np.stack([_bands(folder / row["file"]) for row in rows])
    truth = np.array([int(row["label"]) for row in rows])
    targets = Targets("multiclass", tuple("0123456789"))
    result = group_split(features, truth, [row["speaker"] for row in rows], targets, 3.0)
    assert result is not None
    assert result.groups == 6
    assert result.gap.low > 0.15


def _bands(path: Path) -> np.ndarray:
    with wave.open(str(path)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
    pieces = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (0, 256)), 256)[::128] * np.hanning(256)
    energy = np.abs(np.fft.rfft(pieces, axis=1))[:, 1:121].reshape(len(pieces), 20, 6).sum(axis=2)
    logs = np.log(energy + 1e-3)
    return np.concatenate([logs.mean(axis=0), logs.std(axis=0)]).astype(np.float32)
