"""Metrics against scikit-learn, the weighted numbers against torchmetrics, floors, verdicts, the predictions table."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as sk
from pydantic import TypeAdapter

from tl_core.errors import UserError
from tl_core.evaluation import (
    Evaluation,
    Floor,
    Interval,
    evaluate_predictions,
    majority_predictions,
    meaning,
    predictions_table,
    verdict,
    worst_rows,
    write_predictions,
)
from tl_core.evaluation.metrics import measure
from tl_core.heads import METRICS
from tl_core.types import Targets, Task

RNG = np.random.default_rng(0)


def classes(n: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(n))


@dataclass
class Case:
    targets: Targets
    predictions: np.ndarray
    truth: np.ndarray

    def evaluate(self, floors: Mapping[str, np.ndarray] | None = None, **changed: Any) -> Evaluation:
        settings: dict[str, Any] = {"confidence": 0.9, "resamples": 200, "seed": 0, "floors": floors} | changed
        return evaluate_predictions(self.targets.task, self.targets, self.predictions, self.truth, **settings)


def multiclass(n: int = 300, c: int = 8, signal: float = 2.0) -> Case:
    rng = np.random.default_rng(n + c)
    truth = rng.choice(c, n, p=np.arange(1, c + 1) / (c * (c + 1) / 2))
    logits = rng.normal(size=(n, c)) + signal * np.eye(c)[truth]
    return Case(Targets("multiclass", classes(c)), np.exp(logits) / np.exp(logits).sum(1, keepdims=True), truth)


def multilabel(n: int = 300, c: int = 5) -> Case:
    rng = np.random.default_rng(n + c)
    truth = (rng.random((n, c)) < 0.3).astype(np.float32)
    logits = rng.normal(size=(n, c)) + 2 * truth - 1
    probabilities = np.round(1 / (1 + np.exp(-logits)), 2)  # rounded: ties
    return Case(Targets("multilabel", classes(c)), probabilities.astype(np.float32), truth)


def regression(n: int = 300) -> Case:
    rng = np.random.default_rng(n)
    truth = rng.normal(1e4, 3, n).astype(np.float32)  # a large offset: no cancellation allowed
    return Case(Targets("regression"), (truth + rng.normal(0, 1, n)).astype(np.float32), truth)


CASES = [multiclass(), multilabel(), regression(), multilabel(c=1), multiclass(c=2)]


def test_multiclass_numbers_are_scikit_learns() -> None:
    case = CASES[0]
    result, predicted = case.evaluate(), case.predictions.argmax(1)
    assert result.summary["accuracy"].value == pytest.approx(sk.accuracy_score(case.truth, predicted), abs=1e-6)
    assert result.summary["macro_f1"].value == pytest.approx(
        sk.f1_score(case.truth, predicted, average="macro"), abs=1e-6
    )
    top = sk.top_k_accuracy_score(case.truth, case.predictions, k=5)
    assert result.summary["top_5_accuracy"].value == pytest.approx(top, abs=1e-6)
    rates = sk.precision_recall_fscore_support(case.truth, predicted)
    for c, row in enumerate(result.per_class):
        assert row.precision
        assert row.recall
        assert row.f1
        got = (row.precision.value, row.recall.value, row.f1.value, row.support)
        assert got == pytest.approx([rate[c] for rate in rates], abs=1e-6)
    assert np.array_equal(result.confusion, sk.confusion_matrix(case.truth, predicted))
    assert result.summary["balanced_accuracy"].value == pytest.approx(
        sk.balanced_accuracy_score(case.truth, predicted), abs=1e-6
    )
    one_hot = np.eye(8)[case.truth]
    areas = sk.roc_auc_score(one_hot, case.predictions, average=None)
    precisions = sk.average_precision_score(one_hot, case.predictions, average=None)
    assert result.summary["auroc"].value == pytest.approx(areas.mean(), abs=1e-5)
    assert result.summary["average_precision"].value == pytest.approx(precisions.mean(), abs=1e-5)
    for row, area, precision in zip(result.per_class, areas, precisions, strict=True):
        assert row.auroc
        assert row.average_precision
        assert (row.auroc.value, row.average_precision.value) == pytest.approx((area, precision), abs=1e-5)


def test_of_two_classes_the_ranking_of_the_second_counts() -> None:
    case = CASES[4]
    result = case.evaluate()
    assert "top_5_accuracy" not in result.summary
    assert result.summary["auroc"].value == pytest.approx(
        sk.roc_auc_score(case.truth, case.predictions[:, 1]), abs=1e-5
    )
    assert result.summary["average_precision"].value == pytest.approx(
        sk.average_precision_score(case.truth, case.predictions[:, 1]), abs=1e-5
    )
    assert result.summary["auroc"] == result.per_class[1].auroc


def test_multilabel_numbers_are_scikit_learns() -> None:
    case = CASES[1]
    result, given = case.evaluate(), case.predictions > 0.5
    for name, expected in {
        "micro_f1": sk.f1_score(case.truth, given, average="micro"),
        "macro_f1": sk.f1_score(case.truth, given, average="macro"),
        "mean_average_precision": sk.average_precision_score(case.truth, case.predictions),
        "auroc": sk.roc_auc_score(case.truth, case.predictions),
        "micro_precision": sk.precision_score(case.truth, given, average="micro"),
        "micro_recall": sk.recall_score(case.truth, given, average="micro"),
        "exact_match": sk.accuracy_score(case.truth, given),
    }.items():
        assert result.summary[name].value == pytest.approx(expected, abs=1e-6)
    assert [row.support for row in result.per_class] == case.truth.sum(0).tolist()


def test_regression_numbers_are_scikit_learns() -> None:
    case = CASES[2]
    result = case.evaluate()
    assert result.summary["r2"].value == pytest.approx(sk.r2_score(case.truth, case.predictions), abs=1e-4)
    assert result.summary["mae"].value == pytest.approx(sk.mean_absolute_error(case.truth, case.predictions), abs=1e-4)
    assert result.summary["rmse"].value == pytest.approx(
        sk.root_mean_squared_error(case.truth, case.predictions), abs=1e-4
    )
    assert len(result.pairs) == 300


@pytest.mark.parametrize("case", CASES, ids=["multiclass", "multilabel", "regression", "one label", "binary"])
def test_the_weighted_numbers_are_torchmetrics_on_the_resampled_rows(case: Case) -> None:
    n = len(case.truth)
    whole = measure(case.targets, case.predictions, case.truth, np.arange(n))
    assert whole.resampled(np.ones(n)) == pytest.approx(whole.point(), abs=1e-5, nan_ok=True)
    rows = np.random.default_rng(4).integers(n, size=n)
    drawn = measure(case.targets, case.predictions[rows], case.truth[rows], np.arange(n))
    weights = np.bincount(rows, minlength=n).astype(np.float64)
    assert whole.resampled(weights) == pytest.approx(drawn.point(), abs=1e-5, nan_ok=True)
    assert whole.watch(weights) == pytest.approx(drawn.point()[0], abs=1e-5)


def test_the_same_seed_gives_the_same_result_and_another_one_other_intervals() -> None:
    case = CASES[0]
    assert case.evaluate() == case.evaluate()
    assert case.evaluate(seed=1).summary["accuracy"] != case.evaluate().summary["accuracy"]


def test_flat_metrics_have_exactly_the_documented_names() -> None:
    def names(case: Case) -> list[str]:
        majority = majority_predictions(case.targets, case.truth, len(case.truth))
        flat = case.evaluate({"majority": majority, "random_init": majority}).flat_metrics()
        json.dumps(flat, allow_nan=False)
        assert all(value == round(value, 6) for value in flat.values())
        return sorted(flat)

    floors = ["confidence", "floor_majority", "floor_random_init", "n_test"]
    for case, metrics in (
        (CASES[0], (*METRICS["multiclass"], "top_5_accuracy")),
        (CASES[1], METRICS["multilabel"]),
        (CASES[2], METRICS["regression"]),
    ):
        assert names(case) == sorted(floors + [m + end for m in metrics for end in ("", "_low", "_high")])


def test_classes_that_the_test_split_lacks_are_left_out_of_the_mean_and_named() -> None:
    truth = np.asarray([0, 0, 1, 1, 1, 0])
    predicted = np.asarray([0, 0, 1, 1, 2, 0])
    result = Case(Targets("multiclass", classes(4)), np.eye(4)[predicted], truth).evaluate()
    # class 2 was predicted but never occurs, class 3 neither: the mean is over classes 0 and 1
    assert result.summary["macro_f1"].value == pytest.approx((1 + 0.8) / 2)
    absent, unseen = result.per_class[2], result.per_class[3]
    assert (absent.support, absent.predicted, absent.recall, absent.f1) == (0, 1, None, None)
    assert (unseen.precision, unseen.recall, unseen.f1) == (None, None, None)
    assert any("over the 2 of 4" in note for note in result.notes)


def test_macro_f1_skips_classes_that_a_resample_did_not_draw() -> None:
    truth, predicted = np.asarray([0, 0, 0, 1]), np.asarray([0, 0, 0, 1])
    whole = measure(Targets("multiclass", classes(2)), np.eye(2)[predicted], truth, np.arange(4))
    assert whole.resampled(np.asarray([2.0, 1, 1, 0]))[1] == 1.0


def test_constant_targets_leave_r2_undefined_and_the_notes_say_so() -> None:
    result = Case(Targets("regression"), np.asarray([1.0, 2.0, 3.0]), np.full(3, 2.0)).evaluate()
    assert (result.summary["r2"].value, result.summary["r2"].method) == (0.0, "none")
    assert any("given as 0: R²" in note for note in result.notes)
    single = Case(Targets("regression"), np.asarray([1.0]), np.asarray([2.0])).evaluate()
    assert single.summary["mae"].value == 1.0
    assert any(
        "same mean absolute error, root mean squared error: no interval can be had" in note for note in single.notes
    )


def test_a_multilabel_split_without_any_label_is_undefined_not_an_error() -> None:
    result = Case(Targets("multilabel", classes(2)), np.full((4, 2), 0.1), np.zeros((4, 2))).evaluate()
    assert {name: i.value for name, i in result.summary.items() if i.value} == {"exact_match": 1.0}
    assert any("given as 0: micro F1, macro F1, mean average precision, AUROC" in note for note in result.notes)
    assert result.curves == ()


def test_a_test_split_of_one_class_has_no_auroc_and_says_so() -> None:
    truth = np.zeros(6, np.int64)
    result = Case(Targets("multiclass", classes(2)), np.eye(2)[[0, 0, 0, 0, 1, 0]], truth).evaluate()
    assert (result.summary["auroc"].value, result.summary["auroc"].method) == (0.0, "none")
    assert any("given as 0: AUROC, average precision" in note for note in result.notes)
    assert [row.auroc for row in result.per_class] == [None, None]


def test_many_classes_on_many_rows_rank_on_fewer_resamples_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_core.evaluation.evaluate.RANKED_WORK", 0)
    few, all_ = CASES[0].evaluate(resamples=300), CASES[0].evaluate(resamples=200)
    assert any("AUROC and average precision: 200 of the resamples" in note for note in few.notes)
    assert few.summary["auroc"] == all_.summary["auroc"]  # the same first 200
    assert few.summary["accuracy"] != all_.summary["accuracy"]


def test_an_evaluation_of_before_the_curves_still_loads() -> None:
    stored = TypeAdapter(Evaluation).dump_python(CASES[0].evaluate(), mode="json")
    assert TypeAdapter(Evaluation).validate_python(stored) == CASES[0].evaluate()
    del stored["curves"]
    for row in stored["per_class"]:
        del row["auroc"]
    assert TypeAdapter(Evaluation).validate_python(stored).curves == ()


def test_faulty_predictions_are_refused_with_the_remedy() -> None:
    targets = Targets("multiclass", classes(2))
    with pytest.raises(UserError, match=r"2 of 4 predictions are not finite .* lower tune\.lr"):
        Case(targets, np.asarray([[np.nan, np.inf], [0, 1]]), np.asarray([0, 1])).evaluate()
    with pytest.raises(UserError, match="no usable test row"):
        Case(targets, np.zeros((0, 2)), np.zeros(0, np.int64)).evaluate()
    with pytest.raises(UserError, match="the data have one class, 'class 0', and there is nothing to tell it from"):
        Case(Targets("multiclass", ("class 0",)), np.ones((2, 1)), np.zeros(2, np.int64)).evaluate()
    with pytest.raises(ValueError, match=r"predictions are \(2, 3\), expected \(2, 2\)"):
        Case(targets, np.zeros((2, 3)), np.asarray([0, 1])).evaluate()


def test_ten_thousand_rows_a_thousand_resamples_twenty_classes_take_seconds() -> None:
    case = multiclass(10_000, 20)
    case.evaluate(resamples=100)  # imports torchmetrics
    started = time.process_time()
    result = case.evaluate(resamples=1000)
    assert time.process_time() - started < 6
    assert result.n_test == 10_000


def floor(targets: Targets, train: np.ndarray, test: np.ndarray) -> float:
    rows = len(test)
    return measure(targets, majority_predictions(targets, train, rows), test, np.arange(rows)).watch(np.ones(rows))


def test_the_majority_floor_learns_from_the_training_labels_alone() -> None:
    train, test = np.asarray([2, 2, 1, 1, 0]), np.asarray([1, 1, 2, 0])
    targets = Targets("multiclass", classes(3))
    assert floor(targets, train, test) == 0.5  # ties: the first class
    assert majority_predictions(targets, train, 2).tolist() == [[0, 1, 0], [0, 1, 0]]
    labels = Targets("multilabel", classes(2))
    assert majority_predictions(labels, np.asarray([[1, 0], [1, 0], [1, 1]]), 1) == pytest.approx(
        np.asarray([[1, 1 / 3]])
    )
    assert floor(labels, np.asarray([[1, 0], [1, 0]]), np.asarray([[1, 0], [1, 1]])) == 0.8
    assert floor(Targets("regression"), np.asarray([1.0, 3.0]), np.asarray([1.0, 3.0])) == 0.0


def test_the_verdict_goes_by_paired_intervals() -> None:
    good = multiclass(300, 3, signal=4)
    majority = majority_predictions(good.targets, good.truth, 300)
    above = verdict(good.evaluate({"majority": majority}))
    assert (above.state, above.headline) == ("above", "Clearly above its floor")
    assert above.sentence.startswith("Accuracy 0.9")
    assert "(90% interval 0.9" in above.sentence
    same = verdict(good.evaluate({"majority": majority, "random_init": good.predictions}))
    assert (same.state, same.headline) == ("unclear", "Not clearly above one of its floors")
    assert "random weights (gain -0.0" in same.sentence
    bad = Case(good.targets, np.roll(good.predictions, 1, axis=1), good.truth)
    assert verdict(bad.evaluate({"majority": majority})).state == "below"


def told(task: Task = "multiclass", strategy: str = "probe", **gains: tuple[float, float]) -> str:
    """The meaning of an evaluation whose floors have these gains."""
    case = multiclass(20, 3).evaluate()
    floors = {
        name: Floor(Interval.of(0.5, 0.4, 0.6), Interval.of((low + high) / 2, low, high))
        for name, (low, high) in gains.items()
    }
    return meaning(dataclasses.replace(case, task=task, floors=floors), strategy)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "pretrained features beat the same network with random weights by 12 to 20 points: pretraining helps here",
            {"majority": (0.5, 0.6), "random_init": (0.12, 0.2)},
        ),
        (
            "the fine-tuned network beats a probe on the same network with random weights by 12 to 20 points: "
            "pretraining and fine-tuning together help here",
            {"majority": (0.5, 0.6), "random_init": (0.12, 0.2), "strategy": "finetune"},
        ),
        (
            "the network trained from random weights beats a probe on the same network with random weights by 12 to 20 "
            "points: training it helps here, and pretraining had no part in it",
            {"majority": (0.5, 0.6), "random_init": (0.12, 0.2), "strategy": "scratch"},
        ),
        (
            "can't tell whether pretraining helps here: pretrained features may be 4 points worse or 1.2 points better "
            "than the same network with random weights",
            {"majority": (0.5, 0.6), "random_init": (-0.04, 0.012)},
        ),
        (
            "the same network with random weights does better than pretrained features by 3 to 8 points: pretraining "
            "hurts here",
            {"majority": (0.5, 0.6), "random_init": (-0.08, -0.03)},
        ),
        (
            "worse than always answering the training rows' commonest class by 10 points: look at the labels and the "
            "split first",
            {"majority": (-0.101, -0.099), "random_init": (0.12, 0.2)},
        ),
        (
            "can't tell the model from always answering the training rows' mean: the features say little about these "
            "labels, or the test samples are too few",
            {"majority": (-0.1, 0.1), "random_init": (0.12, 0.2), "task": "regression"},
        ),
        (
            "better than always answering the training rows' mean by 0.30 to 0.45 of R²; not compared with random "
            "weights",
            {"majority": (0.3, 0.45), "task": "regression"},
        ),
        ("not compared with random weights", {}),
    ],
)
def test_the_meaning_is_said_in_plain_words(text: str, facts: dict[str, Any]) -> None:
    assert told(**facts) == text


def test_a_gain_that_never_changes_is_as_wide_as_both_intervals_allow() -> None:
    truth = np.asarray([0, 1, 0])
    right, wrong = np.eye(2)[truth], np.eye(2)[1 - truth]
    result = Case(Targets("multiclass", classes(2)), right, truth).evaluate({"majority": wrong})
    gain = result.floors["majority"].gain
    assert (gain.value, gain.method) == (1.0, "wilson")
    assert gain.low < 0.3


def manifest(targets: Targets, labels: list[str | None], truth: np.ndarray, reasons: list[str | None]) -> Any:
    """What predictions_table asks of a manifest, with two training rows in front."""
    n = len(labels)
    table = pa.table({
        "id": ["t0", "t1", *(f"r{i}" for i in range(n))],
        "split": ["train", "train"] + ["test"] * n,
        "label": pa.array([None, None, *labels], pa.string()),
        "reason": pa.array([None, None, *reasons], pa.string()),
    })  # fmt: skip
    return SimpleNamespace(table=table, targets=targets, target_array=lambda rows: truth[rows - 2])


def test_quarantined_rows_keep_their_place_in_the_predictions(tmp_path: Path) -> None:
    targets = Targets("multiclass", ("cat", "<dog>"))
    faked = manifest(targets, ["cat", "<dog>", None], np.asarray([0, 1, -1]), [None, None, "empty file"])
    rows, predictions = np.asarray([2, 3]), np.asarray([[0.75, 0.25], [0.6, 0.4]])
    table = predictions_table(faked, rows, predictions)
    assert table.to_pylist() == [
        {"row": 2, "id": "r0", "split": "test", "label": "cat", "predicted": "cat", "probability": 0.75,
         "correct": True, "reason": None, "p_cat": 0.75, "p_<dog>": 0.25},
        {"row": 3, "id": "r1", "split": "test", "label": "<dog>", "predicted": "cat",
         "probability": pytest.approx(0.6), "correct": False, "reason": None, "p_cat": pytest.approx(0.6),
         "p_<dog>": pytest.approx(0.4)},
        {"row": 4, "id": "r2", "split": "test", "label": None, "predicted": None, "probability": None, "correct": None,
         "reason": "empty file", "p_cat": None, "p_<dog>": None},
    ]  # fmt: skip
    write_predictions(table, tmp_path / "a" / "predictions.parquet")
    write_predictions(predictions_table(faked, rows, predictions), tmp_path / "b.parquet")
    assert (tmp_path / "a" / "predictions.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_table(tmp_path / "b.parquet").equals(table)


def test_predictions_of_the_other_tasks() -> None:
    labels = Targets("multilabel", ("x", "y"))
    truth = np.asarray([[1, 1], [0, 0]], np.float32)
    table = predictions_table(
        manifest(labels, ["x|y", ""], truth, [None, None]), np.asarray([2, 3]), np.asarray([[0.9, 0.8], [0.3, 0.6]])
    )
    assert table["predicted"].to_pylist() == ["x|y", "y"]
    assert table["probability"].to_pylist() == pytest.approx([0.8, 0.6])
    assert table["correct"].to_pylist() == [True, False]
    values = manifest(Targets("regression"), ["1.5", "2"], np.asarray([1.5, 2.0]), [None, None])
    table = predictions_table(values, np.asarray([2, 3]), np.asarray([1.4999999, 3.0]))
    assert table["predicted"].to_pylist() == [1.5, 3.0]
    assert table["correct"].to_pylist() == [None, None]


def test_predictions_for_other_rows_are_refused() -> None:
    faked = manifest(Targets("multiclass", ("a", "b")), ["a"], np.asarray([0]), [None])
    for rows in ([0], [2, 3]):
        with pytest.raises(ValueError, match="don't belong to the 1 test rows"):
            predictions_table(faked, np.asarray(rows), np.eye(2)[: len(rows)])


def test_worst_rows_are_the_most_confident_errors() -> None:
    targets = Targets("multiclass", classes(2))
    predictions = np.asarray([[0.9, 0.1], [0.6, 0.4], [0.01, 0.99], [0.55, 0.45]])
    assert worst_rows(targets, predictions, np.asarray([1, 1, 1, 1]), 5).tolist() == [0, 1, 3]
    labels = Targets("multilabel", classes(2))
    assert worst_rows(labels, predictions, np.asarray([[1, 0], [0, 0], [1, 1], [1, 0]]), 1).tolist() == [2]
    assert worst_rows(Targets("regression"), np.asarray([1.0, 5, 2]), np.asarray([1.0, 1, 3]), 5).tolist() == [1, 2]
