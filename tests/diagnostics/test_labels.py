"""Wrong labels are found and counted; a model's own errors are not taken for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tl_core.diagnostics.held_out import axes_of, dealt, held_out, tied
from tl_core.diagnostics.labels import label_errors
from tl_core.diagnostics.results import LabelErrors
from tl_core.types import Targets

TARGETS = Targets("multiclass", ("cat", "dog", "owl", "pig"))


def data(distance: float, *, rows: int = 800, seed: int = 0) -> dict[str, Any]:
    """Four clusters so many standard deviations apart."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(4, size=rows)
    centres = np.zeros((4, 20))
    centres[np.arange(4), np.arange(4)] = distance / np.sqrt(2)
    features = centres[truth] + rng.normal(size=(rows, 20))
    return {
        "features": features.astype(np.float32),
        "truth": truth,
        "targets": TARGETS,
        "strength": 10.0,
        "rows": np.arange(rows) + 50,
        "ids": [f"row {i}" for i in range(rows)],
        "digests": [f"{i:032x}" for i in range(rows)],
        "splits": ["train", "train", "val", "test"] * (rows // 4),
        "resamples": 200,
    }


def flip(case: dict[str, Any], share: float, seed: int = 1) -> np.ndarray:
    """Give a share of the rows another class at random; return which, bool [N]."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(case["truth"]), bool)
    wrong[rng.permutation(len(wrong))[: round(share * len(wrong))]] = True
    moved = (case["truth"] + rng.integers(1, 4, len(wrong))) % 4
    case["truth"] = np.where(wrong, moved, case["truth"])
    return wrong


def found(case: dict[str, Any]) -> LabelErrors:
    result = label_errors(**case)
    assert result is not None
    return result


def test_flipped_labels_are_found_worst_first_with_what_they_should_be() -> None:
    case = data(5.0)
    true = case["truth"]
    wrong = flip(case, 0.05)
    result = found(case)
    assert result.state == "warn"
    assert result.rows == 800
    assert result.share.low <= 0.05 <= result.share.high
    hits = [wrong[suspect.row - 50] for suspect in result.suspects]
    assert np.mean(hits) > 0.8
    assert sum(hits) > 0.8 * wrong.sum()
    assert result.found == len(result.suspects)
    for suspect in result.suspects[:20]:
        row = suspect.row - 50
        assert suspect.id == f"row {row}"
        assert suspect.split == case["splits"][row]
        assert suspect.given == TARGETS.classes[case["truth"][row]]
        assert suspect.suggested == TARGETS.classes[true[row]]
    qualities = [suspect.quality for suspect in result.suspects]
    assert qualities == sorted(qualities)
    assert all(0 <= quality < 0.5 for quality in qualities)
    assert f"About {result.share.value:.1%} of 800 labels look wrong" in result.text


@pytest.mark.parametrize("distance", [5.0, 3.0, 2.0, 1.0])
def test_clean_labels_are_not_called_dirty_however_weak_the_model(distance: float) -> None:
    states = [found(data(distance, seed=seed)) for seed in range(4)]
    assert all(result.state != "warn" for result in states)
    assert all(result.share.low <= 0.001 for result in states)


def test_the_share_is_covered_where_the_model_errs_as_well() -> None:
    covered = 0
    for seed in range(12):
        case = data(2.5, seed=seed)
        flip(case, 0.1, seed)
        share = found(case).share
        covered += share.low <= 0.1 <= share.high
    assert covered >= 9


def test_features_that_say_nothing_of_the_labels_say_nothing_of_wrong_ones() -> None:
    result = found(data(0.0))
    assert result.state == "unclear"
    assert result.text.startswith("Can't tell wrong labels from hard samples")


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_labels_of_rare_classes_are_not_called_wrong_for_being_rare(task: Any, distance: float) -> None:
    """A weak probe gives every row the usual answer; those of another class contradict it, and are right."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        case = data(0.0, seed=seed)
        marks = rng.random((800, 3)) < 0.06
        case["features"] = rng.normal(size=(800, 40)).astype(np.float32)
        case["features"][:, :3] += distance * marks
        if task == "multilabel":
            case |= {"truth": marks.astype(np.float32), "targets": Targets("multilabel", TARGETS.classes[:3])}
        else:
            case |= {"truth": marks[:, 0].astype(np.int64), "targets": Targets("multiclass", TARGETS.classes[:2])}
        result = found(case)
        assert result.state != "warn"
        assert result.share.low == 0
        assert result.found <= 2


def test_wrong_labels_are_counted_also_where_classes_are_rare() -> None:
    rng = np.random.default_rng(0)
    case = data(0.0)
    true = rng.choice(4, p=[0.85, 0.05, 0.05, 0.05], size=800)
    case["features"] += 5.0 * np.eye(4, 20, dtype=np.float32)[true]
    case["truth"] = true
    wrong = flip(case, 0.05)
    result = found(case)
    assert result.state == "warn"
    assert result.share.low <= 0.05 <= result.share.high
    assert np.mean([wrong[suspect.row - 50] for suspect in result.suspects]) > 0.8


def test_clean_labels_that_are_easy_are_ok_with_an_upper_bound() -> None:
    result = found(data(6.0))
    assert (result.state, result.found) == ("ok", 0)
    assert result.share.value == result.share.low == 0
    assert 0.0005 < result.share.high < 0.01  # about 1.35 / 800: no wrong one among so many


def test_copies_and_groups_share_a_fold() -> None:
    rng = np.random.default_rng(0)
    truth, digests = rng.integers(4, size=200), [str(i // 2) for i in range(200)]
    fold = dealt(truth, TARGETS, 5, 0, tied(digests), grouped=False)
    assert (fold[::2] == fold[1::2]).all()
    assert len(set(fold.tolist())) == 5
    units = tied(digests, [str(i % 20) for i in range(200)])  # rows 2k and 2k + 1 tie their two groups together
    assert len(set(units.tolist())) == 10
    fold = dealt(truth, TARGETS, 5, 0, units, grouped=True)
    assert all(len(set(fold[units == unit].tolist())) == 1 for unit in units)


def test_a_copy_does_not_vouch_for_its_own_label() -> None:
    """Rows that each occur twice, with features enough to learn each by heart."""
    case = data(12.0, rows=400)
    wrong = flip(case, 0.05)
    noise = 0.5 * np.random.default_rng(2).normal(size=(400, 60)).astype(np.float32)
    case["features"] = np.concatenate([case["features"], noise], axis=1)
    for key in ("features", "truth", "rows"):
        case[key] = np.repeat(case[key], 2, axis=0)
    for key in ("ids", "digests", "splits"):
        case[key] = [value for value in case[key] for _ in range(2)]
    result = found(case)
    assert result.share.low <= 0.05 <= result.share.high
    assert len({suspect.row - 50 for suspect in result.suspects} & set(np.flatnonzero(wrong).tolist())) >= 17  # of 20
    blind = found(case | {"digests": [f"{i:032x}" for i in range(800)]})
    assert blind.found == 0  # what goes wrong otherwise


def test_held_out_predictions_have_not_seen_their_labels() -> None:
    """Other labels in one fold change nothing of what is said of that fold."""
    case = data(2.0, rows=200)
    axes, fold = axes_of(case["features"]), np.arange(200) % 5
    before = held_out(axes, case["truth"], TARGETS, fold, 1.0)
    changed = np.where(fold == 2, (case["truth"] + 1) % 4, case["truth"])
    after = held_out(axes, changed, TARGETS, fold, 1.0)
    assert np.array_equal(before[fold == 2], after[fold == 2])
    assert not np.array_equal(before[fold == 1], after[fold == 1])


def test_of_several_labels_each_counts_on_its_own() -> None:
    case = data(6.0)
    marks = np.eye(4, dtype=np.float32)[case["truth"]]
    marks[::7, 0] = 1
    case["features"][::7, 0] = 6 / np.sqrt(2)
    case |= {"truth": marks.copy(), "targets": Targets("multilabel", TARGETS.classes)}
    assert found(case).state == "ok"
    rng = np.random.default_rng(0)
    wrong = rng.permutation(800)[:40]
    case["truth"][wrong, 2] = 1 - case["truth"][wrong, 2]
    result = found(case)
    assert result.state == "warn"
    assert result.share.low <= 40 / 3200 <= result.share.high
    hits = [suspect for suspect in result.suspects if suspect.row - 50 in set(wrong.tolist())]
    assert len(hits) >= 28
    assert len(hits) > 0.8 * result.found
    names = [name for name, mark in zip(TARGETS.classes, marks[hits[0].row - 50]) if mark]
    assert hits[0].suggested == ", ".join(names)
    assert "answers, one for each row and label," in result.text


def test_a_class_of_one_row_is_not_judged() -> None:
    case = data(5.0)
    case["truth"] = np.where(case["truth"] == 3, 2, case["truth"])
    case["truth"][17] = 3
    result = found(case)
    assert result.rows == 799
    assert all(suspect.row != 67 for suspect in result.suspects)


def test_nothing_is_said_of_values_or_of_few_rows() -> None:
    case = data(5.0)
    values = {"truth": case["truth"].astype(np.float32), "targets": Targets("regression")}
    assert label_errors(**(case | values)) is None
    few = {"features": case["features"][:40], "truth": case["truth"][:40]}
    few |= {key: case[key][:40] for key in ("rows", "ids", "digests", "splits")}
    assert label_errors(**(case | few)) is None


def test_the_same_input_gives_the_same_result() -> None:
    case = data(3.0)
    flip(case, 0.05)
    assert label_errors(**case) == label_errors(**case)


@pytest.mark.parametrize(("rare", "state"), [(40, "unclear"), (12, "ok")])
def test_a_class_that_the_probe_does_not_know_is_named_and_not_called_fine(rare: int, state: str) -> None:
    """Its rows look like those of another class: were its labels wrong, nothing would show it."""
    case = data(8.0)
    unknown = np.random.default_rng(3).choice(np.flatnonzero(case["truth"] == 0), rare, replace=False)
    case["truth"] = case["truth"].copy()
    case["truth"][unknown] = 4
    case["targets"] = Targets("multiclass", (*TARGETS.classes, "yak"))
    result = found(case)
    assert result.state == state
    assert result.text.endswith("The probe does not know yak: it says nothing of that label.")
