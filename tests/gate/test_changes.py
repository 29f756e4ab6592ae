"""What changed between two models by parts: sums against plain counting, chance against exact binomials."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from tl_core.diagnostics.gaps import Rated
from tl_core.evaluation.paired import coin_p
from tl_core.gate.changes import ClassScores, RowScores, changes
from tl_core.types import Targets

from .material import Duel, answers


def test_f1_of_classes_and_labels_is_what_others_compute() -> None:
    duel = Duel(200, 0.3, 0.25)
    champion, challenger = (model.predictions for model in duel.models())
    scores = ClassScores(duel.targets, champion, challenger, duel.truth, "bde")
    assert scores.names == ("b", "d", "e")
    weights = np.random.default_rng(0).integers(0, 3, size=(2, 200)).astype(float)
    for sums, said in zip(scores.sums(weights), (champion, challenger)):
        for found, weight in zip(scores.score(sums), weights):
            wanted = sk.f1_score(duel.truth, said.argmax(1), average=None, sample_weight=weight)
            assert found == pytest.approx(wanted[[1, 3, 4]])
    rng = np.random.default_rng(1)
    truth, first, second = rng.random((60, 3)) < 0.4, rng.random((60, 3)), rng.random((60, 3))
    labels = ClassScores(Targets("multilabel", ("x", "y", "z")), first, second, truth, "xyz")
    found = labels.score(labels.sums(np.ones((1, 60)))[1])[0]
    assert found == pytest.approx(sk.f1_score(truth, second > 0.5, average=None))


def test_chance_is_the_exact_binomial_where_rows_stand_alone() -> None:
    """Trading answers by a coin leaves the split of the rows that only one gets right: McNemar's test by simulation."""
    duel = Duel(300, 0.2, 0.13, seed=4)
    first, second = (Rated.of(model.predictions, duel.truth, duel.targets) for model in duel.models())
    assert first is not None
    assert second is not None
    scores = RowScores(first, second, [(np.zeros(300, np.int64), ["all"])])
    (change,) = changes(scores, 300, confidence=0.95, resamples=3000, seed=0)
    lost, won = int((~duel.wrong[0] & duel.wrong[1]).sum()), int((duel.wrong[0] & ~duel.wrong[1]).sum())
    assert change.gain.value == pytest.approx((won - lost) / 300, abs=1e-6)
    assert change.better == pytest.approx(coin_p(lost, won, "one"), abs=0.01)
    assert change.worse == pytest.approx(coin_p(won, lost, "one"), abs=0.01)
    deviation = np.sqrt((won + lost) / 300 - ((won - lost) / 300) ** 2) / np.sqrt(300)
    assert change.gain.value - change.gain.low == pytest.approx(1.645 * deviation, rel=0.1)


def test_groups_are_traded_whole() -> None:
    """Five groups that all favour one model: chance gives that once in 32, however many rows they have."""
    truth = np.zeros(500, np.int64)
    targets = Targets("multiclass", ("a", "b"))
    wrong = np.arange(500) % 10 == 0
    rated = [Rated.of(answers(truth, w, 2), truth, targets) for w in (wrong, np.zeros(500, bool))]
    assert rated[0] is not None
    assert rated[1] is not None
    scores = RowScores(rated[0], rated[1], [(truth, ["all"])])
    alone = changes(scores, 500, confidence=0.95, resamples=2000, seed=0)[0]
    grouped = changes(scores, 500, confidence=0.95, resamples=2000, seed=0, groups=[str(i // 100) for i in range(500)])
    assert alone.better == pytest.approx(1 / 2001, abs=1e-6)
    assert grouped[0].better == 1 / 32  # every way to trade them is gone through


def test_many_parts_are_not_many_chances() -> None:
    """Of 30 equal classes one seems to fall in most draws; together they are called fallen in few."""
    together, single = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = rng.integers(30, size=600)
        targets = Targets("multiclass", tuple(f"{i:02}" for i in range(30)))
        wrong = [rng.random(600) < 0.2 for _ in range(2)]
        first, second = (answers(truth, one, 30) for one in wrong)
        found = changes(
            ClassScores(targets, first, second, truth, targets.classes), 600, confidence=0.95, resamples=100, seed=seed
        )
        together.append(min(change.worse for change in found) <= 0.05)
        single.append(min(change.gain.value for change in found) < -0.1)
    assert np.mean(single) > 0.8
    assert np.mean(together) <= 0.15  # 5% of 40, and what such a count may vary by


def test_a_part_on_which_all_agree_still_leaves_room() -> None:
    duel = Duel(100, 0.2)
    champion, _ = duel.models()
    scores = ClassScores(duel.targets, champion.predictions, champion.predictions, duel.truth, "ab")
    found = changes(scores, 100, confidence=0.95, resamples=100, seed=0)
    for change in found:
        assert (change.gain.value, change.worse, change.better) == (0.0, 1.0, 1.0)
        assert -0.3 < change.gain.low < -0.05
        assert change.gain.high == -change.gain.low
