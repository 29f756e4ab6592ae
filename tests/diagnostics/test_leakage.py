"""Copies, near copies and shared groups across the split, and what they do to the score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tl_core.diagnostics.leakage import leakage
from tl_core.diagnostics.results import Leakage
from tl_core.types import Targets

TARGETS = Targets("multiclass", ("a", "b", "c"))
TRAIN, TEST = 600, 300


def data(seed: int = 0, *, outputs: int = 3) -> dict[str, Any]:
    """Three clusters whose axes differ in spread; predictions are right on four test rows of five."""
    rng = np.random.default_rng(seed)
    n = TRAIN + TEST
    truth = rng.integers(outputs, size=n)
    scales = np.geomspace(3, 0.1, 40)
    features = rng.normal(size=(outputs, 40))[truth] * 4 + rng.normal(size=(n, 40)) * scales + 10
    said = np.where(rng.random(TEST) < 0.8, truth[TRAIN:], (truth[TRAIN:] + 1) % outputs)
    return {
        "features": features.astype(np.float32),
        "predictions": np.eye(outputs)[said],
        "truth": truth,
        "targets": TARGETS,
        "rows": np.arange(n) + 1000,
        "ids": [f"row {i}" for i in range(n)],
        "digests": [f"{i:032x}" for i in range(n)],
        "splits": ["train"] * (TRAIN - 100) + ["val"] * 100 + ["test"] * TEST,
        "resamples": 200,
    }


def plant(case: dict[str, Any], copies: int, noise: float, seed: int = 1) -> list[int]:
    """Make the first test rows near copies of rows of train and val; return their numbers in the manifest."""
    rng = np.random.default_rng(seed)
    sources = rng.choice(TRAIN, copies, replace=False)
    features = case["features"]
    spread = features.std(axis=0)
    for place, source in enumerate(sources):
        row = TRAIN + place
        features[row] = features[source] + noise * spread * rng.normal(size=features.shape[1])
        case["truth"][row] = case["truth"][source]
        case["predictions"][place] = np.eye(3)[case["truth"][source]]  # what was learnt by heart is right
    return [1000 + TRAIN + place for place in range(copies)]


def found(case: dict[str, Any]) -> Leakage:
    result = leakage(**case)
    assert result is not None
    return result


def test_nothing_is_found_where_nothing_leaks() -> None:
    for seed in range(5):
        result = found(data(seed))
        assert result.state == "ok"
        assert result.near <= 2  # chance may make half a pair
        assert result.exact == result.shared_rows == 0
        assert result.threshold is not None
        assert 0 < result.threshold < 1


def test_near_copies_are_found_and_what_they_do_to_the_score_is_told() -> None:
    case = data()
    planted = plant(case, 30, 0.05)
    result = found(case)
    assert result.state == "warn"
    assert set(planted) <= {pair.row for pair in result.duplicates}
    assert len(planted) <= result.near <= len(planted) + 2
    assert result.score
    assert result.clean
    assert result.cost
    assert result.cost.value == pytest.approx(result.score.value - result.clean.value, abs=2e-6)
    assert 0 < result.cost.low < result.cost.value < result.cost.high
    assert f"Of 300 test rows {result.near} are near copies" in result.text
    assert "leaked rows raise the score" in result.text
    assert all(pair.other_split in ("train", "val") for pair in result.duplicates)
    similarities = [pair.similarity for pair in result.duplicates]
    assert similarities == sorted(similarities, reverse=True)


def test_copies_are_found_also_where_a_third_of_the_test_rows_are_such() -> None:
    case = data()
    planted = plant(case, 100, 0.05)
    assert set(planted) <= {pair.row for pair in found(case).duplicates}


def test_exact_copies_go_by_content_and_labels_that_differ_are_said() -> None:
    case = data()
    for test_row, train_row in ((600, 3), (601, 550)):
        case["digests"][test_row] = case["digests"][train_row]
        case["features"][test_row] = case["features"][train_row]
    case["truth"][601] = (case["truth"][550] + 1) % 3
    case["truth"][600] = case["truth"][3]
    result = found(case)
    assert result.state == "warn"
    assert result.exact == 2
    first, second = result.duplicates[:2]
    assert (first.id, first.other_id, first.other_split, first.exact, first.differ) == (
        "row 600", "row 3", "train", True, False,
    )  # fmt: skip
    assert (second.other, second.other_split, second.differ) == (1550, "val", True)
    assert "2 are exact copies" in result.text
    assert "1 of these pairs has labels that differ" in result.text


def test_a_copy_of_another_label_is_named_before_one_of_the_same() -> None:
    case = data()
    case["truth"][[3, 4, 600]] = [0, 1, 0]
    for row in (3, 4):
        case["digests"][row] = case["digests"][600]
    assert found(case).duplicates[0].other_id == "row 4"


def test_common_content_does_not_flood_the_list() -> None:
    case = data()
    silence = np.r_[0:60, TRAIN : TRAIN + 40]
    case["features"][silence] = case["features"][0]  # of different bytes
    result = found(case)
    assert result.near <= 2
    assert "40 more resemble many training rows each" in result.text


def test_rows_that_are_mostly_alike_say_nothing_of_near_copies() -> None:
    case = data()
    case["features"][:] = case["features"][0]
    result = found(case)
    assert (result.state, result.threshold, result.near) == ("unclear", None, 0)
    assert "Near copies can't be told" in result.text


def test_few_test_rows_say_nothing_of_near_copies_but_exact_ones_are_found() -> None:
    case = data()
    keep = np.arange(TRAIN + 20)
    for key in ("features", "truth", "rows"):
        case[key] = case[key][keep]
    for key in ("ids", "digests", "splits"):
        case[key] = case[key][: len(keep)]
    case["predictions"] = case["predictions"][:20]
    assert found(case).state == "unclear"
    case["digests"][TRAIN] = case["digests"][5]
    assert (found(case).state, found(case).exact) == ("warn", 1)


def test_groups_on_both_sides_are_named_with_their_rows() -> None:
    case = data()
    names = [f"speaker {i % 40}" for i in range(TRAIN)] + [f"visitor {i % 30}" for i in range(TEST)]
    names[TRAIN : TRAIN + 12] = ["speaker 1"] * 6 + ["speaker 2"] * 6
    result = found(case | {"groups": names})
    assert result.state == "warn"
    assert result.shared_groups == ("speaker 1", "speaker 2")
    assert result.shared_rows == 12
    assert (
        "2 groups are both in test and in train or val (speaker 1, speaker 2), with 12 of 300 test rows" in result.text
    )
    assert result.clean is not None


def test_groups_that_are_kept_apart_are_no_leak() -> None:
    case = data()
    names = [f"speaker {i % 40}" for i in range(TRAIN)] + [f"visitor {i % 30}" for i in range(TEST)]
    result = found(case | {"groups": names})
    assert result.state == "ok"
    assert result.shared_groups == ()
    assert "No group is on both sides" in result.text


def test_where_every_row_leaks_no_score_is_left() -> None:
    case = data()
    result = found(case | {"groups": [f"speaker {i % 5}" for i in range(TRAIN + TEST)]})
    assert result.score is result.clean is result.cost is None
    assert "No test row is free of that" in result.text


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks(task: Any) -> None:
    case = data()
    planted = plant(case, 20, 0.05)
    rng = np.random.default_rng(0)
    if task == "multilabel":
        case["truth"] = np.eye(3, dtype=np.float32)[case["truth"]]
        case["predictions"] = np.clip(case["truth"][TRAIN:] + rng.normal(0, 0.4, (TEST, 3)), 0, 1)
        case["targets"] = Targets("multilabel", ("a", "b", "c"))
    else:
        case["truth"] = case["features"][:, 0].astype(np.float64)
        case["predictions"] = case["truth"][TRAIN:] + rng.normal(0, 1, TEST)
        case["targets"] = Targets("regression")
    result = found(case)
    assert result.state == "warn"
    assert set(planted) <= {pair.row for pair in result.duplicates}
    assert result.cost is not None
    assert result.cost.low <= result.cost.value <= result.cost.high


def test_one_split_alone_is_nothing_to_compare() -> None:
    case = data()
    assert leakage(**(case | {"splits": ["train"] * (TRAIN + TEST), "predictions": np.zeros((0, 3))})) is None


def test_the_same_input_gives_the_same_result() -> None:
    case = data()
    plant(case, 10, 0.1)
    assert leakage(**case) == leakage(**case)


def test_features_that_are_not_finite_are_refused() -> None:
    case = data()
    case["features"][7, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 900 feature rows hold NaN or infinity"):
        leakage(**case)
