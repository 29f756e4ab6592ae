"""Strange rows are counted, rows like those learnt from are not, and nothing more is claimed than the rows say."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tl_core.diagnostics.results import OutOfDistribution
from tl_core.diagnostics.unusual import surplus, unusual
from tl_core.errors import UserError
from tl_core.extraction import embed
from tl_core.reference import Reference
from tl_core.registry import load_registry
from tl_core.types import Targets

TWO = Targets("multiclass", ("a", "b"))
Features = npt.NDArray[np.float32]


def cloud(rng: np.random.Generator, rows: int, at: int = 0) -> Features:
    """Rows around one of the axes of 16."""
    x = rng.normal(0, 0.3, (rows, 16))
    x[:, at] += 2.0
    return x.astype(np.float32)


def looked_at(
    test: Features, wrong: npt.NDArray[np.bool_], val: int = 200, groups: list[str] | None = None
) -> OutOfDistribution:
    rng = np.random.default_rng(0)
    truth = np.zeros(len(test), np.int64)
    p = np.where(wrong[:, None], [0.2, 0.8], [0.9, 0.1])
    reference = Reference.of(cloud(rng, 300), cloud(rng, val))
    ids = [f"row {i}" for i in range(len(test))]
    return unusual(reference, test, p, truth, TWO, ids, range(1000, 1000 + len(test)), resamples=200, groups=groups)


def test_strange_rows_are_found_and_the_model_is_worse_on_them() -> None:
    rng = np.random.default_rng(1)
    test = np.concatenate([cloud(rng, 270), cloud(rng, 30, at=5)])
    wrong = np.arange(300) >= 285
    wrong[:10] = True
    found = looked_at(test, wrong)
    assert found.state == "warn"
    assert 0.1 <= found.rejected.value <= 0.2
    assert found.rejected.low < found.rejected.value < found.rejected.high
    assert {r.row for r in found.rows} <= set(range(1270, 1300))  # the 24 most unusual
    assert [r.score for r in found.rows] == sorted((r.score for r in found.rows), reverse=True)
    assert found.rows[0].id == f"row {found.rows[0].row - 1000}"
    assert found.accepted is not None
    assert found.refused is not None
    assert found.accepted.value > 0.9 > 0.8 > found.refused.value
    assert "against about 5% of rows like the validation rows: some are of a kind not learnt from." in found.text
    assert "Accuracy is 0.9" in found.text
    assert found.text.endswith("): have them checked.")
    assert found.curve[-1] == (1.0, round(1 - 25 / 300, 6))
    assert found.curve[0][0] == 0.05
    assert found.curve[16][1] > found.curve[-1][1]  # 85% of the rows, without the strange ones


def test_rows_like_those_learnt_from_are_left_alone() -> None:
    told = []
    for seed in range(100):
        rng = np.random.default_rng([2, seed])
        reference = Reference.of(cloud(rng, 200), cloud(rng, 60))
        p = np.tile([0.9, 0.1], (100, 1))
        told.append(
            unusual(reference, cloud(rng, 100), p, np.zeros(100, np.int64), TWO, ["x"] * 100, range(100), resamples=100)
        )
    assert sum(found.state == "warn" for found in told) <= 9  # at most 5%, and two standard deviations of the count
    assert np.mean([found.rejected.value for found in told]) == pytest.approx(0.05, abs=0.02)
    usual = next(found for found in told if found.state == "ok")
    assert "no more than chance explains: about 5% of rows like the validation rows are." in usual.text
    assert "worse" not in usual.text  # too few rejected rows to say


def test_few_validation_rows_choose_no_threshold() -> None:
    rng = np.random.default_rng(3)
    found = looked_at(cloud(rng, 100), np.zeros(100, np.bool_), val=12)
    assert found.state == "unclear"
    assert found.text.startswith("12 validation rows are too few to choose a threshold that keeps 95%")


def test_few_test_rows_leave_it_open() -> None:
    found = looked_at(cloud(np.random.default_rng(4), 8), np.zeros(8, np.bool_))
    assert found.state == "unclear"
    assert found.text.startswith("Can't tell whether more test rows than usual")
    assert found.curve == ((1.0, 1.0),)
    assert found.rejected.method == "wilson"
    assert found.refused is None


def test_one_strange_group_is_one_case() -> None:
    rng = np.random.default_rng(5)
    test = np.concatenate([cloud(rng, 180), cloud(rng, 20, at=3)])
    names = [f"g{i // 20}" for i in range(200)]
    rows = looked_at(test, np.zeros(200, np.bool_))
    whole = looked_at(test, np.zeros(200, np.bool_), groups=names)
    assert rows.state == "warn"
    assert whole.state != "warn"
    assert whole.rejected.high - whole.rejected.low > rows.rejected.high - rows.rejected.low


def test_whether_the_model_is_worse_on_them_can_be_open() -> None:
    rng = np.random.default_rng(6)
    test = np.concatenate([cloud(rng, 270), cloud(rng, 30, at=5)])
    found = looked_at(test, np.arange(300) % 10 == 0)
    assert found.text.endswith("whether the model is worse on them can't be told.")


def test_numbers_and_labels_are_looked_at_alike() -> None:
    rng = np.random.default_rng(7)
    reference = Reference.of(cloud(rng, 200), cloud(rng, 100))
    test = np.concatenate([cloud(rng, 100), cloud(rng, 20, at=4)])
    y = rng.normal(size=120)
    noise = np.where(np.arange(120) < 100, 0.1, 2.0)
    number = unusual(
        reference, test, y + noise * rng.normal(size=120), y, Targets("regression"), ["x"] * 120, range(120),
        resamples=100,
    )  # fmt: skip
    assert number.state == "warn"
    assert number.curve[0][1] > 0.9 > number.curve[-1][1]
    hot = rng.random((120, 2)) < 0.5
    labels = unusual(
        reference, test, np.where(hot, 0.9, 0.1), hot, Targets("multilabel", ("a", "b")), ["x"] * 120, range(120),
        resamples=100,
    )  # fmt: skip
    assert labels.state == "warn"
    assert {value for _, value in labels.curve} == {1.0}


def test_predictions_that_are_not_finite_are_told() -> None:
    rng = np.random.default_rng(8)
    reference = Reference.of(cloud(rng, 20), cloud(rng, 20))
    with pytest.raises(UserError, match="are not finite"):
        unusual(reference, cloud(rng, 3), np.full((3, 2), np.nan), np.zeros(3, np.int64), TWO, "abc", range(3))


@pytest.mark.shared
def test_questions_to_a_bank_and_other_questions(shared_data: Path) -> None:
    """Real texts: questions of another kind are told from new ones of the same, and most are rejected."""
    spec = load_registry().backbone(str(shared_data / "weights" / "minilm_l6_vocab15k"), "text")
    backbone = spec.build()

    def embedded(name: str, split: str, rows: int) -> Features:
        with (shared_data / "datasets" / name / f"{split}.csv").open(newline="") as opened:
            texts = [line["text"] for line in csv.DictReader(opened)]
        chosen = np.random.default_rng(0).permutation(len(texts))[:rows]
        prepared = [backbone.prepare(texts[i]) for i in chosen]
        return np.asarray(embed(backbone, prepared, torch.device("cpu"), "float32").numpy())

    train = embedded("banking77", "train", 240)
    reference = Reference.of(train[:180], train[180:])
    new, other = (reference.scores(embedded(name, "test", 50)) for name in ("banking77", "trec6"))
    assert (other[:, None] > new).mean() > 0.98  # the area under the ROC curve
    assert (other > 1).mean() > 0.8
    assert (new > 1).mean() < 0.25


def test_the_surplus_is_that_of_rows_drawn_together() -> None:
    """Validation and test rows from one distribution: as often as it says, so many lie above the threshold."""
    rng = np.random.default_rng(9)
    reference = Reference(np.ones((1, 1), np.float16), np.sort(rng.random(40)).astype(np.float32), 0.9)
    distances = np.sort(rng.random((20_000, 40)), axis=1)
    above = (rng.random((20_000, 30)) > distances[:, 36:37]).sum(axis=1)  # 37 = ceil(41 x 0.9)
    for seen in (0, 3, 6, 10):
        assert surplus(reference, seen, 30) == pytest.approx((above >= seen).mean(), abs=0.012)
